package remote_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/testenv"
)

// parentVar makes this test binary a process that starts another, and waits.
const parentVar = "XFERBENCH_TEST_PARENT"

// echoArg makes it one that copies its standard input.
const echoArg = "echo standard input"

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case flag.Arg(0) == remote.WorkerCommand:
		os.Exit(worker())
	case flag.Arg(0) == echoArg:
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
		fmt.Fprintln(os.Stderr, os.Getenv("PATH"))
		os.Exit(3)
	case os.Getenv(parentVar) != "":
		os.Exit(parent(strings.Split(os.Getenv(parentVar), "\n")))
	}
	goleak.VerifyTestMain(m)
}

func parent(words []string) int {
	h, err := remote.ParseHost(words[0])
	h.SSH = words[1]
	if err == nil {
		_, err = remote.Start(context.Background(), h, remote.Command{Argv: words[3:], Guard: words[2] == "guard", Grace: time.Second})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("started")
	time.Sleep(limit)
	return 0
}

const limit = 60 * time.Second

// place is where a process of a test runs.
type place struct {
	name  string
	host  remote.Host
	guard bool
}

// places are this host, this host with a guard, and a host behind ssh.
func places(t *testing.T) []place {
	t.Helper()
	s := testenv.SSHD(t)
	h, err := remote.ParseHost(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	h.SSH = s.Command()
	return []place{{"here", remote.Host{}, false}, {"guarded", remote.Host{}, true}, {"ssh", h, false}}
}

func (p place) start(t *testing.T, c remote.Command) *remote.Process {
	t.Helper()
	c.Guard = p.guard
	if c.Grace == 0 {
		c.Grace = limit
	}
	ctx, cancel := context.WithCancel(context.Background())
	proc, err := remote.Start(ctx, p.host, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); proc.Stop() })
	return proc
}

func everywhere(t *testing.T, f func(t *testing.T, p place)) {
	t.Helper()
	for _, p := range places(t) {
		t.Run(p.name, func(t *testing.T) { f(t, p) })
	}
}

var marks atomic.Int64

// mark is a number that no other process of this host has among its arguments.
func mark() string {
	return fmt.Sprintf("%d.%d%d", 1000+marks.Add(1), os.Getpid(), time.Now().UnixNano())
}

// running lists the processes that have text among their arguments, without the
// shells that start them.
func running(t *testing.T, text string) (out []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if words := strings.Split(string(b), "\x00"); err == nil && words[0] == "sleep" && slices.Contains(words, text) {
			out = append(out, filepath.Base(filepath.Dir(f)))
		}
	}
	return out
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within %v: %s", limit, what)
}

// runs waits until n processes have text among their arguments.
func runs(t *testing.T, text string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d processes with %s", n, text), func() bool { return len(running(t, text)) == n })
}

func TestArgumentsEnvironmentAndOutput(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		var out, errs bytes.Buffer
		args := []string{"it's", `"$HOME" $(false) ` + "`x`", "two\nlines", "", "*"}
		proc := p.start(t, remote.Command{
			Argv:  append([]string{"sh", "-c", `cat; printf "<%s>" "$V" "$@"; echo "some words" >&2; exit 7`, "sh"}, args...),
			Env:   []string{"V=a 'value' of $V"},
			Stdin: []byte("a \"line\" of 'input' \\n %s\n"), Stdout: &out, Stderr: &errs})
		err := proc.Wait()
		if code, ended := proc.Ended(); !ended || code != 7 || err == nil {
			t.Errorf("code %d, ended %v, %v: %s", code, ended, err, proc.Words())
		}
		want := "a \"line\" of 'input' \\n %s\n<a 'value' of $V><" + strings.Join(args, "><") + ">"
		if out.String() != want {
			t.Errorf("output %q, want %q", out.String(), want)
		}
		if errs.String() != "some words\n" || proc.Words() != "some words (exit status 7)" || proc.Said() != "some words" {
			t.Errorf("words %q, %q", errs.String(), proc.Words())
		}
		if err := proc.Stop(); err != nil {
			t.Errorf("Stop after the end: %v", err)
		}
	})
}

func TestStreamIsReadToItsEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		proc := p.start(t, remote.Command{Argv: []string{"sh", "-c", "echo one; echo two"}, Stream: true})
		b, err := io.ReadAll(proc.Stdout)
		if err != nil || string(b) != "one\ntwo\n" {
			t.Errorf("%q, %v", b, err)
		}
		if err := proc.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// A process that obeys SIGTERM ends at once, with all that it started, and that
// is no error.
func TestStopEndsTheGroup(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		m := mark()
		proc := p.start(t, remote.Command{Argv: []string{"sh", "-c", "sleep " + m + " & sleep " + m}})
		runs(t, m, 2)
		start := time.Now()
		if err := errors.Join(proc.Stop(), proc.Wait(), proc.Stop()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > limit/2 {
			t.Errorf("took %v", d)
		}
		runs(t, m, 0)
	})
}

func TestStubbornProcessIsKilled(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		m := mark()
		proc := p.start(t, remote.Command{Argv: []string{"sh", "-c", `trap "" TERM; sleep ` + m + ` & sleep ` + m}, Grace: 300 * time.Millisecond})
		runs(t, m, 2)
		if err := proc.Stop(); !errors.Is(err, remote.ErrKilled) || !strings.Contains(err.Error(), "300ms of SIGTERM") {
			t.Errorf("Stop: %v", err)
		}
		runs(t, m, 0)
	})
}

// What a process leaves in its group when it ends by itself does not stay, and
// does not keep Wait.
func TestWhatIsLeftBehindIsEnded(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, how := range []string{"", `trap "" TERM; `} {
			m := mark()
			proc := p.start(t, remote.Command{Argv: []string{"sh", "-c", how + `sleep ` + m + ` & sleep 0.3; exit 5`}, Grace: 500 * time.Millisecond})
			runs(t, m, 1)
			proc.Wait()
			want := 5
			if how != "" && (p.guard || p.host != (remote.Host{})) {
				want = 137 // the guard's own word
			}
			if code, _ := proc.Ended(); code != want {
				t.Errorf("%q: code %d, want %d: %s", how, code, want, proc.Words())
			}
			runs(t, m, 0)
		}
	})
}

func TestContextEndsTheProcess(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		ctx, cancel := context.WithCancel(t.Context())
		m := mark()
		proc, err := remote.Start(ctx, p.host, remote.Command{Argv: []string{"sleep", m}, Guard: p.guard})
		if err != nil {
			t.Fatal(err)
		}
		runs(t, m, 1)
		cancel()
		if err := proc.Wait(); err != nil {
			t.Error(err)
		}
		runs(t, m, 0)
	})
}

// Whatever becomes of this process, its own end too.
func TestParentKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	everywhere(t, func(t *testing.T, p place) {
		for _, how := range []string{"", `trap "" TERM; `} {
			if how != "" && p.name == "here" {
				continue // the kernel sends SIGTERM and nothing more
			}
			m := mark()
			guard, url := "", ""
			if p.guard {
				guard = "guard"
			}
			if p.host.Target != "" {
				url = "ssh://" + p.host.Target + ":" + p.host.Port
			}
			words := []string{url, p.host.SSH, guard, "sh", "-c", how + "sleep " + m + "; exit 1"}
			if p.name == "here" {
				words = []string{url, "", guard, "sleep", m}
			}
			proc, err := remote.Start(t.Context(), remote.Host{}, remote.Command{Argv: []string{exe}, Env: []string{parentVar + "=" + strings.Join(words, "\n")}, Stream: true})
			if err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(proc.Stdout).ReadString('\n')
			if line != "started\n" {
				t.Fatalf("%q, %v: %s", line, err, proc.Words())
			}
			runs(t, m, 1)
			if err := proc.Signal(syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			go io.Copy(io.Discard, proc.Stdout)
			if err := proc.Wait(); err == nil || !strings.Contains(proc.Words(), "killed (signal 9): perhaps out of memory") {
				t.Errorf("%v: %s", err, proc.Words())
			}
			if !errors.Is(proc.Ending(), remote.ErrCrashed) {
				t.Errorf("ending: %v", proc.Ending())
			}
			runs(t, m, 0)
		}
	})
}

// A guard that gets a signal of its own ends its group, too.
func TestGuardTerminated(t *testing.T) {
	m := mark()
	p := place{"guarded", remote.Host{}, true}
	proc := p.start(t, remote.Command{Argv: []string{"sh", "-c", `trap "" TERM; sleep ` + m + `; exit 1`}, Grace: 300 * time.Millisecond})
	runs(t, m, 1)
	if err := proc.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	proc.Wait()
	runs(t, m, 0)
}

// A connection that is lost stops the process on the other side, and says that
// this was not confirmed.
func TestConnectionLost(t *testing.T) {
	p := places(t)[2]
	m := mark()
	proc := p.start(t, remote.Command{Argv: []string{"sh", "-c", `trap "" TERM; sleep ` + m + `; exit 1`}, Grace: 300 * time.Millisecond})
	runs(t, m, 1)
	if err := proc.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-proc.Done()
	if err := proc.Stop(); !errors.Is(err, remote.ErrLost) {
		t.Errorf("Stop: %v", err)
	}
	runs(t, m, 0)
}

// An ssh that does not get through is ended when it is abandoned.
func TestAbandonWhileConnecting(t *testing.T) {
	testenv.NeedTool(t, "ssh")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	h, err := remote.ParseHost("ssh://" + silent.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	h.Connect = limit
	proc, err := remote.Start(t.Context(), h, remote.Command{Argv: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := silent.Accept(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := proc.Abandon(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > limit/2 {
		t.Errorf("took %v", d)
	}
}

// This binary goes over ssh, before what it reads, and leaves no file.
func TestThisBinaryOverSSH(t *testing.T) {
	pushed := func() []string {
		names, err := filepath.Glob("/tmp/xferbench.*")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	before := pushed()
	everywhere(t, func(t *testing.T, p place) {
		var out bytes.Buffer
		proc := p.start(t, remote.Command{Argv: []string{"", echoArg}, Stdin: []byte("what it reads\n"), Stdout: &out})
		proc.Wait()
		if code, _ := proc.Ended(); code != 3 || out.String() != "what it reads\n" {
			t.Errorf("code %d, output %q: %s", code, out.String(), proc.Words())
		}
	})
	if left := slices.DeleteFunc(pushed(), func(f string) bool { return slices.Contains(before, f) }); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	_, err := remote.Start(t.Context(), remote.Host{}, remote.Command{Argv: []string{"/no/such/program"}})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "starting /no/such/program") {
		t.Errorf("%v", err)
	}
	_, err = remote.Start(t.Context(), remote.Host{Target: "there", SSH: "no-such-ssh -v"}, remote.Command{Argv: []string{"true"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-ssh") || !strings.Contains(err.Error(), "install an ssh client") {
		t.Errorf("%v", err)
	}
	p := places(t)[2]
	proc := p.start(t, remote.Command{Argv: []string{"no-such-program"}})
	proc.Wait()
	if code, _ := proc.Ended(); code != 127 || !strings.Contains(proc.Words(), "not found") {
		t.Errorf("code %d: %s", code, proc.Words())
	}
}

func TestTail(t *testing.T) {
	var w remote.Tail
	for i := range 10000 {
		fmt.Fprintf(&w, "line %d\n", i)
	}
	if s := w.String(); len(s) > 5<<10 || !strings.HasPrefix(s, "line 0\n") || !strings.HasSuffix(s, "line 9999\n") {
		t.Errorf("%d bytes: %.80s", len(s), s)
	}
	if s := w.String(); !strings.Contains(s, "line 100\n") || strings.Contains(s, "line 5000\n") {
		t.Error("not both ends")
	}
	var between remote.Tail // longer than the first part, shorter than both
	var want strings.Builder
	for i := range 300 {
		fmt.Fprintf(io.MultiWriter(&between, &want), "line %d\n", i)
	}
	if between.String() != want.String() {
		t.Errorf("%q, want %q", between.String(), want.String())
	}
	var short remote.Tail
	fmt.Fprint(&short, "a few words")
	if short.String() != "a few words" {
		t.Errorf("%q", short.String())
	}
	var crash remote.Tail
	fmt.Fprint(&crash, "SIGABRT: abort\n\ngoroutine 1 [running]:\nmain.main()\n")
	if crash.String() != "SIGABRT: abort\n" {
		t.Errorf("%q", crash.String())
	}
}

func TestParseHost(t *testing.T) {
	for s, want := range map[string]remote.Host{
		"":                      {},
		"local":                 {},
		"ssh://node2":           {Target: "node2"},
		"ssh://me@node2:2222/":  {Target: "me@node2", Port: "2222"},
		"ssh://[2001:db8::1]:2": {Target: "2001:db8::1", Port: "2"},
	} {
		if h, err := remote.ParseHost(s); err != nil || h != want {
			t.Errorf("%s: %+v, %v", s, h, err)
		}
	}
	for _, s := range []string{"node2", "http://node2", "ssh://", "ssh://me:secret@node2", "ssh://-oProxyCommand=x", "ssh://me@-x", "ssh://-x@node2", "ssh://node2/folder", "ssh://node2?x", "ssh://node2#x"} {
		if h, err := remote.ParseHost(s); err == nil {
			t.Errorf("%s: %+v", s, h)
		}
	}
}

// One set of options for all that goes over ssh.
func TestSSHArguments(t *testing.T) {
	const common = "-T\n-o\nConnectTimeout=%s\n-o\nServerAliveInterval=15\n-o\nServerAliveCountMax=4\n"
	for _, tt := range []struct {
		url     string
		ask     bool
		connect time.Duration
		want    string
	}{
		{url: "ssh://node2", want: fmt.Sprintf(common, "10") + "-o\nBatchMode=yes\n--\nnode2\n"},
		{url: "ssh://me@node2:2222", ask: true, connect: 1500 * time.Millisecond, want: fmt.Sprintf(common, "2") + "-p\n2222\n--\nme@node2\n"},
		{url: "ssh://[2001:db8::1]:2", want: fmt.Sprintf(common, "10") + "-o\nBatchMode=yes\n-p\n2\n--\n2001:db8::1\n"},
	} {
		h, err := remote.ParseHost(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		h.SSH, h.Ask, h.Connect = `printf '%s\n'`, tt.ask, tt.connect
		proc, err := remote.Start(t.Context(), h, remote.Command{Argv: []string{"true"}, Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(proc.Stdout)
		if rest, ok := strings.CutPrefix(string(b), tt.want); !ok || err != nil || !strings.HasPrefix(rest, "exec 'sh' '-c' '") || strings.Count(rest, "\n") != 1 {
			t.Errorf("%s: %v\n%s", tt.url, err, b)
		}
		if err := proc.Wait(); err != nil {
			t.Error(err)
		}
	}
}
