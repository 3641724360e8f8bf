package providers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/efaemu"
	"github.com/xferbench/xferbench/internal/testenv/hosttest"
	"github.com/xferbench/xferbench/ucx"
)

var update = flag.Bool("update", false, "write the golden files")

// misbehave makes the child of one probe go wrong: "crash:NAME", "hang:NAME",
// "garbage:NAME", "noise:NAME".
const misbehave = "XFERBENCH_TEST_PROBE"

// TestMain is the worker, too.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Arg(0) != remote.WorkerCommand {
		os.Exit(m.Run())
	}
	err := remote.Work(context.Background(), os.Stdin, os.Stdout, map[string]remote.Task{
		Task: func(ctx context.Context, spec json.RawMessage, tell func(any) error) error {
			var r request
			if err := json.Unmarshal(spec, &r); err != nil {
				return err
			}
			how, who, _ := strings.Cut(os.Getenv(misbehave), ":")
			if who != r.Name {
				how = ""
			}
			switch how {
			case "crash":
				_, _ = os.Stderr.WriteString("some library: assertion failed\n")
				if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
					return err
				}
				select {}
			case "hang":
				time.Sleep(time.Minute)
			case "garbage":
				_, _ = os.Stdout.WriteString("what?\n")
				return nil
			case "noise":
				_, _ = os.Stdout.WriteString("[1] WARN a library that talks on stdout\n")
			}
			return Work(ctx, spec, tell)
		}})
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}

// self is the Prober of this host, in real child processes.
func self() Prober { return Child(Libraries{}, time.Minute) }

func collect(t *testing.T, o Options) Report {
	t.Helper()
	if o.Limit == 0 {
		o.Limit = 30 * time.Second
	}
	r, err := Collect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// recorded is a Prober with fixed answers, as the hosts of the trees give them.
func recorded(answers map[string]answer) Prober {
	return func(_ context.Context, name string) (answer, error) {
		a, ok := answers[name]
		if !ok {
			why := "no answer was recorded"
			if lib, isLib := strings.CutPrefix(name, libraryPrefix); isLib {
				a = answer{Library: &Library{Name: lib, Outcome: Absent, Why: why}}
			} else {
				a = answer{Row: &Row{Provider: name, API: apiOf(name), Outcome: Absent, Why: why}}
			}
		}
		return a, nil
	}
}

// libfabricAnswer is a loaded libfabric.
func libfabricAnswer(version string) answer {
	return answer{Library: &Library{Name: "libfabric", Outcome: Runs, Path: "/opt/amazon/efa/lib64/libfabric.so.1", Version: version}}
}

func efaRow(rma string, devices ...record.NIC) answer {
	return answer{Row: &Row{Provider: "efa", API: "libfabric", Outcome: Runs, Devices: devices, Fabric: "efa", Carrier: "efa",
		Ops: []string{"read", "write", "send"}, Landing: map[string]string{"read": "local-completion", "write": "delivery-complete", "send": "target-ack"},
		RMA: rma, SharedOff: true, GPUMemory: "yes", TookNs: 12_000_000}}
}

// h100 are the GPUs of the p5 tree.
func h100() []host.GPU {
	var out []host.GPU
	for i, bus := range []string{"50", "60", "70", "80", "90", "a0", "b0", "c0"} {
		out = append(out, host.GPU{GPU: record.GPU{Index: i, Name: "NVIDIA H100 80GB HBM3", PCI: "0000:" + bus + ":1c.0", NUMA: i / 4, MemoryBytes: 80 << 30,
			Driver: "550.90.07"}, PCIeGen: 5, PCIeWidth: 16, NVLinks: 18})
	}
	return out
}

var trees = map[string]map[string]answer{
	"g5": {
		"library:libfabric": libfabricAnswer("2.1"),
		"efa":               efaRow("emulated", record.NIC{Name: "rdmap0s6", PCI: "0000:00:06.0", NUMA: -1, LinkBits: 40e9}),
	},
	"g5-noefa": {
		"library:libfabric": libfabricAnswer("1.17"),
		"efa": {Row: &Row{Provider: "efa", API: "libfabric", Outcome: Absent, Why: "fi_getinfo: this host has no EFA device: No data available (61)",
			Next: "run on an EC2 instance with an EFA interface attached, or choose another --provider"}},
	},
	"p4d": {
		"library:libfabric": libfabricAnswer("1.20"),
		"efa": efaRow("read device, write emulated", record.NIC{Name: "rdmap16s27", NUMA: 0, LinkBits: 100e9}, record.NIC{Name: "rdmap32s27", NUMA: 0, LinkBits: 100e9},
			record.NIC{Name: "rdmap144s27", NUMA: 1, LinkBits: 100e9}, record.NIC{Name: "rdmap160s27", NUMA: 1, LinkBits: 100e9}),
	},
	"p5": {
		"library:libfabric": libfabricAnswer("2.4"),
		"library:NVML":      {Library: &Library{Name: "NVML", Outcome: Runs, Path: "/lib64/libnvidia-ml.so.1", Version: "12.550.90.07"}, GPUs: h100()},
		"efa":               efaRow("device", record.NIC{Name: "rdmap80s23", NUMA: 0, LinkBits: 100e9}),
	},
}

func TestTrees(t *testing.T) {
	for name, answers := range trees {
		t.Run(name, func(t *testing.T) {
			r := collect(t, Options{Root: hosttest.Unpack(t, name), Probe: recorded(answers), Names: []string{"efa"}})
			r.Host.Arch, r.Host.CPUs = "amd64", 48 // of this machine
			var text, doc bytes.Buffer
			if err := r.WriteText(&text, false); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(text.String()) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > columns {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			e := json.NewEncoder(&doc)
			e.SetIndent("", "  ")
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", text.Bytes())
			golden(t, name+".json", doc.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (go test -update writes it):\n%s", name, d)
	}
}

// The facts of each tree, apart from how they are printed.
func TestAWS(t *testing.T) {
	for _, c := range []struct {
		tree, emulated, shm string
		states              map[string]State
	}{
		{"g5", "read, write", "no", map[string]State{"EFA attached": OK, "libfabric for EFA": OK, "RMA on EFA": Warn, "GPUDirect on EFA": Warn, "one-host run": OK}},
		{"g5-noefa", "read, write", "yes", map[string]State{"EFA attached": Fail, "libfabric for EFA": Warn, "RMA on EFA": Warn}},
		{"p4d", "write", "no", map[string]State{"EFA attached": OK, "libfabric for EFA": Warn, "RMA on EFA": Warn, "GPUDirect on EFA": OK}},
		{"p5", "none", "no", map[string]State{"EFA attached": OK, "libfabric for EFA": OK, "RMA on EFA": OK, "GPUDirect on EFA": OK}},
	} {
		r := collect(t, Options{Root: hosttest.Unpack(t, c.tree), Probe: recorded(trees[c.tree]), Names: []string{"efa"}})
		if r.AWS == nil {
			t.Fatalf("%s: no AWS section", c.tree)
		}
		if r.AWS.EmulatedRMA != c.emulated || r.AWS.OneHostShared != c.shm {
			t.Errorf("%s: emulated %q, shared %q", c.tree, r.AWS.EmulatedRMA, r.AWS.OneHostShared)
		}
		for name, want := range c.states {
			i := slices.IndexFunc(r.AWS.Checks, func(k Check) bool { return k.Name == name })
			if i < 0 || r.AWS.Checks[i].State != want {
				t.Errorf("%s: %s: %+v, want %s", c.tree, name, r.AWS.Checks, want)
			} else if k := r.AWS.Checks[i]; k.State != OK && k.Next == "" {
				t.Errorf("%s: %s has no next step", c.tree, name)
			}
		}
	}
}

// p5: each GPU has four NICs on its own root.
func TestNearestNICs(t *testing.T) {
	r := collect(t, Options{Root: hosttest.Unpack(t, "p5"), Probe: recorded(trees["p5"]), Names: []string{"efa"}})
	if len(r.GPUs) != 8 {
		t.Fatalf("%d GPUs", len(r.GPUs))
	}
	want := []NearNIC{{"rdmap112s23", "PHB"}, {"rdmap112s24", "PHB"}, {"rdmap112s25", "PHB"}, {"rdmap112s26", "PHB"}}
	if d := cmp.Diff(want, r.GPUs[2].Nearest); d != "" {
		t.Error(d)
	}
}

func TestChildGoesWrong(t *testing.T) {
	for _, c := range []struct {
		how     string
		outcome Outcome
		why     string
	}{
		{"crash", Crashed, "signal: killed: some library: assertion failed"},
		{"hang", Hung, "killed after 700ms"},
		{"garbage", Crashed, "ended before it answered"},
		{"noise", Runs, ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Setenv(misbehave, c.how+":memcpy")
			limit := 30 * time.Second
			if c.how == "hang" {
				limit = 700 * time.Millisecond
			}
			r := run(t.Context(), self(), "memcpy", limit).Row
			if r == nil || r.Outcome != c.outcome || !strings.Contains(r.Why, c.why) || c.outcome != Runs && r.Next == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A crash takes nothing else with it, of libraries neither.
func TestCrashIsARow(t *testing.T) {
	t.Setenv(misbehave, "crash:library:UCX")
	r := collect(t, Options{Probe: self(), Names: []string{"memcpy"}})
	if l := r.library("UCX"); l == nil || l.Outcome != Crashed || !strings.Contains(l.Why, "signal: killed") {
		t.Errorf("%+v", l)
	}
	if row := r.Row("memcpy"); row == nil || row.Outcome != Runs {
		t.Errorf("%+v", row)
	}
	if r.Runnable() {
		t.Error("memcpy alone is no transport")
	}
}

func TestUnknownProbe(t *testing.T) {
	for _, name := range []string{"nosuch", "library:nosuch", "ucx:"} {
		if _, err := probe(t.Context(), name, Libraries{}); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the test")
	p := func(context.Context, string) (answer, error) { cancel(stop); return answer{}, stop }
	if _, err := Collect(ctx, Options{Probe: p, Limit: time.Second, Names: []string{"tcp"}}); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func needLibraries(t *testing.T) {
	t.Helper()
	_, err := fabric.Load("")
	testenv.Need(t, "libfabric", err)
	_, err = ucx.Load("")
	testenv.Need(t, "ucx", err)
}

func TestThisHost(t *testing.T) {
	needLibraries(t)
	r := collect(t, Options{Probe: self()})
	if len(r.Rows) != len(Names()) || len(r.Libraries) != 4 {
		t.Fatalf("%d rows, %d libraries", len(r.Rows), len(r.Libraries))
	}
	for _, name := range []string{"tcp", "tcp;ofi_rxm", "shm", "sockets", "ucx", "ucx:tcp", "ucx:shm", "socket", "memcpy"} {
		row := r.Row(name)
		if row.Outcome != Runs || len(row.Ops) != 3 || row.Landing["write"] == "" || row.RMA == "" || row.TookNs <= 0 {
			t.Errorf("%s: %+v", name, row)
		}
		if row.API == "libfabric" && (len(row.Devices) == 0 || row.Library == "" || row.Version == "") {
			t.Errorf("%s: %+v", name, row)
		}
	}
	if !r.Runnable() {
		t.Error("nothing runs")
	}
	if devices := r.AWS; devices == nil {
		for _, name := range []string{"efa", "efa-direct"} {
			if row := r.Row(name); row.Outcome != Absent || !strings.Contains(row.Why, "no EFA device") || row.Next == "" {
				t.Errorf("%s: %+v", name, row)
			}
		}
	}
	// UCX's own words, and the step that its binding knows.
	if row := r.Row("ucx:srd"); row.Outcome == Absent && (!strings.Contains(row.Why, "srd") || row.Next == "") {
		t.Errorf("%+v", row)
	}
	for _, l := range r.Libraries {
		if l.Outcome == Absent && (l.Why == "" || l.Next == "") || l.Outcome == Runs && (l.Path == "" || l.Version == "") {
			t.Errorf("%+v", l)
		}
	}
}

// libfabric's own efa provider on the emulated device of each generation.
func TestEmulatedEFA(t *testing.T) {
	needLibraries(t)
	so := efaemu.Build(t)
	for _, c := range []struct {
		profile       efaemu.Profile
		devices       int
		rma, emulated string // with device RDMA write in the library, and of the host
		id            string
	}{
		{efaemu.P5, 2, "device", "none", "0xefa2"},
		{efaemu.P4d, 1, "read device, write emulated", "write", "0xefa1"},
		{efaemu.G5, 1, "emulated", "read, write", "0xefa0"},
	} {
		t.Run(string(c.profile), func(t *testing.T) {
			env, err := efaemu.Setup(filepath.Join(t.TempDir(), "efa"), efaemu.Options{Library: so, Profile: c.profile, Devices: c.devices})
			if err != nil {
				t.Fatal(err)
			}
			for _, kv := range env {
				k, v, _ := strings.Cut(kv, "=")
				t.Setenv(k, v)
			}
			r := collect(t, Options{Probe: self(), Names: []string{"efa", "efa-direct"}})
			efa, direct := r.Row("efa"), r.Row("efa-direct")
			if efa.Outcome != Runs || !efa.Emulated || len(efa.Devices) != c.devices || efa.Devices[0].Name != "rdmap0s6" || !efa.SharedOff ||
				efa.Devices[0].Firmware != efaemu.FirmwareVersion || len(efa.Ops) != 3 {
				t.Fatalf("%+v", efa)
			}
			old := versionOf(t, r).Less(deviceWrite)
			if old {
				// No library before 1.18 has a device RDMA write; what it does for a
				// read depends on the device.
				if efa.RMA != "emulated" && !strings.Contains(efa.RMA, "write emulated") || !strings.Contains(r.AWS.EmulatedRMA, "write") {
					t.Errorf("RMA %q", efa.RMA)
				}
			} else if efa.RMA != c.rma || r.AWS.EmulatedRMA != c.emulated {
				t.Errorf("RMA %q, %q", efa.RMA, r.AWS.EmulatedRMA)
			}
			if versionOf(t, r).Less(fabric.Version{Major: 2, Minor: 1}) {
				if direct.Outcome != Absent || !strings.Contains(direct.Why, "2.1") {
					t.Errorf("efa-direct: %+v", direct)
				}
			} else if direct.Outcome != Runs {
				t.Errorf("efa-direct: %+v", direct)
			}
			a := r.AWS
			if a == nil || len(a.Attached) != c.devices || !a.Attached[0].Emulated || a.Attached[0].DeviceID != c.id || a.OneHostShared != "no" {
				t.Errorf("%+v", a)
			}
			var text bytes.Buffer
			if err := r.WriteText(&text, false); err != nil || !strings.Contains(text.String(), "emulated device") {
				t.Errorf("%v\n%s", err, &text)
			}
		})
	}
}

func versionOf(t *testing.T, r Report) fabric.Version {
	t.Helper()
	v, ok := libfabricVersion(r)
	if !ok {
		t.Fatalf("libfabric: %+v", r.library("libfabric"))
	}
	return v
}

// The same with Debian 13's libfabric 2.1 and UCX 1.18: device RDMA write, and
// efa-direct.
func TestDebian13(t *testing.T) {
	root := testenv.Debian13(t)
	efaemu.Build(t) // there is no compiler in there
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := root.Command(t.Context(), exe, "-test.run=^(TestEmulatedEFA|TestThisHost)$", "-test.v", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), testenv.RequireVar+"=libfabric,ucx,efaemu")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestEmulatedEFA/p4d") || !strings.Contains(string(out), "--- PASS: TestThisHost") {
		t.Fatalf("%v\n%s", err, out)
	}
}
