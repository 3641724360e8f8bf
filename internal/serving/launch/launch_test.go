package launch

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/testenv"
)

// fakeVar makes this test binary an engine: ROLE:PORT[:HOW].
const fakeVar = "XFERBENCH_TEST_ENGINE"

func TestMain(m *testing.M) {
	flag.Parse()
	if how := os.Getenv(fakeVar); how != "" {
		if err := fakeEngine(how); err != nil {
			fmt.Fprintln(os.Stderr, "fake engine:", err)
			os.Exit(7)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeEngine is a simulated engine in a process of its own.
func fakeEngine(how string) error {
	f := strings.Split(how, ":")
	port, err := strconv.Atoi(f[1])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	how = ""
	if len(f) > 2 {
		how = f[2]
	}
	switch how {
	case "dies":
		return errors.New("out of memory, says the engine")
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "silent":
		<-ctx.Done()
		return nil
	}
	s, err := sim.Listen(sim.Config{Role: sim.Role(f[0]), Geometry: sim.Geometry{BlockTokens: 16, Regions: 4, BytesPerToken: 256}}, "127.0.0.1", port)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "engine %s args %q\n", f[0], flag.Args())
	if how == "noisy" {
		fmt.Fprintln(os.Stderr, "WARNING Skipping backend registration LIBFABRIC due to the missing plugin.")
	}
	if how == "stubborn" {
		select {}
	}
	if err := s.Wait(ctx); err != nil {
		return err
	}
	return s.Close()
}

// freePort is a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// fake is an engine of a launch file.
func fake(t *testing.T, role, how string, argv ...string) (string, Engine) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	if argv == nil {
		argv = []string{exe}
	}
	return role, Engine{Role: role, URL: fmt.Sprintf("http://127.0.0.1:%d", port), Argv: argv,
		Env: map[string]string{fakeVar: fmt.Sprintf("%s:%d:%s", role, port, how)}}
}

// file completes a launch file as Parse does.
func file(t *testing.T, engines map[string]Engine) *File {
	t.Helper()
	f := &File{Engines: engines, ReadyTimeoutS: 60, StopTimeoutS: 20, Logs: t.TempDir(), BytesPerToken: 256}
	for i, name := range f.names() {
		e := f.Engines[name]
		e.name = name
		if err := f.complete(&e, i); err != nil {
			t.Fatal(err)
		}
		f.Engines[name] = e
	}
	return f
}

// events collects what a cluster tells.
type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) add(level, message string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, level+": "+message)
	return nil
}

func (e *events) has(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(strings.Join(e.list, "\n"), text)
}

// running reports whether a process of this host has text in its command line.
func running(t *testing.T, text string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		// A process may be gone by now.
		if data, err := os.ReadFile(f); err == nil && strings.Contains(strings.ReplaceAll(string(data), "\x00", " "), text) {
			return true
		}
	}
	return false
}

func TestEnginesStartAndStopWithAllTheirChildren(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("sleep 9%d", time.Now().UnixNano()%1e9)
	pn, p := fake(t, RolePrefill, "noisy", "sh", "-c", mark+` & exec "$0" "$@"`, exe, "an arg with 'quotes' and $HOME")
	dn, d := fake(t, RoleDecode, "")
	p.LogReady = []string{"engine prefill args"}
	p.LogFirstTransfer = []string{"KV Transfer metrics"}
	ev := &events{}
	c, err := Start(context.Background(), file(t, map[string]Engine{pn: p, dn: d}), ev.add)
	if err != nil {
		t.Fatal(err)
	}
	if !running(t, mark) {
		t.Error("the engine's child does not run")
	}
	arms := c.Arms()
	if len(arms) != 1 || arms[0].Prefill[0] != p.URL || arms[0].Decode[0] != d.URL || arms[0].KV.BytesPerToken != 256 {
		t.Errorf("arms %+v", arms)
	}
	if err := c.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if running(t, mark) {
		t.Error("the engine's child was left behind")
	}
	if err := c.Stop(context.Background()); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
	for _, want := range []string{"ready after", "Skipping backend registration", `its log lacks "KV Transfer metrics"`} {
		if !ev.has(want) {
			t.Errorf("no event %q among %q", want, ev.list)
		}
	}
	log, err := os.ReadFile(filepath.Join(c.f.Logs, "prefill.log"))
	if err != nil || !strings.Contains(string(log), `["an arg with 'quotes' and $HOME"]`) {
		t.Errorf("log %q, %v", log, err)
	}
}

func TestAnEngineThatDiesIsAnErrorWithItsLog(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	pn, p := fake(t, RolePrefill, "")
	dn, d := fake(t, RoleDecode, "dies")
	_, err := Start(context.Background(), file(t, map[string]Engine{pn: p, dn: d}), (&events{}).add)
	if err == nil || !strings.Contains(err.Error(), "ended with status 7") || !strings.Contains(err.Error(), "out of memory, says the engine") {
		t.Errorf("error %v", err)
	}
	if conn, err := net.DialTimeout("tcp", strings.TrimPrefix(p.URL, "http://"), time.Second); err == nil {
		_ = conn.Close()
		t.Error("the other engine was left running")
	}
}

func TestAnEngineThatIsNeverReadyEndsAtTheDeadline(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	un, u := fake(t, RoleUnified, "silent")
	f := file(t, map[string]Engine{un: u})
	e := f.Engines[un]
	e.ReadyTimeoutS = 1
	f.Engines[un] = e
	_, err := Start(context.Background(), f, (&events{}).add)
	if err == nil || !strings.Contains(err.Error(), "not ready within 1 s") {
		t.Errorf("error %v", err)
	}
}

func TestInterruptedStartStopsWhatRuns(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	un, u := fake(t, RoleUnified, "silent")
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, file(t, map[string]Engine{un: u}), (&events{}).add); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if running(t, u.Env[fakeVar]) {
		t.Error("the engine was left running")
	}
}

func TestAStubbornEngineIsKilledAndNamed(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	un, u := fake(t, RoleUnified, "stubborn")
	f := file(t, map[string]Engine{un: u})
	f.StopTimeoutS = 1
	c, err := Start(context.Background(), f, (&events{}).add)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(context.Background()); !errors.Is(err, remote.ErrKilled) {
		t.Errorf("error %v", err)
	}
	// A killed process takes its leave a moment later.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(u.URL, "http://"), time.Second)
		if err != nil {
			break
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if time.Now().After(end) {
			t.Fatal("the engine was left running")
		}
	}
}

func TestATakenPortIsRefused(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	un, u := fake(t, RoleUnified, "")
	u.URL = "http://" + l.Addr().String()
	if _, err := Start(context.Background(), file(t, map[string]Engine{un: u}), (&events{}).add); err == nil || !strings.Contains(err.Error(), "listens at") {
		t.Errorf("error %v", err)
	}
}

// Over ssh an engine's arguments arrive whole, its output comes back, and all
// that it started ends with it.
func TestOverSSH(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	server := testenv.SSHD(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("sleep 9%d", time.Now().UnixNano()%1e9)
	un, u := fake(t, RoleUnified, "", "sh", "-c", mark+` & exec "$0" "$@"`, exe, `{"a": "it's"}`, "$(false) `x`", "two\nlines")
	u.Host = server.URL()
	ev := &events{}
	f := file(t, map[string]Engine{un: u})
	f.SSHCommand = server.Command()
	c, err := Start(context.Background(), f, ev.add)
	if err != nil {
		t.Fatal(err)
	}
	if !running(t, mark) {
		t.Error("the engine's child does not run")
	}
	want := `["{\"a\": \"it's\"}" "$(false) ` + "`x`" + `" "two\nlines"]`
	// Its output is on the way while it answers already.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		log, err := os.ReadFile(filepath.Join(c.f.Logs, "unified.log"))
		if err == nil && strings.Contains(string(log), want) {
			break
		}
		if time.Now().After(end) {
			t.Errorf("log %q, %v; want %s", log, err, want)
			break
		}
	}
	if !ev.has("started on " + server.URL()) {
		t.Errorf("events %q", ev.list)
	}
	if err := c.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if conn, err := net.DialTimeout("tcp", strings.TrimPrefix(u.URL, "http://"), time.Second); err == nil {
		_ = conn.Close()
		t.Error("the engine was left running")
	}
	if running(t, mark) {
		t.Error("the engine's child was left behind")
	}
}

func TestSSHThatFailsIsAnErrorWithItsWords(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	un, u := fake(t, RoleUnified, "")
	u.Host = "ssh://there"
	f := file(t, map[string]Engine{un: u})
	f.SSHCommand = "sh -c 'echo Permission denied >&2; exit 255' sh"
	_, err := Start(context.Background(), f, (&events{}).add)
	if err == nil || !strings.Contains(err.Error(), "ended with status 255") || !strings.Contains(err.Error(), "Permission denied") ||
		!errors.Is(err, remote.ErrLost) {
		t.Errorf("error %v", err)
	}
}

// nvidia-smi of this test shows what a file says.
func fakeSMI(t *testing.T) (set func(string)) {
	t.Helper()
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte("#!/bin/sh\ncat '"+state+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	set = func(s string) {
		if err := os.WriteFile(state, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return set
}

func TestGPUMemoryComesBack(t *testing.T) {
	set := fakeSMI(t)
	set("0, 500\n1, 3\n")
	c := &Cluster{f: &File{Engines: map[string]Engine{"u": {}}}, gpus: map[string]map[string]int64{}}
	c.gpuMemory(context.Background())
	if err := c.gpuReturned(context.Background()); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	set("0, 500\n1, 70000\n")
	// Asked once and not for 30 s.
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := c.gpuReturned(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("70,000 MiB more: %v", err)
	}
	now, err := c.askGPUs(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := stillUsed(c.gpus[""], now); err == nil || err.Error() != "GPU 1 has 70000 MiB in use, and 3 before" {
		t.Errorf("error %v", err)
	}
	if _, err := parseGPUs("No devices were found"); err == nil {
		t.Error("a text that is no list of GPUs was read")
	}
}

func TestReleaseOfTheFileIsCompared(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	un, u := fake(t, RoleUnified, "")
	f := file(t, map[string]Engine{un: u})
	f.VLLM = "0.15.1" // the simulation says 0.32.0
	ev := &events{}
	c, err := Start(context.Background(), f, ev.add)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if !ev.has(record.Warning + ": engine unified runs vLLM 0.32.0 and the file says 0.15.1") {
		t.Errorf("events %q", ev.list)
	}
}
