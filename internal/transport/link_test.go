package transport

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
)

// linkBytes is what the tests' moves move.
const linkBytes = 1 << 20

func testMove(op loop.Op) Move {
	return Move{Name: "the move", Op: op, KV: kv.Request{Bytes: linkBytes, Shape: kv.Contiguous}, Pieces: 16}
}

// testPair is a pair of two sides of this process, each with a buffer.
func testPair(t *testing.T, local *Side, wrap func(*Served) Peer) (*Pair, *Served) {
	t.Helper()
	target := &Served{Side: &Side{}}
	p := &Pair{Local: local, Peer: target}
	if wrap != nil {
		p.Peer = wrap(target)
	}
	t.Cleanup(func() {
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	})
	want := MemoryRequest{Kind: mem.Host, Bytes: linkBytes}
	if _, _, err := p.Allocate(t.Context(), want, want); err != nil {
		t.Fatal(err)
	}
	return p, target
}

func localSide(t *testing.T) *Side {
	t.Helper()
	s := &Side{}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func linkConfig(provider string) Config {
	return Config{Provider: provider, Bind: []string{"127.0.0.1"}, Ops: []loop.Op{loop.Read, loop.Write}, Streams: 2, Rails: 1,
		Timeout: 5 * time.Second, SameHost: true, Device: -1}
}

func planned(t *testing.T, l *Link, m Move) *Plan {
	t.Helper()
	plan, err := l.Plan(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// Links of one pair carry what they are asked to, each with its own plans, and say
// what that cost.
func TestLinks(t *testing.T) {
	p, target := testPair(t, localSide(t), nil)
	var links []*Link
	for _, provider := range []string{"socket", "memcpy", "socket"} {
		l, err := p.Open(t.Context(), linkConfig(provider))
		if err != nil {
			t.Fatal(err)
		}
		s := l.Setup()
		if s.OpenNs <= 0 || s.RegisterNs <= 0 || s.ConnectNs <= 0 || s.PeerOpenNs <= 0 || s.PeerRegisterNs <= 0 {
			t.Errorf("%s was brought up in %+v", provider, s)
		}
		if l.Info().Provider != provider {
			t.Errorf("%s is %+v", provider, l.Info())
		}
		links = append(links, l)
	}
	if err := p.Seal(t.Context()); err != nil {
		t.Error(err)
	}
	key := uint64(0)
	for _, l := range links {
		for _, op := range []loop.Op{loop.Read, loop.Write} {
			plan := planned(t, l, testMove(op))
			key++
			out, err := plan.Transfer(t.Context(), Batch{Iters: 3, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Samples) != 3 || out.Verified == nil || !*out.Verified || out.Fault != "" {
				t.Errorf("%s %v: %+v", l.cfg.Provider, op, out)
			}
			for _, s := range out.Samples {
				if s.Bytes != linkBytes || s.Ops != uint64(plan.Ops) || plan.Ops < 16 {
					t.Errorf("%s %v: %+v in a plan of %d operations", l.cfg.Provider, op, s, plan.Ops)
				}
			}
			if out.After.CPUNs < out.Before.CPUNs || (out.PeerBefore.CPUNs == 0) != (l.cfg.Provider == "memcpy") || out.PeerAfter.CPUNs < out.PeerBefore.CPUNs {
				t.Errorf("%s %v: usage %+v", l.cfg.Provider, op, out)
			}
			if out, err = plan.Transfer(t.Context(), Batch{Iters: 1, Unchecked: true}); err != nil || out.Verified != nil || len(out.Samples) != 1 {
				t.Errorf("%s %v, unchecked: %+v, %v", l.cfg.Provider, op, out, err)
			}
		}
	}
	for _, l := range links {
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if len(p.Local.endpoints)+len(p.Local.plans)+len(target.endpoints)+len(target.plans) != 0 {
		t.Errorf("left open: %v, %v", p.Local, target.Side)
	}
}

// wrongPeer lays out and checks another payload than the one that is named.
type wrongPeer struct{ *Served }

func (w wrongPeer) Fill(ctx context.Context, r PayloadRequest) (Done, error) {
	r.Key++
	return w.Served.Fill(ctx, r)
}

func (w wrongPeer) Check(ctx context.Context, r PayloadRequest) (CheckReply, error) {
	r.Key++
	return w.Served.Check(ctx, r)
}

// Data that is not the payload is an outcome, which names the transfer and where it
// was found.
func TestLinkNamesWrongData(t *testing.T) {
	p, _ := testPair(t, localSide(t), func(s *Served) Peer { return wrongPeer{s} })
	l, err := p.Open(t.Context(), linkConfig("socket"))
	if err != nil {
		t.Fatal(err)
	}
	for op, where := range map[loop.Op]string{loop.Read: "the move, on the initiator: ", loop.Write: "the move, on the target: "} {
		out, err := planned(t, l, testMove(op)).Transfer(t.Context(), Batch{Iters: 1, Key: 7})
		if err != nil || out.Verified == nil || *out.Verified || !strings.HasPrefix(out.Fault, where) || len(out.Samples) != 1 {
			t.Errorf("%v: %+v, %v", op, out, err)
		}
	}
}

// A transfer that does not complete has an error with its name and both sides' words.
func TestLinkTransferFails(t *testing.T) {
	p, target := testPair(t, localSide(t), nil)
	l, err := p.Open(t.Context(), linkConfig("socket"))
	if err != nil {
		t.Fatal(err)
	}
	plan := planned(t, l, testMove(loop.Read))
	target.endpoints[target.opened[l.id].id].Endpoint.(*socketEndpoint).interrupt()
	_, err = plan.Transfer(t.Context(), Batch{Iters: 1})
	if err == nil {
		t.Fatal("a transfer over closed connections")
	}
	// The target may have noticed before it was armed.
	if !errors.Is(err, ErrTransfer) && !strings.HasPrefix(err.Error(), "peer: ") {
		t.Errorf("%v", err)
	}
	if errors.Is(err, ErrTransfer) && (!strings.Contains(err.Error(), "the move: ") || !strings.Contains(err.Error(), "peer: ")) {
		t.Errorf("%v", err)
	}
}

// brokenPeer cannot register.
type brokenPeer struct{ *Served }

var errBroken = errors.New("broken")

func (brokenPeer) Register(context.Context, RegisterRequest) (RegisterReply, error) {
	return RegisterReply{}, errBroken
}

// What a link has opened before it failed is closed on both sides.
func TestLinkOpenFails(t *testing.T) {
	p, target := testPair(t, localSide(t), func(s *Served) Peer { return brokenPeer{s} })
	l, err := p.Open(t.Context(), linkConfig("socket"))
	if !errors.Is(err, errBroken) || !strings.HasPrefix(err.Error(), "peer: ") || l != nil {
		t.Errorf("%v", err)
	}
	if len(p.Local.endpoints)+len(target.endpoints)+len(target.opened) != 0 {
		t.Errorf("%d endpoints here and %d on the peer are left", len(p.Local.endpoints), len(target.endpoints))
	}
}

// versionPeer says that its library is another.
type versionPeer struct{ *Served }

func (v versionPeer) Open(ctx context.Context, r OpenRequest) (OpenReply, error) {
	rep, err := v.Served.Open(ctx, r)
	rep.Info.Version = "2"
	return rep, err
}

// What a side has to say is told at once, and can end the call.
func TestLinkNotes(t *testing.T) {
	p, _ := testPair(t, localSide(t), func(s *Served) Peer { return versionPeer{s} })
	var notes []string
	p.Note = func(note string) error { notes = append(notes, note); return nil }
	if _, err := p.Open(t.Context(), linkConfig("socket")); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(notes, []string{"socket: library version  here, 2 on the peer"}) {
		t.Errorf("%q", notes)
	}
	p.Note = func(string) error { return errBroken }
	if _, err := p.Open(t.Context(), linkConfig("socket")); !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
}

// Pairs that share a local side do not take each other's endpoints.
func TestPairsShareASide(t *testing.T) {
	local := localSide(t)
	first, _ := testPair(t, local, nil)
	second := &Served{Side: &Side{}}
	defer func() {
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := second.Memory(t.Context(), MemoryRequest{Kind: mem.Host, Bytes: linkBytes}); err != nil {
		t.Fatal(err)
	}
	for i, p := range []*Pair{first, {Local: local, Peer: second}} {
		l, err := p.Open(t.Context(), linkConfig("socket"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := planned(t, l, testMove(loop.Read)).Transfer(t.Context(), Batch{Iters: 1, Key: uint64(i)})
		if err != nil || !*out.Verified {
			t.Errorf("pair %d: %+v, %v", i, out, err)
		}
	}
}
