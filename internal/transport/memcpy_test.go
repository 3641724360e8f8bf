package transport

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
)

// copies is an initiator's endpoint over local, connected to a target's over remote;
// end closes both and frees the buffers.
func copies(t *testing.T, n, streams int) (ep Endpoint, local, remote *mem.Buffer, end func()) {
	t.Helper()
	var eps [2]Endpoint
	var bufs [2]*mem.Buffer
	for i := range eps {
		var err error
		if bufs[i], err = mem.New(mem.Host, 0, n); err != nil {
			t.Fatal(err)
		}
		if eps[i], err = Open(t.Context(), Config{Provider: "memcpy", Streams: streams, Role: []Role{Initiator, Target}[i]}); err != nil {
			t.Fatal(err)
		}
		if err := eps[i].Register(bufs[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range eps {
		to, err := eps[1-i].Address()
		if err != nil {
			t.Fatal(err)
		}
		if err := eps[i].Connect(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
	return eps[0], bufs[0], bufs[1], func() {
		t.Helper()
		if err := errors.Join(eps[0].Close(), eps[0].Close(), eps[1].Close(), bufs[0].Free(), bufs[1].Free()); err != nil {
			t.Error(err)
		}
	}
}

func TestMemcpyTransfers(t *testing.T) {
	for _, streams := range []int{1, 2} {
		for _, op := range []loop.Op{loop.Read, loop.Write, loop.Send} {
			for _, c := range pairCases() {
				t.Run(fmt.Sprintf("%d/%s/%s", streams, op, c.name), func(t *testing.T) {
					held := mem.Allocated()
					ctx := context.Background()
					ep, buf, other, end := copies(t, pairBytes, streams)
					plans, err := newPlans(deal(c.pieces, ep.Lanes()))
					if err != nil {
						t.Fatal(err)
					}
					defer freeAll(plans)
					from, to := other, buf
					if op != loop.Read {
						from, to = buf, other
					}
					if err := errors.Join(from.Fill(t.Context(), pairBytes, 99), to.Poison(t.Context(), pairBytes)); err != nil {
						t.Fatal(err)
					}
					ss, err := ep.Transfer(ctx, op, plans, 2)
					if err != nil || len(ss) != 2 {
						t.Fatalf("%d samples, %v", len(ss), err)
					}
					var bytes uint64
					for _, q := range c.pieces {
						bytes += q.Len
					}
					for _, s := range ss {
						if s.Bytes != bytes || s.Ops != uint64(len(c.pieces)) || s.BeginNs <= 0 || s.PostedNs < s.BeginNs || s.LocalNs < s.PostedNs || s.DoneNs < s.LocalNs {
							t.Errorf("sample %+v, want %d bytes in %d operations", s, bytes, len(c.pieces))
						}
					}
					if err := checkAll(to, plans, op == loop.Read, 99); err != nil {
						t.Error(err)
					}
					if err := checkAll(to, plans, op == loop.Read, 98); err == nil {
						t.Error("the payload of another key passed")
					}
					end()
					if n := mem.Allocated(); n != held {
						t.Errorf("%d bytes of buffers left", n-held)
					}
				})
			}
		}
	}
}

func TestMemcpyRefusesAPieceOutside(t *testing.T) {
	ep, _, _, end := copies(t, 4096, 1)
	defer end()
	for _, q := range []loop.Piece{{Remote: 4000, Len: 97}, {Local: 4000, Len: 97}, {Local: 1, Len: 1 << 62}} {
		if _, err := ep.Transfer(context.Background(), loop.Write, []*loop.Plan{mustPlan(t, q)}, 1); !errors.Is(err, loop.ErrOutside) {
			t.Errorf("a copy of %+v in a buffer of 4096: %v", q, err)
		}
	}
}

// A batch of many copies ends with its context: no copy ever waits, so the loop has
// to look between two transfers.
func TestMemcpyEndsWithItsContext(t *testing.T) {
	ep, _, _, end := copies(t, 1<<20, 1)
	defer end()
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(500*time.Millisecond, func() { cancel(why) })
	const iters = 1 << 19 // half a minute at 20 GB/s
	began := time.Now()
	ss, err := ep.Transfer(ctx, loop.Read, []*loop.Plan{mustPlan(t, loop.Piece{Len: 1 << 20})}, iters)
	if took := time.Since(began); !errors.Is(err, why) || len(ss) == iters || took > 10*time.Second {
		t.Errorf("%d of %d copies in %v, %v", len(ss), iters, took, err)
	}
}
