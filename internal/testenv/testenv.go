// Package testenv declares what a test needs from its host.
//
// A test that needs something a host may lack calls [Need]. On a host without
// it the test is skipped and the skip is printed with its reason; if the name
// is listed in XFERBENCH_REQUIRE (comma-separated), the test fails instead, so
// that CI cannot turn green by skipping what it is able to run.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// RequireVar names the environment variable with the comma-separated list of
// needs that must be met: a test that would skip for one of them fails.
const RequireVar = "XFERBENCH_REQUIRE"

// required reports whether name stands in [RequireVar].
func required(name string) bool {
	return slices.Contains(strings.Split(os.Getenv(RequireVar), ","), name)
}

// Need skips t when err is not nil, with err as the reason, and fails it
// instead when name is listed in [RequireVar]. name is the short, stable name
// of the requirement: "netns", "ucx", "libfabric", "ssh", "qemu-user", ….
func Need(t testing.TB, name string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if required(name) {
		t.Fatalf("testenv: %q is required by %s but missing: %v", name, RequireVar, err)
	}
	t.Skipf("testenv: needs %q: %v", name, err)
}

// NeedTool is [Need] for a command on PATH: the requirement's name is the
// command's own name unless as is given. It returns the command's path.
func NeedTool(t testing.TB, tool string, as ...string) string {
	t.Helper()
	name := tool
	if len(as) > 0 {
		name = as[0]
	}
	path, err := exec.LookPath(tool)
	if err != nil {
		err = fmt.Errorf("command %s: %w", tool, err)
	}
	Need(t, name, err)
	return path
}

// NeedRoot is [Need] "root": the test must run as user 0.
func NeedRoot(t testing.TB) {
	t.Helper()
	var err error
	if uid := os.Geteuid(); uid != 0 {
		err = fmt.Errorf("running as user %d, not root", uid)
	}
	Need(t, "root", err)
}

// Declare skips t because the platform can never do what it asks for, with the
// reason; it does not consult [RequireVar]. It is for cells of a test matrix
// that no host can fill, such as an RDMA write on a device without one.
func Declare(t testing.TB, reason string) {
	t.Helper()
	t.Skipf("declared: %s", reason)
}

// Self is the path of the test's own binary, for tests that start it again.
func Self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}
