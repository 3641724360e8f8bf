package testenv

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Threads enter network namespaces and end with their goroutine, which the first
// thread of a process cannot: it would stay there, and /proc/self is its view. The
// main goroutine keeps it.
func init() { runtime.LockOSThread() }

// NetNS is a network namespace that a test made: a host of its own on the
// network, with the file system of this one.
type NetNS struct{ Name string }

// Command is a command that runs in the namespace.
func (n *NetNS) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Link is a wire between two namespaces. Rate ("2gbit", as tc-tbf(8) takes it)
// limits both directions, "" not at all, and lets bursts of 256 kB through. Pace
// is an exact rate in bit/s without bursts, and Delay is added to each
// direction: such a link is a pair of tun devices with a relay in the test's
// process, since not every kernel has tc-netem(8).
type Link struct {
	A, B         *NetNS
	AddrA, AddrB string // IPv4 addresses of the two ends
	DevA, DevB   string
	Rate         string
	Pace         int64
	Delay        time.Duration
}

var netCount atomic.Int32

// Hosts makes two namespaces joined by one link for each element of links, of
// which only Rate and Delay are read, and removes them when the test ends. It
// needs "netns": root and the right to make namespaces.
func Hosts(t testing.TB, links ...Link) (a, b *NetNS, made []Link) {
	t.Helper()
	NeedRoot(t)
	NeedTool(t, "ip", "netns")
	id := fmt.Sprintf("%x-%d", time.Now().UnixNano()&0xffffff, netCount.Add(1))
	a, b = &NetNS{"xb-a-" + id}, &NetNS{"xb-b-" + id}
	for _, n := range []*NetNS{a, b} {
		Need(t, "netns", run("ip", "netns", "add", n.Name))
		t.Cleanup(func() {
			if err := run("ip", "netns", "delete", n.Name); err != nil {
				t.Errorf("removing %s: %v", n.Name, err)
			}
		})
		must(t, "ip", "-n", n.Name, "link", "set", "lo", "up")
	}
	for i, l := range links {
		l.A, l.B, l.DevA, l.DevB = a, b, fmt.Sprintf("xba%d", i), fmt.Sprintf("xbb%d", i)
		l.AddrA, l.AddrB = fmt.Sprintf("10.99.%d.1", i), fmt.Sprintf("10.99.%d.2", i)
		if l.relayed() {
			l.relay(t)
		} else {
			must(t, "ip", "-n", a.Name, "link", "add", l.DevA, "type", "veth", "peer", "name", l.DevB, "netns", b.Name)
		}
		for _, end := range []struct{ ns, dev, addr string }{{a.Name, l.DevA, l.AddrA}, {b.Name, l.DevB, l.AddrB}} {
			must(t, "ip", "-n", end.ns, "addr", "add", end.addr+"/24", "dev", end.dev)
			must(t, "ip", "-n", end.ns, "link", "set", end.dev, "up")
			l.shape(t, end.ns, end.dev)
		}
		l.await(t)
		made = append(made, l)
	}
	return a, b, made
}

func (l Link) relayed() bool { return l.Delay > 0 || l.Pace > 0 }

// await waits until the kernel calls both ends running: it does so some time
// after they are up, and UCX passes over a device that is not.
func (l Link) await(t testing.TB) {
	t.Helper()
	if l.relayed() {
		return // a tun has no such state
	}
	for _, end := range []struct{ ns, dev string }{{l.A.Name, l.DevA}, {l.B.Name, l.DevB}} {
		var out []byte
		for late := time.Now().Add(10 * time.Second); !strings.Contains(string(out), "state UP"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(late) {
				t.Fatalf("%s is not up within 10 s: %s", end.dev, out)
			}
			var err error
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			out, err = exec.CommandContext(ctx, "ip", "-n", end.ns, "-o", "link", "show", end.dev).CombinedOutput()
			cancel()
			if err != nil {
				t.Fatalf("ip link show %s: %v: %s", end.dev, err, out)
			}
		}
	}
}

// shape limits what leaves dev.
func (l Link) shape(t testing.TB, ns, dev string) {
	t.Helper()
	if l.Rate != "" {
		must(t, "ip", "netns", "exec", ns, "tc", "qdisc", "add", "dev", dev,
			"root", "tbf", "rate", l.Rate, "burst", "256kb", "latency", "50ms")
	}
}

// Cut takes the link down at A's end, as a pulled cable does.
func (l Link) Cut(t testing.TB) {
	t.Helper()
	must(t, "ip", "-n", l.A.Name, "link", "set", l.DevA, "down")
}

// Mend takes up again what Cut took down.
func (l Link) Mend(t testing.TB) {
	t.Helper()
	must(t, "ip", "-n", l.A.Name, "link", "set", l.DevA, "up")
}

func run(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func must(t testing.TB, name string, args ...string) {
	t.Helper()
	if err := run(name, args...); err != nil {
		t.Fatal(err)
	}
}
