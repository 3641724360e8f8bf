package buildtest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv"
)

// checkout returns the repository's folder.
func checkout(t testing.TB) string {
	t.Helper()
	dir, err := testenv.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// run executes cmd and returns what it printed; a failure ends the test with that.
func run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// within is a context that ends with the test or after d.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestDebian13Libraries(t *testing.T) {
	sys := testenv.Debian13(t)
	tests := map[string]struct {
		args []string
		want []string // all of it is printed
	}{
		"libfabric is 2.1": {[]string{"fi_info", "--version"}, []string{"libfabric: 2.1."}},
		"the providers that the tests use are built in": {
			[]string{"fi_info", "--list"}, []string{"efa:", "tcp:", "ofi_rxm:", "shm:", "sockets:", "verbs:"},
		},
		"UCX is 1.18 and comes from the folder": {
			[]string{"ucx_info", "-v"}, []string{"# Library version: 1.18.", "# Library path: /lib/"},
		},
		"UCX finds its modules": {
			// cma, unlike tcp and posix, is a module file of its own.
			[]string{"ucx_info", "-d"}, []string{"Transport: tcp", "Transport: posix", "Transport: cma"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out := run(t, sys.Command(within(t, time.Minute), tt.args[0], tt.args[1:]...))
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("%s prints no %q:\n%s", strings.Join(tt.args, " "), want, out)
				}
			}
		})
	}
}

func TestDebian13Command(t *testing.T) {
	sys := testenv.Debian13(t)
	dir := t.TempDir()
	const file = "seen-from-inside"
	if err := os.WriteFile(filepath.Join(dir, file), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("works in the test's folder", func(t *testing.T) {
		cmd := sys.Command(within(t, time.Minute), "cat", file)
		cmd.Dir = dir
		if got := run(t, cmd); got != "content\n" {
			t.Errorf("cat printed %q", got)
		}
	})
	t.Run("passes the exit status on", func(t *testing.T) {
		err := sys.Command(within(t, time.Minute), "sh", "-c", "exit 7").Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("got %v, want exit status 7", err)
		}
	})
	t.Run("is the process that was started", func(t *testing.T) {
		cmd := sys.Command(within(t, time.Minute), "sh", "-c", "echo $$; exec sleep 60")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		dec := json.NewDecoder(stdout)
		decodeErr := dec.Decode(&pid)
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		err = cmd.Wait()
		if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
			t.Errorf("after a kill the process ended with %v", err)
		}
		if decodeErr != nil && decodeErr != io.EOF {
			t.Fatal(decodeErr)
		}
		if pid != cmd.Process.Pid {
			t.Errorf("the shell inside is process %d, started was %d", pid, cmd.Process.Pid)
		}
	})
	t.Run("preloads for the command alone", func(t *testing.T) {
		cmd := sys.Command(within(t, time.Minute), "env")
		cmd.Env = append(os.Environ(), "LD_PRELOAD=libibverbs.so.1")
		if got := run(t, cmd); !strings.Contains(got, "LD_PRELOAD=libibverbs.so.1\n") {
			t.Errorf("the command's environment has no LD_PRELOAD:\n%s", got)
		}
	})
}

// TestDebian13Headers compiles every package with C in it against libfabric 2.1
// and UCX 1.18.
func TestDebian13Headers(t *testing.T) {
	testenv.NeedTool(t, "cc")
	sys := testenv.Debian13(t)
	root := checkout(t)
	list := exec.CommandContext(within(t, time.Minute), "go", "list", "-f", "{{if .CgoFiles}}{{.ImportPath}}{{end}}", "./...")
	list.Dir = root
	packages := strings.Fields(run(t, list))
	if len(packages) == 0 {
		t.Fatal("go list names no package with C in it")
	}
	build := exec.CommandContext(within(t, 5*time.Minute), "go", append([]string{"build"}, packages...)...)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -g -I"+sys.Include())
	run(t, build)

	// The compiler did read those headers and not the host's.
	probe := filepath.Join(t.TempDir(), "probe.c")
	const text = `#include <rdma/fabric.h>
#include <ucp/api/ucp_version.h>
_Static_assert(FI_MAJOR_VERSION == 2 && FI_MINOR_VERSION >= 1, "libfabric");
_Static_assert(UCP_API_MAJOR == 1 && UCP_API_MINOR >= 18, "UCX");
`
	if err := os.WriteFile(probe, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, exec.CommandContext(within(t, time.Minute), "cc", "-fsyntax-only", "-I"+sys.Include(), probe))
}
