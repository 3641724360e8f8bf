package fabric

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
)

const directBytes = 1 << 16

// direct opens two connected endpoints of this process and their memory.
func direct(t *testing.T, h Hints) (eps [2]*Endpoint, memory [2][]byte) {
	t.Helper()
	h.Source = source(h.Provider)
	found, err := need(t).Find(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(found.Free)
	var addresses [2]Address
	for i := range eps {
		memory[i] = make([]byte, directBytes)
		pinner := new(runtime.Pinner)
		t.Cleanup(pinner.Unpin)
		e, err := found.Open(found.Interfaces[0], EndpointConfig{Initiator: i == 0, Depth: 8})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := e.Read(loop.Piece{Len: 1}); !errors.Is(err, errNotConnected) {
			t.Errorf("before Connect: %v", err)
		}
		if err := e.Register(loop.Pinned(pinner, memory[i])); err != nil {
			t.Fatal(err)
		}
		if err := e.Read(loop.Piece{Len: 1}); !errors.Is(err, errNotConnected) {
			t.Errorf("with a region, before Connect: %v", err)
		}
		if addresses[i], err = e.Address(); err != nil {
			t.Fatal(err)
		}
		eps[i] = e
	}
	for i, e := range eps {
		if err := e.Connect(addresses[1-i]); err != nil {
			t.Fatal(err)
		}
	}
	return eps, memory
}

// until polls both endpoints until done, and counts.
func until(t *testing.T, eps [2]*Endpoint, done func(completed, received [2]int) bool) {
	t.Helper()
	var completed, received [2]int
	for end := time.Now().Add(10 * time.Second); !done(completed, received); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("after 10 s %v completed, %v received", completed, received)
		}
		for i, e := range eps {
			n, m, err := e.Poll()
			if err != nil {
				t.Fatal(err)
			}
			completed[i], received[i] = completed[i]+n, received[i]+m
		}
	}
}

// posts calls post, which a queue may refuse for a while.
func posts(t *testing.T, eps [2]*Endpoint, post func() error) (polled [2]int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		err := post()
		if err == nil {
			return polled
		}
		if !errors.Is(err, ErrAgain) || time.Now().After(end) {
			t.Fatal(err)
		}
		for i, e := range eps {
			n, _, err := e.Poll()
			if err != nil {
				t.Fatal(err)
			}
			polled[i] += n
		}
	}
}

var everyOp = []loop.Op{loop.Read, loop.Write, loop.Send}

// Each operation moves its bytes, from either side, and Poll counts it.
func TestDirect(t *testing.T) {
	for _, provider := range []string{"tcp;ofi_rxm", "shm"} {
		t.Run(provider, func(t *testing.T) {
			eps, memory := direct(t, Hints{Provider: provider, Ops: everyOp})
			for from := range eps {
				e, here, there := eps[from], memory[from], memory[1-from]
				copy(here, "written")
				copy(there[1000:], "to be read")
				before := posts(t, eps, func() error { return e.Write(loop.Piece{Remote: 500, Len: 7}) })
				more := posts(t, eps, func() error { return e.Read(loop.Piece{Local: 2000, Remote: 1000, Len: 10}) })
				n := before[from] + more[from]
				until(t, eps, func(completed, _ [2]int) bool { return n+completed[from] == 2 })
				if string(there[500:507]) != "written" || string(here[2000:2010]) != "to be read" {
					t.Errorf("side %d: WRITE left %q, READ %q", from, there[500:507], here[2000:2010])
				}
				// Messages find their place by their tag, short ones and long ones.
				copy(here[3000:], "short")
				here[4000], here[4000+20000-1] = 'a', 'z'
				if err := errors.Join(eps[1-from].Recv(30000, 20000, 7), eps[1-from].Recv(60000, 5, MaxTag)); err != nil {
					t.Fatal(err)
				}
				before = posts(t, eps, func() error { return e.Send(3000, 5, MaxTag) })
				more = posts(t, eps, func() error { return e.Send(4000, 20000, 7) })
				n = before[from] + more[from]
				came := 0
				until(t, eps, func(completed, received [2]int) bool {
					came = received[1-from]
					return n+completed[from] == 2 && came == 2
				})
				if string(there[60000:60005]) != "short" || there[30000] != 'a' || there[49999] != 'z' {
					t.Errorf("side %d: SEND left %q, %q, %q", from, there[60000:60005], there[30000], there[49999])
				}
				clear(here)
				clear(there)
			}
		})
	}
}

// A full queue says so, and takes more once it is polled.
func TestDirectQueueIsFull(t *testing.T) {
	eps, _ := direct(t, Hints{Provider: "tcp;ofi_rxm"})
	posts(t, eps, func() error { return eps[0].Write(loop.Piece{Len: 8}) })
	until(t, eps, func(completed, _ [2]int) bool { return completed[0] == 1 })
	posted := 0
	for ; posted < 100; posted++ {
		if err := eps[0].Write(loop.Piece{Len: 8}); err != nil {
			if !errors.Is(err, ErrAgain) {
				t.Fatal(err)
			}
			break
		}
	}
	if posted == 0 || posted > 8 {
		t.Errorf("%d operations were posted into a queue of 8", posted)
	}
	until(t, eps, func(completed, _ [2]int) bool { return completed[0] == posted })
	posts(t, eps, func() error { return eps[0].Write(loop.Piece{Len: 8}) })
	until(t, eps, func(completed, _ [2]int) bool { return completed[0] == 1 })
}

// What cannot be is refused before anything is posted.
func TestDirectRefuses(t *testing.T) {
	eps, _ := direct(t, Hints{Provider: "tcp;ofi_rxm", Ops: []loop.Op{loop.Read, loop.Send}})
	e := eps[0]
	const far = ^uint64(0)
	for name, c := range map[string]struct{ got, want error }{
		"local":       {e.Read(loop.Piece{Local: directBytes - 3, Len: 4}), loop.ErrOutside},
		"remote":      {e.Read(loop.Piece{Remote: directBytes - 3, Len: 4}), loop.ErrOutside},
		"wraps":       {e.Read(loop.Piece{Local: far - 3, Len: 8}), loop.ErrOutside},
		"send":        {e.Send(directBytes, 1, 0), loop.ErrOutside},
		"receive":     {e.Recv(1, directBytes, 0), loop.ErrOutside},
		"not opened":  {e.Write(loop.Piece{Len: 1}), ErrUnsupported},
		"longest tag": {e.Recv(0, 1, MaxTag+1), nil},
	} {
		if c.got == nil || c.want != nil && !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	counted, _ := local(t, "shm", 4)
	if err := counted.Write(loop.Piece{Len: 1}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("WRITE of an endpoint that counts: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := e.Poll()
	for _, err := range []error{err, e.Read(loop.Piece{Len: 1}), e.Send(0, 1, 0), e.Recv(0, 1, 0)} {
		if !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// An operation that fails has the library's code: here its peer is gone.
func TestDirectFails(t *testing.T) {
	eps, _ := direct(t, Hints{Provider: "tcp;ofi_rxm", Ops: []loop.Op{loop.Read}})
	posts(t, eps, func() error { return eps[0].Read(loop.Piece{Len: 8}) })
	until(t, eps, func(completed, _ [2]int) bool { return completed[0] == 1 })
	if err := eps[1].Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		err := eps[0].Read(loop.Piece{Len: 8})
		if err == nil || errors.Is(err, ErrAgain) {
			_, _, err = eps[0].Poll()
		}
		var code Errno
		if err != nil {
			if !errors.As(err, &code) || !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v has no code", err)
			}
			t.Log(err)
			return
		}
		if time.Now().After(end) {
			t.Fatal("no operation to a peer that is gone failed")
		}
	}
}

// The measuring loop may run the endpoint before and after.
func TestDirectBesideGroups(t *testing.T) {
	eps, memory := direct(t, Hints{Provider: "tcp;ofi_rxm", Ops: everyOp})
	message := func() {
		t.Helper()
		memory[0][0]++
		if err := eps[1].Recv(100, 1, 3); err != nil {
			t.Fatal(err)
		}
		posts(t, eps, func() error { return eps[0].Send(0, 1, 3) })
		until(t, eps, func(_, received [2]int) bool { return received[1] == 1 })
		if memory[1][100] != memory[0][0] {
			t.Errorf("the message left %d, want %d", memory[1][100], memory[0][0])
		}
	}
	plan, err := loop.NewPlan([]loop.Piece{{Local: 10, Remote: 20, Len: 30}, {Local: 50, Remote: 60, Len: 5}})
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Free()
	plans := []*loop.Plan{plan}
	for range 2 {
		message()
		var groups [2]*loop.Group
		for i, e := range eps {
			if groups[i], err = loop.NewGroup([]loop.Lane{e.Lane()}, loop.Config{Poll: loop.Yield}); err != nil {
				t.Fatal(err)
			}
			if err := groups[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		if err := groups[1].Arm(t.Context(), loop.Send, plans, 3); err != nil {
			t.Fatal(err)
		}
		if ss, err := groups[0].Transfer(t.Context(), loop.Send, plans, 3, 4); err != nil || len(ss) != 3 {
			t.Fatalf("%d samples, %v", len(ss), err)
		}
		if n, err := groups[1].Settle(t.Context()); err != nil || n != 3 {
			t.Fatalf("%d arrived, %v", n, err)
		}
		for _, g := range groups {
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	message()
}
