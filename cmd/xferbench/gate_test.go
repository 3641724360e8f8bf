package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
)

// The libraries that are loaded at run time must find these before libc's.
func TestBinaryExportsTheGate(t *testing.T) {
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"listen", "bind", "shmget"} {
		if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return s.Name == name && s.Section != elf.SHN_UNDEF }) {
			t.Errorf("nm -D shows no %s of the program", name)
		}
	}
}

// knockWait is how long a connection is waited for that the kernel should never let
// come about; one that may is there in microseconds.
const knockWait = 250 * time.Millisecond

// dial connects from an address in a network namespace and holds the connection
// until the test ends.
func dial(t *testing.T, ns *testenv.NetNS, from string, to netip.AddrPort) error {
	t.Helper()
	type result struct {
		fd  int
		err error
	}
	c := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := func() (int, error) {
			n, err := os.Open(filepath.Join("/run/netns", ns.Name))
			if err != nil {
				return -1, err
			}
			defer n.Close()
			if err := unix.Setns(int(n.Fd()), unix.CLONE_NEWNET); err != nil {
				return -1, err
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			wait := unix.NsecToTimeval(int64(knockWait))
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(from).As4()})
			}
			if err == nil {
				err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
			}
			return fd, err
		}()
		c <- result{fd, err}
	}()
	r := <-c
	if r.fd >= 0 {
		t.Cleanup(func() { unix.Close(r.fd) })
	}
	return r.err
}

// dataDoors are the sockets on which p's processes take data of TCP.
func dataDoors(t *testing.T, p *proc, except ...netip.AddrPort) []netip.AddrPort {
	t.Helper()
	var out []netip.AddrPort
	for _, pid := range p.processes() {
		for _, s := range socketsOf(t, pid) {
			if s.Net == "tcp" && s.State == host.Listening && !s.Local.Addr().IsLoopback() && !slices.Contains(except, s.Local) {
				out = append(out, s.Local)
			}
		}
	}
	return out
}

// twoHosts is a serve on b and a run from a to it, over the first link.
type twoHosts struct {
	a, b    *testenv.NetNS
	links   []testenv.Link
	serve   *proc
	control netip.AddrPort // serve's
	line    string
}

func newTwoHosts(t *testing.T) *twoHosts {
	t.Helper()
	h := &twoHosts{}
	h.a, h.b, h.links = testenv.Hosts(t, testenv.Link{}, testenv.Link{})
	h.serve = spawn(t, h.b.Command(context.Background(), bin, "serve", "--max-sessions", "100", "--listen", h.links[0].AddrB+":0"))
	h.line = h.serve.line()
	at, _, _ := strings.Cut(h.line, "#")
	h.control = netip.MustParseAddrPort(at)
	return h
}

func (h *twoHosts) run(t *testing.T, provider string, args ...string) *proc {
	t.Helper()
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	r := spawn(t, h.a.Command(context.Background(), bin, append([]string{"--provider", provider, "--shape", "merged", "--no-ceiling",
		"--timeout", "10s", "--record", rec, h.line}, args...)...))
	r.record = rec
	return r
}

func (p *proc) measures() bool {
	b, err := os.ReadFile(p.record)
	return err == nil && strings.Contains(string(b), `"phase":"measure"`)
}

// Nobody but the peer connects from the first moment on, and once all transports
// have made their first transfer nobody does at all; the run sees nothing of it.
func TestStrangersStayOutside(t *testing.T) {
	t.Parallel() // it waits more than it works
	h := newTwoHosts(t)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "net", "sockets", "ucx", "ucx:tcp"} {
		t.Run(provider, func(t *testing.T) {
			r := h.run(t, provider, "--size", "16MB", "--blocks", "1000000", "--budget", "4s")
			tries := 0
			knocks := func(ns *testenv.NetNS, from string, doors []netip.AddrPort) {
				t.Helper()
				for _, d := range doors {
					tries++
					if err := dial(t, ns, from, d); err == nil {
						t.Errorf("%s has connected to %s", from, d)
					} else if !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EINTR) {
						t.Errorf("from %s: %v", from, err) // refused: closed meanwhile
					}
				}
			}
			for !r.measures() && !r.ended() {
				knocks(h.a, h.links[1].AddrA, dataDoors(t, h.serve, h.control))
				knocks(h.b, h.links[1].AddrB, dataDoors(t, r))
				time.Sleep(time.Millisecond)
			}
			if tries == 0 {
				t.Error("no port was seen before the transfers")
			}
			theirs, mine := dataDoors(t, h.serve, h.control), dataDoors(t, r)
			if len(theirs) == 0 || len(mine) == 0 {
				t.Errorf("ports %v and %v, want some on both sides", theirs, mine)
			}
			knocks(h.a, h.links[0].AddrA, theirs)
			knocks(h.b, h.links[0].AddrB, mine)
			r.exits(0)
			for s := range r.closed(record.StatusOK, 0).Samples.All() {
				if s.Verified == nil || !*s.Verified {
					t.Fatalf("sample %+v", s)
				}
			}
		})
	}
	h.serve.Signal(syscall.SIGTERM)
	h.serve.exits(130)
}

// Who has connected from the peer's own address before the ports were closed is named,
// and ends the run.
func TestExtraConnectionEndsTheRun(t *testing.T) {
	h := newTwoHosts(t)
	for _, tt := range []struct{ provider, side string }{{"tcp", "target"}, {"ucx:tcp", "target"}, {"ucx:tcp", "initiator"}} {
		t.Run(tt.provider+" "+tt.side, func(t *testing.T) {
			for range 10 {
				r := h.run(t, tt.provider, "--size", "64MB", "--op", "read,write,send", "--blocks", "1000000", "--budget", "0")
				from, doors := h.links[0].AddrA, func() []netip.AddrPort { return dataDoors(t, h.serve, h.control) }
				ns := h.a
				if tt.side == "initiator" {
					from, ns, doors = h.links[0].AddrB, h.b, func() []netip.AddrPort { return dataDoors(t, r) }
				}
				in := false
				for !in && !r.measures() && !r.ended() {
					for _, d := range doors() {
						in = in || dial(t, ns, from, d) == nil
					}
				}
				if !in { // too late
					r.Signal(syscall.SIGINT)
					<-r.Done
					continue
				}
				r.exits(3)
				r.says("a stranger has connected", from+":")
				if got := r.closed(record.StatusFailed, 3); !strings.Contains(got.End.Error, from+":") {
					t.Errorf("the record ends with %q", got.End.Error)
				}
				return
			}
			t.Error("no connection came about before the ports were closed, in ten runs")
		})
	}
}

// UCX's System V segments, with its receive queues, are for this user only.
func TestSegmentsAreThisUsers(t *testing.T) {
	for _, provider := range []string{"ucx:shm", "ucx:sysv", "ucx"} {
		t.Run(provider, func(t *testing.T) {
			p := xferbench(t, append([]string{"-p", provider}, brief...)...)
			seen, apart := 0, false
			for !p.ended() {
				b, err := os.ReadFile("/proc/sysvipc/shm")
				testenv.Need(t, "sysvipc", err)
				pids := p.processes()
				for _, pid := range pids {
					if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/ipc", pid)); err == nil {
						mine, err := os.Readlink("/proc/self/ns/ipc")
						apart = apart || err == nil && ns != mine
					}
				}
				for line := range strings.Lines(string(b)) {
					f := strings.Fields(line)
					var mode, creator int
					if len(f) < 6 {
						continue
					}
					if _, err := fmt.Sscanf(f[2]+" "+f[4], "%o %d", &mode, &creator); err != nil || !slices.Contains(pids, creator) {
						continue
					}
					seen++
					if mode&0o77 != 0 {
						t.Errorf("a segment of process %d has mode %o", creator, mode)
					}
				}
			}
			p.exits(0)
			if seen == 0 && !apart {
				t.Error("no segment was seen")
			}
		})
	}
}

// Tuning opens and closes transports before the run's own are, and a transport may
// have many lanes.
func TestGateAndManyEndpoints(t *testing.T) {
	for _, args := range [][]string{{"-p", "ucx:tcp,tcp", "--tune", "--budget", "1s"}, {"-p", "tcp,ucx:tcp,socket,sockets", "--streams", "1,3", "--op", "read,write,send"}} {
		p := xferbench(t, append(args, brief...)...)
		p.exits(0)
	}
}
