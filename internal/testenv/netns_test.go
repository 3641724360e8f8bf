package testenv

import (
	"context"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The helper of the test below: it is run in a namespace and measures a round
// trip over TCP.
func TestMain(m *testing.M) {
	if addr := os.Getenv("XB_ECHO_SERVE"); addr != "" {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("ready\n")
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); err != nil {
				os.Exit(0)
			}
			c.Write(b)
		}
	}
	if addr := os.Getenv("XB_ECHO_DIAL"); addr != "" {
		c, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			os.Exit(1)
		}
		b := make([]byte, 1)
		best := time.Hour
		for range 5 {
			t := time.Now()
			c.Write(b)
			if _, err := c.Read(b); err != nil {
				os.Exit(1)
			}
			best = min(best, time.Since(t))
		}
		os.Stdout.WriteString(best.String())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// roundTrip is the shortest of some round trips over a link.
func roundTrip(t *testing.T, l Link) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := l.B.Command(ctx, exe)
	s.Env = append(os.Environ(), "XB_ECHO_SERVE="+l.AddrB+":7777")
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Wait()
	defer s.Process.Kill()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	d := l.A.Command(ctx, exe)
	d.Env = append(os.Environ(), "XB_ECHO_DIAL="+l.AddrB+":7777")
	text, err := d.Output()
	if err != nil {
		t.Fatal(err)
	}
	rtt, err := time.ParseDuration(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return rtt
}

func TestHostsAreSeparateAndShaped(t *testing.T) {
	a, b, links := Hosts(t, Link{Rate: "1gbit"}, Link{Delay: 20 * time.Millisecond})
	ctx := context.Background()
	// The delay is there twice in a round trip, and not on the other link.
	if rtt := roundTrip(t, links[1]); rtt < 40*time.Millisecond {
		t.Errorf("round trip of %v over a link with 20 ms each way", rtt)
	}
	if rtt := roundTrip(t, links[0]); rtt > 30*time.Millisecond {
		t.Errorf("round trip of %v over a link without delay", rtt)
	}
	out, err := b.Command(ctx, "tc", "qdisc", "show").CombinedOutput()
	if err != nil || strings.Count(string(out), "tbf") != 1 {
		t.Errorf("qdiscs of b: %v\n%s", err, out)
	}
	links[0].Cut(t)
	out, err = a.Command(ctx, "ip", "link", "show", links[0].DevA).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "state DOWN") {
		t.Errorf("after Cut: %v\n%s", err, out)
	}
	links[0].Mend(t)
}

// No goroutine of a test gets the process's first thread, which would stay in the
// namespace that it enters.
func TestFirstThread(t *testing.T) {
	const n = 64
	var all sync.WaitGroup
	hold := make(chan struct{})
	ids := make(chan int, n)
	for range n {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ids <- unix.Gettid()
			<-hold
		})
	}
	for range n {
		if id := <-ids; id == os.Getpid() {
			t.Error("a goroutine has the first thread")
		}
	}
	close(hold)
	all.Wait()
}
