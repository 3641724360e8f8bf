package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
)

// localProviders are those that every host with libfabric and UCX opens,
// ipProviders those of them that reach another host.
var (
	localProviders = append([]string{"shm", "ucx:shm"}, ipProviders...)
	ipProviders    = []string{"tcp", "tcp;ofi_rxm", "net", "sockets", "fabric:udp;ofi_rxd", "ucx", "ucx:tcp", "socket"}
)

// processes are p's and all that it has started.
func (p *proc) processes() []int {
	p.t.Helper()
	out := []int{p.Cmd.Process.Pid}
	for i := 0; i < len(out); i++ {
		out = append(out, children(p.t, out[i])...)
	}
	return out
}

// socketsOf are the sockets of another process; none once it is gone.
func socketsOf(t *testing.T, pid int) []host.Socket {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("/proc/%d", pid), filepath.Join(root, "proc/self")); err != nil {
		t.Fatal(err)
	}
	ss, err := host.Root(root).OwnSockets()
	if err != nil && alive(pid) {
		t.Fatal(err)
	}
	return ss
}

// listening collects, until p has ended, what its processes listen on, by process.
func (p *proc) listening(until func() bool) map[int]map[string]netip.AddrPort {
	p.t.Helper()
	seen := map[int]map[string]netip.AddrPort{}
	for !until() {
		for _, pid := range p.processes() {
			for _, s := range socketsOf(p.t, pid) {
				if s.State != host.Listening {
					continue
				}
				if seen[pid] == nil {
					seen[pid] = map[string]netip.AddrPort{}
				}
				seen[pid][s.String()] = s.Local
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	return seen
}

func (p *proc) ended() bool {
	select {
	case <-p.Done:
		return true
	default:
		return false
	}
}

// Without a namespace too a local run listens on loopback only, from its beginning to its end, on a host
// that has other addresses.
func TestLocalRunListensOnLoopback(t *testing.T) {
	a, _, _ := testenv.Hosts(t, testenv.Link{})
	for _, provider := range localProviders {
		t.Run(provider, func(t *testing.T) {
			p := spawn(t, a.Command(t.Context(), bin, slices.Concat([]string{"-p", provider, "--no-namespace"}, brief,
				[]string{"--blocks", "100000", "--budget", "400ms"})...))
			seen := p.listening(p.ended)
			p.exits(0)
			if len(seen) == 0 {
				t.Error("nothing was seen to listen, not even a control channel")
			}
			for pid, ss := range seen {
				for s, at := range ss {
					if !at.Addr().IsLoopback() {
						t.Errorf("process %d listens on %s", pid, s)
					}
				}
			}
		})
	}
}

// Between two hosts the data plane listens on the address that the peer uses and
// nowhere else.
func TestListensOnThePeersWayOnly(t *testing.T) {
	a, b, links := testenv.Hosts(t, testenv.Link{}, testenv.Link{})
	s := spawn(t, b.Command(t.Context(), bin, "serve", "--max-sessions", "100", "--listen", links[0].AddrB+":0"))
	line := s.line()
	for _, provider := range ipProviders {
		t.Run(provider, func(t *testing.T) {
			r := spawn(t, a.Command(t.Context(), bin, append([]string{"-p", provider, line}, brief...)...))
			theirs := make(chan map[int]map[string]netip.AddrPort, 1)
			go func() { theirs <- s.listening(r.ended) }()
			mine := r.listening(r.ended)
			r.exits(0)
			data := 0
			for pid, ss := range mine {
				for s, at := range ss {
					data++
					if at.Addr().String() != links[0].AddrA {
						t.Errorf("the initiator's process %d listens on %s", pid, s)
					}
				}
			}
			for pid, ss := range <-theirs {
				control := 0
				for s, at := range ss {
					switch {
					case at.Addr().IsLoopback():
						control++
					case at.Addr().String() != links[0].AddrB:
						t.Errorf("the target's process %d listens on %s", pid, s)
					default:
						data++
					}
				}
				if control > 1 {
					t.Errorf("the target's process %d listens on loopback %d times, one control channel is due: %v", pid, control, ss)
				}
			}
			if data < 2 && provider != "socket" { // whose listener may be gone before it is seen
				t.Errorf("%d listeners seen, want serve's and one of the data plane at least", data)
			}
		})
	}
	s.Signal(syscall.SIGTERM)
	s.exits(130)
}

// UCX takes an interface's first address, whatever --bind says: that is said, not
// refused. What others reach is, unless the user has chosen the devices.
func TestListensElsewhereIsSaid(t *testing.T) {
	a, b, links := testenv.Hosts(t, testenv.Link{}, testenv.Link{})
	const second = "10.99.0.101"
	if out, err := a.Command(t.Context(), "ip", "addr", "add", second+"/24", "dev", links[0].DevA).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	serve := func(env ...string) string {
		cmd := b.Command(t.Context(), bin, "serve", "--max-sessions", "10", "--listen", links[0].AddrB+":0")
		cmd.Args = slices.Insert(cmd.Args, 4, append([]string{"env"}, env...)...)
		return spawn(t, cmd).line()
	}
	line := serve()
	run := func(want, env string, args ...string) {
		t.Helper()
		rec := filepath.Join(t.TempDir(), "r.jsonl")
		cmd := a.Command(context.Background(), bin, append(args, "--size", "1MB", "--shape", "merged", "--no-ceiling", "--blocks", "2", "--timeout", "5s", "--record", rec)...)
		if env != "" {
			cmd.Args = slices.Insert(cmd.Args, 4, "env", env)
		}
		r := spawn(t, cmd)
		r.record = rec
		r.exits(0)
		said := false
		for _, e := range r.closed(record.StatusOK, 0).Events {
			said = said || e.Level == record.Warning && strings.Contains(e.Message, want)
		}
		if !said {
			t.Errorf("%v %s: no event says %q", args, env, want)
		}
	}
	run("the first address of the interface of "+second, "", "-p", "ucx:tcp", "--bind", second, line)
	run("as UCX_NET_DEVICES says", "UCX_NET_DEVICES=all", "-p", "ucx", line)
	other := serve("UCX_NET_DEVICES=" + links[1].DevB)
	run("as UCX_NET_DEVICES says", "UCX_NET_DEVICES="+links[1].DevA, "-p", "ucx:tcp", other) // all over the second link
	run("as UCX_NET_DEVICES says", "", "-p", "ucx", "--ucx-config", "NET_DEVICES="+links[0].DevA+",lo,"+links[1].DevA)
}
