package ucx

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
)

const directBytes = 1 << 16

// direct opens two connected workers of this process and their memory.
func direct(t *testing.T, tls string) (ws [2]*Worker, memory [2][]byte) {
	t.Helper()
	cfg := transports(tls)
	cfg.Shared = true
	if tls == "tcp" {
		cfg.Settings = append(cfg.Settings, Setting{Key: "NET_DEVICES", Value: "lo"})
	}
	c, err := load(t).Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pinner := new(runtime.Pinner)
	t.Cleanup(pinner.Unpin)
	var mems [2]*Memory
	var addresses [2]Address
	for i := range ws {
		memory[i] = make([]byte, directBytes)
		if mems[i], err = c.Register(loop.Pinned(pinner, memory[i])); err != nil {
			t.Fatal(err)
		}
		if ws[i], err = c.NewWorker(mems[i]); err != nil {
			t.Fatal(err)
		}
		if err := ws[i].Get(loop.Piece{Len: 1}); !errors.Is(err, errNotConnected) {
			t.Errorf("before Connect: %v", err)
		}
		if addresses[i], err = ws[i].Address(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(ws[0].Close(), ws[1].Close(), mems[0].Close(), mems[1].Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	for i, w := range ws {
		if err := w.Connect(addresses[1-i]); err != nil {
			t.Fatal(err)
		}
	}
	return ws, memory
}

// until progresses both workers until done, and counts.
func until(t *testing.T, ws [2]*Worker, done func(completed, received [2]int) bool) {
	t.Helper()
	var completed, received [2]int
	for end := time.Now().Add(10 * time.Second); !done(completed, received); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("after 10 s %v completed, %v received", completed, received)
		}
		for i, w := range ws {
			n, m, err := w.Progress()
			if err != nil {
				t.Fatal(err)
			}
			completed[i], received[i] = completed[i]+n, received[i]+m
		}
	}
}

func flushed(t *testing.T, w *Worker) bool {
	t.Helper()
	ok, err := w.Flushed()
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// Each operation moves its bytes, from either side, and Progress counts it.
func TestDirect(t *testing.T) {
	for _, tls := range []string{"tcp", "shm"} {
		t.Run(tls, func(t *testing.T) {
			ws, memory := direct(t, tls)
			for from := range ws {
				w, here, there := ws[from], memory[from], memory[1-from]
				copy(here, "written")
				copy(there[1000:], "to be read")
				if flushed(t, w) {
					t.Error("flushed before any Flush")
				}
				if err := errors.Join(w.Put(loop.Piece{Remote: 500, Len: 7}), w.Get(loop.Piece{Local: 2000, Remote: 1000, Len: 10}), w.Flush()); err != nil {
					t.Fatal(err)
				}
				until(t, ws, func(completed, _ [2]int) bool { return completed[from] == 2 && flushed(t, w) })
				if string(there[500:507]) != "written" || string(here[2000:2010]) != "to be read" {
					t.Errorf("side %d: put left %q, get %q", from, there[500:507], here[2000:2010])
				}
				// Messages find their place by their tag, short ones and long ones, and
				// those that come before their receive.
				copy(here[3000:], "short")
				here[4000], here[4000+20000-1] = 'a', 'z'
				if err := errors.Join(ws[1-from].TagRecv(30000, 20000, 7), w.TagSend(3000, 5, MaxTag), w.TagSend(4000, 20000, 7)); err != nil {
					t.Fatal(err)
				}
				n, came := 0, 0
				until(t, ws, func(completed, received [2]int) bool {
					n, came = completed[from], received[1-from]
					return n == 2 && came == 1
				})
				if err := ws[1-from].TagRecv(60000, 5, MaxTag); err != nil {
					t.Fatal(err)
				}
				until(t, ws, func(_, received [2]int) bool { return received[1-from] == 1 })
				if string(there[60000:60005]) != "short" || there[30000] != 'a' || there[49999] != 'z' {
					t.Errorf("side %d: messages left %q, %q, %q", from, there[60000:60005], there[30000], there[49999])
				}
				clear(here)
				clear(there)
			}
			// A receive that nobody answers does not keep the worker from closing.
			if err := errors.Join(ws[0].TagRecv(0, 1, 1), ws[0].TagRecv(0, 1, 2)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What cannot be is refused before anything is posted.
func TestDirectRefuses(t *testing.T) {
	ws, _ := direct(t, "tcp")
	w := ws[0]
	const far = ^uint64(0)
	for name, err := range map[string]error{
		"local":   w.Get(loop.Piece{Local: directBytes - 3, Len: 4}),
		"remote":  w.Put(loop.Piece{Remote: directBytes - 3, Len: 4}),
		"wraps":   w.Get(loop.Piece{Local: far - 3, Len: 8}),
		"send":    w.TagSend(directBytes, 1, 0),
		"receive": w.TagRecv(1, directBytes, 0),
	} {
		if !errors.Is(err, loop.ErrOutside) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.TagSend(0, 1, MaxTag+1); err == nil {
		t.Error("a tag that is too large was taken")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := w.Progress()
	_, ferr := w.Flushed()
	for _, err := range []error{err, ferr, w.Flush(), w.Get(loop.Piece{Len: 1}), w.TagSend(0, 1, 0), w.TagRecv(0, 1, 0), w.Connect(Address{Worker: []byte{1}, Key: []byte{1}})} {
		if !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// An operation that fails has UCX's status: here its peer is gone.
func TestDirectFails(t *testing.T) {
	ws, _ := direct(t, "tcp")
	if err := ws[0].Get(loop.Piece{Len: 8}); err != nil {
		t.Fatal(err)
	}
	until(t, ws, func(completed, _ [2]int) bool { return completed[0] == 1 })
	if err := ws[1].Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		err := ws[0].Get(loop.Piece{Len: 8})
		if err == nil || errors.Is(err, ErrNoResource) {
			_, _, err = ws[0].Progress()
		}
		var status Status
		if err != nil {
			if !errors.As(err, &status) || !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v has no status", err)
			}
			t.Log(err)
			return
		}
		if time.Now().After(end) {
			t.Fatal("no operation to a peer that is gone failed")
		}
	}
}

// The measuring loop may run the worker before and after.
func TestDirectBesideGroups(t *testing.T) {
	ws, memory := direct(t, "tcp")
	message := func() {
		t.Helper()
		memory[0][0]++
		if err := errors.Join(ws[1].TagRecv(100, 1, 3), ws[0].TagSend(0, 1, 3)); err != nil {
			t.Fatal(err)
		}
		until(t, ws, func(_, received [2]int) bool { return received[1] == 1 })
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
		for i, w := range ws {
			if groups[i], err = loop.NewGroup([]loop.Lane{w.Lane()}, loop.Config{Poll: loop.Yield}); err != nil {
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
