package nvml

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/internal/testenv"
)

// fakeLibrary compiles testdata/fakenvml.c.txt against NVIDIA's header, which comes
// with the module github.com/NVIDIA/go-nvml. It also compares structures.
func fakeLibrary(t *testing.T) string {
	t.Helper()
	cc := testenv.NeedTool(t, "cc")
	// Downloads it where it is not there yet.
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "github.com/NVIDIA/go-nvml").Output()
	var module struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	testenv.Need(t, "go-nvml", err)
	ours, err := filepath.Abs("nvml.h")
	if err != nil {
		t.Fatal(err)
	}
	so := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	out, err = exec.CommandContext(t.Context(), cc, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-DNVML_NO_UNVERSIONED_FUNC_DEFS=1",
		"-I", filepath.Join(module.Dir, "pkg/nvml"), `-DAGAINST="`+ours+`"`, "-o", so, "-x", "c", "testdata/fakenvml.c.txt").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return so
}

func TestLibrary(t *testing.T) {
	so := fakeLibrary(t)
	before, _, err := dl.SignalHandler(int(syscall.SIGINT))
	if err != nil {
		t.Fatal(err)
	}
	lib, err := New(so)
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := dl.SignalHandler(int(syscall.SIGINT))
	if err != nil || before != after || before == 0 {
		t.Errorf("the handler of SIGINT was %#x and is %#x (%v)", before, after, err)
	}
	if lib.Path() != so {
		t.Errorf("path %s", lib.Path())
	}
	sys, err := lib.System()
	if d := cmp.Diff(System{Driver: "550.54.15", Library: "12.550.54.15", CUDA: "12.4"}, sys); d != "" || err != nil {
		t.Error(d, err)
	}
	gpus, err := lib.GPUs()
	if err != nil {
		t.Fatal(err)
	}
	want := []GPU{
		{Index: 0, Name: "NVIDIA H100 80GB HBM3", UUID: "GPU-00000000-0000-0000-0000-000000000000", PCI: "0000:10:1c.0", NUMA: -1,
			MemoryBytes: 80 << 30, Compute: "9.0", PCIeGen: 4, PCIeWidth: 8, PCIeMaxGen: 5, PCIeMaxWidth: 16, MaxSMClockMHz: 1980,
			NVLinks: []NVLink{{1, 5, "0000:10:1d.0"}, {3, 7, "0000:10:1d.0"}}},
		{Index: 1, Name: "NVIDIA H100 80GB HBM3", UUID: "GPU-00000000-0000-0000-0000-000000000001", PCI: "0000:10:1d.0", NUMA: -1,
			MemoryBytes: 40 << 30, Compute: "9.0", PCIeGen: 3, PCIeWidth: 9, PCIeMaxGen: 4, PCIeMaxWidth: 17, MaxSMClockMHz: 1980,
			NVLinks: []NVLink{{1, 6, "0000:10:1c.0"}, {3, 8, "0000:10:1c.0"}}},
		{Index: 2, Name: "NVIDIA A10G", UUID: "GPU-00000000-0000-0000-0000-000000000002", PCI: "0000:a0:1c.0", NUMA: -1,
			MemoryBytes: 20 << 30, Compute: "8.6", PCIeGen: 2, PCIeWidth: 10, PCIeMaxGen: 3, PCIeMaxWidth: 18},
	}
	if d := cmp.Diff(want, gpus); d != "" {
		t.Error(d)
	}
	now, err := lib.Telemetry(1)
	wantNow := Telemetry{SMClockMHz: 1981, MemoryClockMHz: 2620, BusyPercent: 38, MemoryUsedBytes: 3 << 20, PowerMilliwatts: 69001,
		TemperatureC: 32, PCIeTxBytesPerSec: 701_000, PCIeRxBytesPerSec: 901_000, Throttle: []string{"software power cap", "hardware slowdown"}}
	if d := cmp.Diff(wantNow, now); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, c := range []struct {
		a, b int
		want Link
	}{{0, 1, Link{PHB, 2}}, {1, 2, Link{Sys, 0}}, {2, 2, Link{Same, 0}}} {
		if got, err := lib.Link(c.a, c.b); err != nil || got != c.want {
			t.Errorf("link %d-%d: %+v, %v", c.a, c.b, got, err)
		}
	}
	if _, err := lib.Telemetry(7); err == nil || err.Error() != "nvmlDeviceGetHandleByIndex_v2 (GPU 7): Invalid Argument (2)" {
		t.Errorf("telemetry of no device: %v", err)
	}
	for range 2 {
		if err := lib.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDriverNotLoaded(t *testing.T) {
	t.Setenv("FAKENVML_INIT", "9")
	_, err := New(fakeLibrary(t))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "nvmlInit_v2: Driver Not Loaded (9)") {
		t.Errorf("%v", err)
	}
}

// No library, and a file that is none: the loader's words are in the error.
func TestNoLibrary(t *testing.T) {
	none := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	_, err := New(none)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "cannot open shared object file") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(none, []byte("not a library"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = New(none)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), none) {
		t.Errorf("%v", err)
	}
	_, err = New("libm.so.6")
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "nvmlInit_v2") {
		t.Errorf("a library that is not NVML: %v", err)
	}
}

// The real library, where there is one.
func TestThisHost(t *testing.T) {
	lib, err := New("")
	testenv.Need(t, "nvml", err)
	defer func() {
		if err := lib.Close(); err != nil {
			t.Error(err)
		}
	}()
	sys, err := lib.System()
	if err != nil || sys.Driver == "" || sys.CUDA == "" {
		t.Errorf("%+v, %v", sys, err)
	}
	gpus, err := lib.GPUs()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gpus {
		now, err := lib.Telemetry(g.Index)
		if err != nil || now.SMClockMHz == 0 || g.Name == "" || g.MemoryBytes < now.MemoryUsedBytes || strings.Count(g.PCI, ":") != 2 {
			t.Errorf("%+v, %+v, %v", g, now, err)
		}
		if p := PCIPath("/sys", g.PCI, g.PCI); p != Same {
			t.Errorf("sysfs does not know %s: path %q", g.PCI, p)
		}
		t.Logf("%+v %+v", g, now)
	}
}

func TestPCIPath(t *testing.T) {
	root := t.TempDir()
	device := func(place, numa string) {
		dir := filepath.Join(root, "devices", place)
		name := filepath.Base(place)
		err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(root, "bus/pci/devices"), 0o755),
			os.WriteFile(filepath.Join(dir, "numa_node"), []byte(numa+"\n"), 0o644),
			os.Symlink("../../../devices/"+place, filepath.Join(root, "bus/pci/devices", name)))
		if err != nil {
			t.Fatal(err)
		}
	}
	// One switch (10:01.0 upstream, 11:0x.0 downstream), and a second below it.
	device("pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0", "0") // GPU
	device("pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0", "0") // NIC beside it
	device("pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:02.0/0000:15:00.0/0000:16:00.0/0000:17:00.0", "0")
	device("pci0000:10/0000:10:1c.0", "0")
	device("pci0000:20/0000:20:1c.0", "0")
	device("pci0000:a0/0000:a0:1c.0", "1")
	device("pci0000:b0/0000:b0:1c.0", "-1")
	for _, c := range []struct {
		a, b string
		want Path
	}{
		{"0000:13:00.0", "0000:13:00.0", Same},
		{"0000:13:00.0", "0000:14:00.0", PIX},
		{"0000:13:00.0", "0000:17:00.0", PXB},
		{"0000:13:00.0", "0000:10:1C.0", PHB},
		{"0000:13:00.0", "0000:20:1c.0", Node},
		{"0000:13:00.0", "0000:a0:1c.0", Sys},
		{"0000:b0:1c.0", "0000:a0:1c.0", Sys},
		{"0000:13:00.0", "0000:ff:00.0", Unknown},
		{"", "0000:13:00.0", Unknown},
	} {
		if got := PCIPath(root, c.a, c.b); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.a, c.b, got, c.want)
		}
		if got := PCIPath(root, c.b, c.a); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.b, c.a, got, c.want)
		}
	}
	if !(Same.Rank() < PIX.Rank() && PIX.Rank() < PXB.Rank() && PXB.Rank() < PHB.Rank() && PHB.Rank() < Node.Rank() &&
		Node.Rank() < Sys.Rank() && Sys.Rank() < Unknown.Rank()) {
		t.Error("ranks are out of order")
	}
}

func TestFake(t *testing.T) {
	var n Interface = &Fake{Devices: []GPU{{Name: "x"}}, Links: map[[2]int]Link{{0, 1}: {PIX, 4}}}
	if g, err := n.GPUs(); err != nil || len(g) != 1 {
		t.Errorf("%v, %v", g, err)
	}
	if l, err := n.Link(1, 0); err != nil || l != (Link{PIX, 4}) {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := n.Telemetry(0); err == nil {
		t.Error("telemetry of a fake without any")
	}
	n = &Fake{Err: ErrUnavailable}
	if _, err := n.System(); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}
