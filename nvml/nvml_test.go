package nvml

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
		{Index: 0, Name: "NVIDIA H100 80GB HBM3", UUID: "GPU-00000000-0000-0000-0000-000000000000", PCI: "0000:10:1c.0",
			MemoryBytes: 80 << 30, Compute: "9.0", PCIeGen: 4, PCIeWidth: 8, PCIeMaxGen: 5, PCIeMaxWidth: 16, MaxSMClockMHz: 1980,
			NVLinks: []NVLink{{1, 5, "0000:10:1d.0"}, {3, 7, "0000:10:1d.0"}}},
		{Index: 1, Name: "NVIDIA H100 80GB HBM3", UUID: "GPU-00000000-0000-0000-0000-000000000001", PCI: "0000:10:1d.0",
			MemoryBytes: 40 << 30, Compute: "9.0", PCIeGen: 3, PCIeWidth: 9, PCIeMaxGen: 4, PCIeMaxWidth: 17, MaxSMClockMHz: 1980,
			NVLinks: []NVLink{{1, 6, "0000:10:1c.0"}, {3, 8, "0000:10:1c.0"}}},
		{Index: 2, Name: "NVIDIA A10G", UUID: "GPU-00000000-0000-0000-0000-000000000002", PCI: "0000:a0:1c.0",
			MemoryBytes: 20 << 30, Compute: "8.6", PCIeGen: 2, PCIeWidth: 10, PCIeMaxGen: 3, PCIeMaxWidth: 18},
	}
	if d := cmp.Diff(want, gpus); d != "" {
		t.Error(d)
	}
	t.Setenv("FAKENVML_LOST", "1")
	if _, err := lib.GPUs(); !errors.Is(err, ErrorGPUIsLost) || !strings.HasPrefix(err.Error(), "nvmlDeviceGetHandleByIndex_v2 (GPU 1): ") || !strings.HasSuffix(err.Error(), " (15)") {
		t.Errorf("a lost GPU: %v", err)
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
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrorDriverNotLoaded) || errors.Is(err, ErrorNotSupported) ||
		!strings.Contains(err.Error(), "nvmlInit_v2: Driver Not Loaded (9)") {
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
		if g.Name == "" || g.MemoryBytes == 0 || strings.Count(g.PCI, ":") != 2 {
			t.Errorf("%+v", g)
		}
		t.Logf("%+v", g)
	}
}

func TestFake(t *testing.T) {
	var n Interface = &Fake{Devices: []GPU{{Name: "x"}}}
	if g, err := n.GPUs(); err != nil || len(g) != 1 {
		t.Errorf("%v, %v", g, err)
	}
	n = &Fake{Err: ErrUnavailable}
	if _, err := n.System(); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// Each function that is bound is named by a doc comment.
func TestWrapsAreNamed(t *testing.T) {
	b, err := os.ReadFile("bindings.go")
	if err != nil {
		t.Fatal(err)
	}
	var wraps strings.Builder
	for _, w := range regexp.MustCompile(`(?s)Wraps:(.*?)\nfunc`).FindAllStringSubmatch(string(b), -1) {
		wraps.WriteString(w[1] + "\n")
	}
	symbols := regexp.MustCompile(`"(nvml\w+)\??":`).FindAllStringSubmatch(string(b), -1)
	for _, s := range symbols {
		if !regexp.MustCompile(`\b` + s[1] + `\b`).MatchString(wraps.String()) {
			t.Errorf("%s is bound and no Wraps: names it", s[1])
		}
	}
	if len(symbols) < 20 {
		t.Errorf("only %d functions found", len(symbols))
	}
}
