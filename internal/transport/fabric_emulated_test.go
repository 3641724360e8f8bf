package transport

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/efaemu"
)

// innerVar asks TestFabricInner for its cases: "PROVIDER LANDING OP[,OP…]",
// separated by bars. It is set in processes that this file starts on an
// emulated device or with another library.
const innerVar = "XFERBENCH_TEST_FABRIC"

func TestFabricInner(t *testing.T) {
	cases := os.Getenv(innerVar)
	if cases == "" {
		return // only as a child of the tests below
	}
	for c := range strings.SplitSeq(cases, "|") {
		f := strings.Fields(c)
		t.Run(strings.Join(f, " "), func(t *testing.T) {
			var ops []loop.Op
			for w := range strings.SplitSeq(f[2], ",") {
				op, err := loop.ParseOp(w)
				if err != nil {
					t.Fatal(err)
				}
				ops = append(ops, op)
			}
			cfg := fabricConfig(f[0], ops...)
			if f[1] != "auto" {
				cfg.Options = map[string]string{FabricLanding: f[1]}
			}
			p := runFabric(t, cfg, ops...)
			info := p.ep.Info()
			fmt.Printf("inner: %s fabric %s landing %v protocol %v emulated %v simulated %v\n",
				info.Version, info.Fabric, info.Landing, info.Protocol, info.Emulated, info.Simulated)
		})
	}
}

// inner runs the cases in a child with env, under wrap (a command that runs
// another one), and returns the lines that it printed of its endpoints.
func inner(t *testing.T, wrap, env []string, cases ...string) []string {
	t.Helper()
	args := append(slices.Clone(wrap), testenv.Self(t), "-test.run=^TestFabricInner$", "-test.v", "-test.timeout=100s")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), env...), innerVar+"="+strings.Join(cases, "|"))
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var lines []string
	for l := range strings.SplitSeq(string(out), "\n") {
		if strings.HasPrefix(l, "inner: ") {
			lines = append(lines, l)
		}
	}
	if len(lines) != len(cases) {
		t.Fatalf("%d of %d cases ran:\n%s", len(lines), len(cases), out)
	}
	return lines
}

func emulated(t *testing.T, o efaemu.Options) []string {
	t.Helper()
	needFabric(t)
	o.Library = efaemu.Build(t)
	env, err := efaemu.Setup(filepath.Join(t.TempDir(), "efa"), o)
	if err != nil {
		t.Fatal(err)
	}
	for i, kv := range env {
		if v, ok := strings.CutPrefix(kv, "LD_PRELOAD="); ok && sanitizer(t) != "" {
			env[i] = "LD_PRELOAD=" + sanitizer(t) + ":" + v
		}
	}
	return env
}

// debian13 is the command that runs another one with Debian 13's libraries.
func debian13(t *testing.T) []string {
	t.Helper()
	if sanitizer(t) != "" {
		testenv.Declare(t, "the address sanitizer's runtime is this host's, not Debian 13's")
	}
	script, err := filepath.Abs("../../scripts/debian13.sh")
	if err != nil {
		t.Fatal(err)
	}
	err = exec.CommandContext(t.Context(), script, "exec", "true").Run()
	testenv.Need(t, "debian13", err)
	return []string{script, "exec"}
}

// emulatedCase is a device and what its endpoints must say, a pattern a case.
type emulatedCase struct {
	name    string
	options efaemu.Options
	cases   []string
	want    []string
}

func runEmulated(t *testing.T, wrap []string, all []emulatedCase) {
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			for i, l := range inner(t, wrap, emulated(t, c.options), c.cases...) {
				if !strings.HasSuffix(l, c.want[i]+" simulated true") {
					t.Errorf("case %q says\n%s\nwant at its end\n%s", c.cases[i], l, c.want[i])
				}
			}
		})
	}
}

// libfabric 1.17's efa provider, unmodified, on emulated devices of each
// generation and temper.
func TestFabricEmulatedEFA(t *testing.T) {
	const write = "emulated: libfabric 1.17 has no device RDMA write"
	all := func(read, emulated string) string {
		return "fabric efa landing map[read:local-completion send:target-ack write:delivery-complete] " +
			"protocol map[read:" + read + " send:tagged messages write:" + write + "] emulated [" + emulated + "]"
	}
	device := all("device RDMA, by messages until the peers' handshake", "write")
	count := "fabric efa landing map[write:remote-cq-count] protocol map[write:" + write + "] emulated [write]"
	if v := needFabric(t).Version(); v.String() != "1.17" {
		testenv.Declare(t, "the expected words are those of libfabric 1.17, this host has "+v.String())
	}
	every := []string{"efa dc read,write,send"}
	runEmulated(t, nil, []emulatedCase{
		{"p5", efaemu.Options{Profile: efaemu.P5}, append(every, "efa count write"), []string{device, count}},
		{"p4d, shuffled", efaemu.Options{Profile: efaemu.P4d, Shuffle: 3}, every,
			[]string{all("emulated: libfabric 1.17 reads by messages on device 0xefa1", "read write")}},
		{"g5, short queue", efaemu.Options{Profile: efaemu.G5, SendQueue: 8}, every,
			[]string{all("emulated: libfabric 1.17 reads by messages on device 0xefa0", "read write")}},
		{"p5, receivers not ready, short RDMA", efaemu.Options{Profile: efaemu.P5, RNREvery: 5, MaxRDMASize: 8192}, every, []string{device}},
	})
}

// What cannot be asked is told by device and setting, as libfabric 1.17's source
// decides it.
func TestOldEFA(t *testing.T) {
	v := fabric.Version{Major: 1, Minor: 17}
	for _, c := range []struct {
		op          loop.Op
		device, set string
		words       string
		emulated    bool
	}{
		{loop.Read, "0xefa2", "", "device RDMA, by messages until the peers' handshake", false},
		{loop.Read, "0xefa2", "0", "emulated: libfabric 1.17 reads by messages on device 0xefa2", true},
		{loop.Read, "0xefa1", "", "emulated: libfabric 1.17 reads by messages on device 0xefa1", true},
		{loop.Read, "0xefa1", "1", "device RDMA, by messages until the peers' handshake", false},
		{loop.Read, "0xefa0", "", "emulated: libfabric 1.17 reads by messages on device 0xefa0", true},
		{loop.Read, "", "", "libfabric 1.17 cannot say", false},
		{loop.Write, "0xefa2", "1", "emulated: libfabric 1.17 has no device RDMA write", true},
	} {
		words, emulated := oldEFA(c.op, v, c.device, c.set)
		if words != c.words || emulated != c.emulated {
			t.Errorf("%v on %q with %q: %q, %v; want %q, %v", c.op, c.device, c.set, words, emulated, c.words, c.emulated)
		}
	}
}

// Both fabrics of libfabric 2.1's efa provider.
func TestFabricEmulatedEFADebian13(t *testing.T) {
	const landing = "landing map[read:local-completion send:target-ack write:delivery-complete] "
	all := "fabric efa " + landing + "protocol map[read:device RDMA send:tagged messages write:device RDMA] emulated []"
	direct := "fabric efa-direct " + landing + "protocol map[read:device RDMA send:messages, copied from receive slots write:device RDMA] emulated []"
	runEmulated(t, debian13(t), []emulatedCase{
		{"p5, shuffled", efaemu.Options{Profile: efaemu.P5, Shuffle: 5},
			[]string{"efa auto read,write,send", "efa-direct auto read,write,send", "efa-direct count write"},
			[]string{all, direct, "fabric efa-direct landing map[write:remote-cq-count] protocol map[write:device RDMA] emulated []"}},
		{"g5", efaemu.Options{Profile: efaemu.G5}, []string{"efa auto read,write", "efa-direct auto send"},
			[]string{"fabric efa landing map[read:local-completion write:delivery-complete] protocol map[read:emulated write:emulated] emulated [read write]",
				"fabric efa-direct landing map[send:target-ack] protocol map[send:messages, copied from receive slots] emulated []"}},
	})
}

// The same binary with the library of Debian 13.
func TestFabricDebian13(t *testing.T) {
	needFabric(t)
	for _, l := range inner(t, debian13(t), nil, "tcp auto read,write,send", "tcp count write", "tcp;ofi_rxm auto read,write,send",
		"shm auto read,write,send", "shm count write") {
		if !strings.HasPrefix(l, "inner: 2.1 ") {
			t.Errorf("%q is not of libfabric 2.1", l)
		}
	}
}
