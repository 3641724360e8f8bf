package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A packet costs the relay about the same whatever its length, so packets are
// large where the rate is; where it is low, their own time must stay short.
const (
	tunMTU   = 65000
	pacedMTU = 9000
)

// relay makes the link's two devices as tuns and carries packets between them,
// each Delay after it was sent.
func (l Link) relay(t testing.TB) {
	t.Helper()
	a, err := openTUN(l.A.Name, l.DevA)
	Need(t, "tun", err)
	b, err := openTUN(l.B.Name, l.DevB)
	if err != nil {
		a.Close()
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); carry(b, a, l.Delay, l.Pace) }()
	go func() { defer wg.Done(); carry(a, b, l.Delay, l.Pace) }()
	t.Cleanup(func() {
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	mtu := tunMTU
	if l.Pace > 0 {
		mtu = pacedMTU
	}
	for _, end := range []struct{ ns, dev string }{{l.A.Name, l.DevA}, {l.B.Name, l.DevB}} {
		must(t, "ip", "-n", end.ns, "link", "set", end.dev, "mtu", fmt.Sprint(mtu), "txqueuelen", "10000")
	}
}

// carry relays packets until a device is closed: each leaves when those before
// it have, at pace bit/s, and arrives after delay.
func carry(to, from *os.File, delay time.Duration, pace int64) {
	type packet struct {
		due  time.Time
		data []byte
	}
	queue := make(chan packet, 1<<14)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range queue {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil && errors.Is(err, os.ErrClosed) {
				return
			}
		}
	}()
	buf := make([]byte, 1<<16)
	var free time.Time // when the wire has sent what it was given
	for {
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		if now := time.Now(); free.Before(now) {
			free = now
		}
		if pace > 0 {
			free = free.Add(time.Duration(int64(n) * 8 * int64(time.Second) / pace))
		}
		select {
		case queue <- packet{free.Add(delay), append([]byte(nil), buf[:n]...)}:
		default: // a full wire drops, as a real one does
		}
	}
	close(queue)
	<-done
}

// openTUN makes a tun device in a namespace. A thread enters the namespace for
// it and is not used again.
func openTUN(ns, name string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f, err := func() (*os.File, error) {
			n, err := os.Open(filepath.Join("/run/netns", ns))
			if err != nil {
				return nil, err
			}
			defer n.Close()
			if err := unix.Setns(int(n.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, fmt.Errorf("setns %s: %w", ns, err)
			}
			fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err != nil {
				return nil, fmt.Errorf("/dev/net/tun: %w", err)
			}
			req, err := unix.NewIfreq(name)
			if err == nil {
				req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
				err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("tun %s: %w", name, err), unix.Close(fd))
			}
			return os.NewFile(uintptr(fd), name), nil
		}()
		c <- result{f, err}
	}()
	r := <-c
	return r.f, r.err
}
