package efaemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv"
)

// A library is a release of libfabric, and how to start a program with it.
type library struct {
	name    string
	command func(t *testing.T) []string // words before the program's own
}

var (
	// installed is the libfabric of this machine: 1.17 on Debian 12.
	installed = library{"installed", func(*testing.T) []string { return nil }}
	// newer is Debian 13's libfabric 2.1 with its own C library.
	newer = library{"debian13", func(t *testing.T) []string {
		t.Helper()
		_, err := debian13()
		testenv.Need(t, "debian13", err)
		return []string{debian13Script, "exec"}
	}}
)

const debian13Script = "../../../scripts/debian13.sh"

// debian13 fetches Debian 13's packages, unless they are there.
var debian13 = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, debian13Script, "path").Output()
	if err != nil {
		return "", fmt.Errorf("%s path: %w", debian13Script, err)
	}
	return strings.TrimSpace(string(out)), nil
})

// clients are the compiled test clients, in one folder for the test run.
var clients struct {
	dir    string
	linked func() error
	dlopen func() error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "efaemu-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	clients.dir = dir
	clients.linked = sync.OnceValue(func() error { return compileClient("emuclient", "-lfabric") })
	clients.dlopen = sync.OnceValue(func() error { return compileClient("emuclient-dl", "-DEMUCLIENT_DLOPEN", "-ldl") })
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// compileClient compiles testdata/emuclient.
func compileClient(name string, flags ...string) error {
	files, err := filepath.Glob("testdata/emuclient/*.c")
	if err != nil {
		return err
	}
	args := append([]string{"-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"}, files...)
	args = append(args, "-o", filepath.Join(clients.dir, name))
	out, err := exec.Command("cc", append(args, flags...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compile the test client with libfabric's headers (libfabric-dev): %w\n%s", err, out)
	}
	return nil
}

// client returns the path of the linked test client.
func client(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "libfabric", clients.linked())
	return filepath.Join(clients.dir, "emuclient")
}

// A side is one of the two processes of a run: what differs, and what came out.
type side struct {
	env  []string // beyond what both have
	args []string

	exit      int
	transfers []map[string]string // a line of name=value words each
	stderr    string
}

// number returns a word of the i-th transfer as a number.
func (s *side) number(t *testing.T, i int, name string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s.transfers[i][name], 10, 64)
	if err != nil {
		t.Fatalf("transfer %d: word %s: %v", i, name, err)
	}
	return n
}

// run starts the program twice, as target and initiator with a socket between
// them, and waits for both.
func run(t *testing.T, lib library, program string, env []string, target, initiator *side) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	prefix := lib.command(t)

	type process struct {
		cmd         *exec.Cmd
		out, errOut bytes.Buffer
	}
	sides := []*side{target, initiator}
	processes := make([]*process, 2)
	for i, s := range sides {
		words := append(append([]string{}, prefix...), program, "-r", []string{"target", "initiator"}[i])
		words = append(words, s.args...)
		p := &process{cmd: exec.CommandContext(ctx, words[0], words[1:]...)}
		end := os.NewFile(uintptr(fds[i]), "control")
		defer end.Close()
		p.cmd.ExtraFiles = []*os.File{end}
		p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errOut
		// Small receive pools: the default of 8192 buffers costs more than the transfers here.
		p.cmd.Env = append(append(append(os.Environ(), "FI_EFA_RX_SIZE=256", "FI_PROVIDER=efa"), env...), s.env...)
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer p.cmd.Process.Kill() // after an early end of the test; gone already otherwise
		end.Close()                // so that the peer's end closes with the process
		processes[i] = p
	}
	for i, p := range processes {
		if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState == nil {
			t.Fatal(err)
		}
		s := sides[i]
		s.exit, s.stderr = p.cmd.ProcessState.ExitCode(), p.errOut.String()
		for line := range strings.Lines(p.out.String()) {
			words := map[string]string{}
			for _, word := range strings.Fields(line) {
				name, value, _ := strings.Cut(word, "=")
				words[name] = value
			}
			s.transfers = append(s.transfers, words)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("target: exit %d\n%s\ninitiator: exit %d\n%s", target.exit, target.stderr, initiator.exit, initiator.stderr)
	}
}

// setup is [Setup] in a folder of t's.
func setup(t *testing.T, opt Options) (dir string, env []string) {
	t.Helper()
	opt.Library = Build(t)
	dir = t.TempDir()
	env, err := Setup(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := CleanUp(dir); err != nil {
			t.Error(err)
		}
	})
	return dir, env
}

// counter is [Counter] of device i.
func counter(t *testing.T, dir string, i int, name string) uint64 {
	t.Helper()
	n, err := Counter(dir, i, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
