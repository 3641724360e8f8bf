//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// markVar is set for the commands whose engines must be gone afterwards.
const markVar = "XFERBENCH_E2E_RUN"

// tool runs commands of one test in the root of the repository, so that the
// relative paths of launch specs hold.
type tool struct {
	t      *testing.T
	binary string
	root   string
	dir    string // of records and logs
	mark   string
	seen   map[int]process
}

// process is one that a command of ours started, itself or by others.
type process struct {
	start string // ticks since boot: with the id it names a process for good
	group string
	name  string
}

// newTool copies the binary to dir: a build while the engines run, which takes
// minutes, does not change what is tested.
func newTool(t *testing.T, root, dir string) *tool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "bin", "xferbench"))
	if err != nil {
		t.Fatalf("%v: run make build", err)
	}
	binary := filepath.Join(dir, "xferbench-under-test")
	if err := os.WriteFile(binary, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return &tool{t: t, binary: binary, root: root, dir: dir, mark: rand.Text(), seen: map[int]process{}}
}

// environ is the environment of all commands; marked is added to engines'.
func (x *tool) environ(marked bool) []string {
	env := append(os.Environ(), "XDG_STATE_HOME="+x.dir)
	if marked {
		env = append(env, markVar+"="+x.mark)
	}
	return env
}

// say prints progress: `go test -v` shows it at once.
func say(format string, args ...any) {
	fmt.Printf("e2e %s: "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// lines hands each line written to it on.
type lines struct {
	line func(string)
	part []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		i := bytes.IndexByte(l.part, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.line(string(l.part[:i]))
		l.part = l.part[i+1:]
	}
}

// run runs xferbench and wants an exit code. It shows what it says on standard
// error and returns standard output. At the limit it is interrupted, and stops
// its engines.
func (x *tool) run(limit time.Duration, code int, args ...string) string {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, x.binary, args...)
	cmd.Dir, cmd.Env = x.root, x.environ(true)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute // engines have 30 s to stop
	var out bytes.Buffer
	var errs strings.Builder
	cmd.Stdout = &out
	cmd.Stderr = &lines{line: func(s string) {
		errs.WriteString(s + "\n")
		say("  %s", s)
		x.look()
	}}
	begin := time.Now()
	say("xferbench %s", strings.Join(args, " "))
	stop := progress(args)
	err := cmd.Run()
	stop()
	say("exit code %d after %.0f s", cmd.ProcessState.ExitCode(), time.Since(begin).Seconds())
	if ctx.Err() != nil {
		x.t.Fatalf("xferbench %s: not done within %s\n%s", args[0], limit, errs.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		x.t.Fatalf("xferbench %s: %v", args[0], err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		x.t.Fatalf("xferbench %s: exit code %d, want %d\n%s\n%s", strings.Join(args, " "), got, code, out.String(), errs.String())
	}
	return out.String()
}

// progress shows now and then how many requests are in the record that args
// name, until stop is called.
func progress(args []string) (stop func()) {
	at := slices.Index(args, "--record")
	if at < 0 || args[0] != "ttft" {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			b, err := os.ReadFile(args[at+1])
			if n := bytes.Count(b, []byte(`"type":"request"`)); err == nil && n > 0 { // none before the engines are ready
				say("  %d requests so far, %d of them invalid", n, bytes.Count(b, []byte(`"valid":false`)))
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// look notes the processes that carry the mark in their environment.
func (x *tool) look() {
	for pid, p := range x.marked() {
		x.seen[pid] = p
	}
}

// marked are the processes that run now with the mark.
func (x *tool) marked() map[int]process {
	out := map[int]process{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return out
	}
	for _, d := range dirs {
		env, err := os.ReadFile(filepath.Join(d, "environ"))
		if err != nil || !bytes.Contains(env, []byte(markVar+"="+x.mark)) {
			continue // gone, or not ours
		}
		if p, ok := stat(d); ok {
			pid, err := strconv.Atoi(filepath.Base(d))
			if err == nil {
				out[pid] = p
			}
		}
	}
	return out
}

// stat reads a process's /proc/PID/stat; not ok if it is gone or a zombie.
func stat(dir string) (process, bool) {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return process{}, false
	}
	// The name stands in parentheses and may hold anything.
	head, tail, ok := strings.Cut(string(b), " (")
	end := strings.LastIndex(tail, ") ")
	if !ok || head == "" || end < 0 {
		return process{}, false
	}
	f := strings.Fields(tail[end+2:])
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return process{}, false
	}
	return process{start: f[19], group: f[2], name: tail[:end]}, true
}

// nothingLeft wants that the processes of so many engines were seen, each engine
// in a process group of its own beside its keeper's, and that none of them lives.
func (x *tool) nothingLeft(engines int) {
	x.t.Helper()
	groups := map[string]bool{}
	for _, p := range x.seen {
		groups[p.group] = true
	}
	if len(groups) < 2*engines {
		x.t.Errorf("saw processes in %d groups, want two for each of %d engines at least: nothing is proven about their end", len(groups), engines)
	}
	alive := func() (left []string) {
		for pid, p := range x.marked() {
			left = append(left, fmt.Sprintf("%d (%s)", pid, p.name))
		}
		for pid, was := range x.seen {
			// Some rename themselves and lose their environment.
			if p, ok := stat(fmt.Sprintf("/proc/%d", pid)); ok && p.start == was.start {
				left = append(left, fmt.Sprintf("%d (%s)", pid, p.name))
			}
		}
		return left
	}
	left := alive()
	for limit := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(limit); left = alive() {
		time.Sleep(100 * time.Millisecond)
	}
	if len(left) > 0 {
		x.t.Errorf("processes left: %s", strings.Join(left, ", "))
	}
	say("%d processes in %d groups were started, %d are left", len(x.seen), len(groups), len(left))
	x.seen = map[int]process{}
}

// serve starts a server that the test needs beside the engines and ends it with
// the test. Its first line of output that begins with want goes to ready.
func (x *tool) serve(name string, want string, argv ...string) (first string) {
	x.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = x.root, x.environ(false)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	ready := make(chan string, 1)
	var mu sync.Mutex
	var all strings.Builder
	out := &lines{line: func(s string) {
		mu.Lock()
		defer mu.Unlock()
		all.WriteString(s + "\n")
		if strings.Contains(s, want) {
			select {
			case ready <- s:
			default:
			}
		}
	}}
	cmd.Stdout, cmd.Stderr = out, out // one writer: os/exec writes to it from one goroutine
	if err := cmd.Start(); err != nil {
		cancel()
		x.t.Fatalf("%s: %v", name, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	x.t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			x.t.Errorf("%s did not end", name)
		}
		if x.t.Failed() {
			mu.Lock()
			defer mu.Unlock()
			x.t.Logf("%s said:\n%s", name, all.String())
		}
	})
	select {
	case first = <-ready:
	case err := <-done:
		done <- err
		mu.Lock()
		defer mu.Unlock()
		x.t.Fatalf("%s ended: %v\n%s", name, err, all.String())
	case <-time.After(3 * time.Minute):
		x.t.Fatalf("%s is not ready after three minutes", name)
	}
	return first
}

// freePort is a port that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

// forgetful is a proxy with the mistake that a proof must find: it has the
// prefill engine compute the prompt and asks the decode engine without its
// kv_transfer_params, so that the answer is right and no KV cache moved.
func forgetful(prefill, decode string) http.Handler {
	// An engine closes a connection that was idle for 5 s, perhaps as it is used.
	client := &http.Client{Timeout: 10 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			return // health
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, base := range []string{prefill, decode} {
			if err := relay(r.Context(), client, w, base+r.URL.Path, body, base == decode); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
	})
}

// relay posts body; the answer goes to w, as it comes, or nowhere.
func relay(ctx context.Context, client *http.Client, w http.ResponseWriter, url string, body []byte, show bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	to := io.Discard
	if show {
		w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
		to = flusher{w}
	}
	_, err = io.Copy(to, res.Body)
	return err
}

// flusher sends what is written at once.
type flusher struct{ http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	return n, errors.Join(err, http.NewResponseController(f.ResponseWriter).Flush())
}
