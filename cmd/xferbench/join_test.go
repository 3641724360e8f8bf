package main

import (
	"errors"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/transport"
)

// initiator is one of several that work on one session.
type initiator struct {
	t      *testing.T
	client *peer.Client
	pair   *transport.Pair
	plan   *transport.Plan
}

// bringUp gives both sides two buffers and brings a link up between the second ones.
func (i *initiator) bringUp(provider string) {
	t := i.t
	t.Helper()
	side := &transport.Side{}
	t.Cleanup(func() {
		if err := side.Close(); err != nil {
			t.Error(err)
		}
	})
	i.pair = &transport.Pair{Local: side, Peer: i.client}
	for n := range 2 {
		want := transport.MemoryRequest{Buffer: n, Kind: mem.Host, Bytes: 1 << 20}
		if _, _, err := i.pair.Allocate(t.Context(), want, want); err != nil {
			t.Fatal(err)
		}
	}
	l, err := i.pair.OpenOver(t.Context(), transport.Config{Provider: provider, Bind: []string{i.client.Local.String()}, Ops: []loop.Op{loop.Write},
		Poll: loop.Yield, Timeout: 10 * time.Second, SameHost: true, Device: -1}, transport.Buffers{Local: 1, Peer: 1})
	if errors.Is(err, transport.ErrUnavailable) {
		testenv.Need(t, map[string]string{"tcp": "libfabric", "ucx:tcp": "ucx"}[provider], err)
	}
	if err != nil {
		t.Fatal(err)
	}
	i.plan, err = l.Plan(t.Context(), transport.Move{Op: loop.Write, KV: kv.Request{Bytes: 1 << 20, Shape: kv.Contiguous}})
	if err != nil {
		t.Fatal(err)
	}
}

func (i *initiator) run(key uint64) {
	i.t.Helper()
	out, err := i.plan.Transfer(i.t.Context(), transport.Batch{Iters: 3, Key: key})
	if err != nil {
		i.t.Fatal(err)
	}
	if !*out.Verified {
		i.t.Error(out.Fault)
	}
}

// Two initiators work on one session of a serve, in one process of its: each over
// links of its own, and the doors stay open for who has yet to make its first
// transfer.
func TestInitiatorsShareASession(t *testing.T) {
	for _, provider := range []string{"socket", "tcp", "ucx:tcp"} {
		t.Run(provider, func(t *testing.T) {
			s, address, secret := target(t, "--once")
			first := &initiator{t: t, client: session(t, address, secret)}
			c, err := peer.Join(t.Context(), address, secret, first.client.Key(), 20*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			second := &initiator{t: t, client: c}
			if kids := s.children(); len(kids) != 1 {
				t.Errorf("processes %v of one session", kids)
			}
			first.bringUp(provider)
			second.bringUp(provider)
			first.run(1)
			if err := first.pair.Seal(t.Context()); err != nil {
				t.Error(err)
			}
			second.run(2)
			first.run(3)
			if err := errors.Join(first.pair.Seal(t.Context()), second.pair.Seal(t.Context())); err != nil {
				t.Error(err)
			}
			if err := first.client.Close(); err != nil {
				t.Error(err)
			}
			second.run(4)
			if err := second.client.Close(); err != nil {
				t.Error(err)
			}
			s.exits(0)
		})
	}
}
