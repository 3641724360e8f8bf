package conformance

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv/efaemu"
)

// network is one emulated EFA network: the environment of its processes.
type network struct {
	env    []string // of a device as it should be
	faulty []string // of one with the faults that were asked for
	number int
}

// emulate makes the devices; the fault settings of o are for processes that are
// given faulty.
func emulate(t *testing.T, o efaemu.Options) *network {
	t.Helper()
	o.Library = efaemu.Build(t)
	dir := filepath.Join(t.TempDir(), "efa")
	env, err := efaemu.Setup(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	n := &network{faulty: env}
	n.env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, "XFERBENCH_EFAEMU_FAIL_") })
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "XFERBENCH_EFAEMU_NETWORK="); ok {
			if n.number, err = strconv.Atoi(v); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		// After a failed test; noneLeft says what should not have been there.
		if err := efaemu.CleanUp(dir); err != nil {
			t.Error(err)
		}
	})
	return n
}
