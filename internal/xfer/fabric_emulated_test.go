package xfer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/engine"
	"github.com/xferbench/xferbench/fabric/efaemu"
	"github.com/xferbench/xferbench/internal/testenv"
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
			var ops []engine.Op
			for w := range strings.SplitSeq(f[2], ",") {
				op, err := engine.ParseOp(w)
				if err != nil {
					t.Fatal(err)
				}
				ops = append(ops, op)
			}
			cfg := fabricConfig(f[0], ops...)
			if f[1] != "auto" {
				cfg.Options = map[string]string{FabricLanding: f[1]}
			}
			cfg.Chunk = 8192
			p := runPair(t, cfg, ops...)
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
	exe, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clone(wrap), exe, "-test.run=^TestFabricInner$", "-test.v", "-test.timeout=100s")
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
	return env
}

// debian13 is the command that runs another one with Debian 13's libraries.
func debian13(t *testing.T) []string {
	t.Helper()
	script, err := filepath.Abs("../../scripts/debian13.sh")
	if err != nil {
		t.Fatal(err)
	}
	err = exec.CommandContext(t.Context(), script, "exec", "true").Run()
	testenv.Need(t, "debian13", err)
	return []string{script, "exec"}
}

// libfabric's own efa provider, on emulated devices of each generation.
func TestFabricEmulatedEFA(t *testing.T) {
	for name, o := range map[string]efaemu.Options{
		"p5":                {Profile: efaemu.P5},
		"p4d":               {Profile: efaemu.P4d},
		"g5":                {Profile: efaemu.G5},
		"p5 shuffled":       {Profile: efaemu.P5, Shuffle: 3},
		"p5 short queue":    {Profile: efaemu.P5, SendQueue: 8},
		"p5 no receives":    {Profile: efaemu.P5, RNREvery: 5},
		"p5 small max RDMA": {Profile: efaemu.P5, MaxRDMASize: 8192},
	} {
		t.Run(name, func(t *testing.T) {
			for _, l := range inner(t, nil, emulated(t, o), "efa dc read,write", "efa count write", "efa auto read,write,send") {
				t.Log(l)
			}
		})
	}
}

func TestFabricEmulatedEFADebian13(t *testing.T) {
	for name, o := range map[string]efaemu.Options{
		"p5":          {Profile: efaemu.P5},
		"p5 shuffled": {Profile: efaemu.P5, Shuffle: 5},
		"g5":          {Profile: efaemu.G5},
	} {
		t.Run(name, func(t *testing.T) {
			cases := []string{"efa auto read,write,send", "efa count write", "efa-direct auto send"}
			if o.Profile == efaemu.P5 {
				cases = append(cases, "efa-direct auto read,write,send", "efa-direct count write")
			}
			for _, l := range inner(t, debian13(t), emulated(t, o), cases...) {
				t.Log(l)
			}
		})
	}
}

// The same binary with the library of Debian 13.
func TestFabricDebian13(t *testing.T) {
	needFabric(t)
	for _, l := range inner(t, debian13(t), nil, "tcp auto read,write,send", "tcp count write", "tcp;ofi_rxm auto read,write,send",
		"shm auto read,write,send", "shm count write", "sockets auto read,write,send") {
		t.Log(l)
	}
}
