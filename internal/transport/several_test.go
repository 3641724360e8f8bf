package transport

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
)

// A link moves data between the buffers that it is over, and leaves the others alone.
func TestSeveralBuffers(t *testing.T) {
	p, target := testPair(t, localSide(t), nil)
	want := MemoryRequest{Buffer: 1, Kind: mem.Host, Bytes: linkBytes}
	if _, _, err := p.Allocate(t.Context(), want, want); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Allocate(t.Context(), want, want); err == nil {
		t.Error("one buffer twice")
	}
	if _, err := p.OpenOver(t.Context(), linkConfig("socket"), Buffers{Local: 1, Peer: 2}); !errors.Is(err, ErrRefused) {
		t.Errorf("a buffer that does not exist: %v", err)
	}
	l, err := p.OpenOver(t.Context(), linkConfig("socket"), Buffers{Local: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []*mem.Buffer{p.Local.buffers[0].Buffer, target.Side.buffers[target.buffers[1]].Buffer} {
		if err := b.Fill(t.Context(), linkBytes, 1); err != nil {
			t.Fatal(err)
		}
	}
	out, err := planned(t, l, testMove(loop.Read)).Transfer(t.Context(), Batch{Iters: 1, Key: 2})
	if err != nil || !*out.Verified {
		t.Fatalf("%+v, %v", out, err)
	}
	here, there := p.Local.buffers, target.Side.buffers
	if !bytes.Equal(here[1].Bytes(), there[target.buffers[0]].Bytes()) {
		t.Error("the buffers of the link differ")
	}
	if !bytes.Equal(here[0].Bytes(), there[target.buffers[1]].Bytes()) {
		t.Error("a buffer that is not the link's has changed")
	}
}

// A side's limit of memory holds for all buffers of all initiators together, and ends
// with them.
func TestServedBuffersAreBounded(t *testing.T) {
	s := servedFake(t, nil)
	t.Cleanup(func() { s.Close() })
	ask := func(v *Served, n int, bytes uint64) error {
		_, err := v.Memory(t.Context(), MemoryRequest{Buffer: n, Kind: mem.Host, Bytes: bytes})
		return err
	}
	s.MaxMemory = s.taken + 1<<20
	other := s.Join()
	if err := errors.Join(ask(s, 1, 1<<19), ask(other, 1, 1<<18)); err != nil {
		t.Fatal(err)
	}
	for _, v := range []*Served{s, other} {
		if err := ask(v, 2, 1<<18+1); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "--max-memory") {
			t.Errorf("more than all may have: %v", err)
		}
		if err := ask(v, 1, 1); !errors.Is(err, ErrRefused) {
			t.Errorf("one buffer twice: %v", err)
		}
		if err := ask(v, -1, 1); !errors.Is(err, ErrRefused) {
			t.Errorf("buffer -1: %v", err)
		}
	}
	if err := errors.Join(other.Leave(), ask(s, 2, 1<<19)); err != nil {
		t.Errorf("after the other has left: %v", err)
	}
	s.MaxMemory = 0
	for n := 3; s.session().buffers < maxBuffers; n++ {
		if err := ask(s, n, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(s.Join(), 0, 1); !errors.Is(err, ErrRefused) {
		t.Errorf("buffer %d: %v", maxBuffers+1, err)
	}
}

// A lent buffer is everybody's, and stays when the side is closed.
func TestLentBuffer(t *testing.T) {
	b, err := mem.New(mem.Host, -1, 4096)
	if err != nil {
		t.Fatal(err)
	}
	s := &Served{Side: &Side{open: func(_ context.Context, c Config) (Endpoint, error) { return &fakeEndpoint{t: t, cfg: c}, nil }}}
	if err := s.Lend(3, b); err != nil {
		t.Fatal(err)
	}
	if err := s.Lend(3, b); err == nil {
		t.Error("lent twice under one number")
	}
	for _, v := range []*Served{s, s.Join()} {
		if _, err := v.Open(t.Context(), OpenRequest{0, good()}); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Register(t.Context(), RegisterRequest{Buffer: 3}); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	b.Bytes()[0] = 1 // a fault, were it freed
	if err := b.Free(); err != nil {
		t.Error(err)
	}
}

// A list moves its pieces, region by region, and nothing else; it has no payload.
func TestList(t *testing.T) {
	p, target := testPair(t, localSide(t), nil)
	l, err := p.Open(t.Context(), linkConfig("socket"))
	if err != nil {
		t.Fatal(err)
	}
	here, there := p.Local.buffers[0].Bytes(), target.Side.buffers[target.buffers[0]].Bytes()
	for i := range there {
		here[i], there[i] = 0, byte(i>>8)|1
	}
	list := &List{Pieces: []kv.Desc{{Local: 100, Remote: 5000, Len: 50}, {Local: 4000, Remote: 0, Len: 96}}, Regions: 3, LocalStride: 10_000, RemoteStride: 20_000}
	plan := planned(t, l, Move{Name: "a list", Op: loop.Read, List: list})
	if plan.Ops != 6 {
		t.Errorf("%d operations", plan.Ops)
	}
	out, err := plan.Transfer(t.Context(), Batch{Iters: 2, Unchecked: true})
	if err != nil || len(out.Samples) != 2 || out.Samples[0].Bytes != 3*146 {
		t.Fatalf("%+v, %v", out, err)
	}
	want := make([]byte, len(here))
	for r := range 3 {
		copy(want[10_000*r+100:][:50], there[20_000*r+5000:])
		copy(want[10_000*r+4000:][:96], there[20_000*r:])
	}
	if !bytes.Equal(here, want) {
		t.Error("the pieces are not where they belong, or something else has changed")
	}
	if _, err := plan.Transfer(t.Context(), Batch{Iters: 1}); !errors.Is(err, errNoPayload) {
		t.Errorf("a payload: %v", err)
	}
	if err := plan.Drop(t.Context()); err != nil || len(p.Local.plans)+len(target.plans)+len(target.laid) != 0 || target.session().pieces != 0 {
		t.Errorf("dropped: %v", err)
	}
	if err := plan.Drop(t.Context()); err == nil {
		t.Error("dropped twice")
	}
}

// A list that is in no buffer, or that cannot be counted, is refused.
func TestServedRefusesAbsurdLists(t *testing.T) {
	s := servedFake(t, nil)
	if _, err := s.Memory(t.Context(), MemoryRequest{Kind: mem.Host, Bytes: 4096}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), OpenRequest{0, good()}); err != nil {
		t.Fatal(err)
	}
	r := PlanRequest{Lanes: s.opened[0].lanes, Op: loop.Read, List: &List{Pieces: []kv.Desc{{Len: 1}}}}
	if _, err := s.Plan(t.Context(), r); err == nil {
		t.Error("a plan over no region")
	}
	if _, err := s.Register(t.Context(), RegisterRequest{}); err != nil {
		t.Fatal(err)
	}
	const big = 1<<64 - 1
	for name, l := range map[string]List{
		"beyond the end":       {Pieces: []kv.Desc{{Remote: 4096, Len: 1}}},
		"across the end":       {Pieces: []kv.Desc{{Remote: 4000, Len: 97}}},
		"a later region":       {Pieces: []kv.Desc{{Len: 1}}, Regions: 2, RemoteStride: 4096},
		"an offset that wraps": {Pieces: []kv.Desc{{Remote: big, Len: 2}}},
		"a length that wraps":  {Pieces: []kv.Desc{{Remote: 2, Len: big}}},
		"a stride that wraps":  {Pieces: []kv.Desc{{Len: 1}}, Regions: 3, RemoteStride: 1 << 63},
		"a sum that wraps":     {Pieces: []kv.Desc{{Len: 1 << 60}}, Regions: 16},
		"regions below none":   {Pieces: []kv.Desc{{Len: 1}}, Regions: -1},
		"regions without end":  {Pieces: []kv.Desc{{Len: 1}}, Regions: 1 << 62},
		"no piece, no end":     {Regions: 1 << 62},
	} {
		if _, err := s.Plan(t.Context(), PlanRequest{Lanes: r.Lanes, Op: loop.Read, List: &l}); !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Name = strings.Repeat("x", maxName+1)
	if _, err := s.Plan(t.Context(), r); !errors.Is(err, ErrRefused) {
		t.Errorf("a long name: %v", err)
	}
	r.Name = ""
	if _, err := s.Plan(t.Context(), r); err != nil {
		t.Errorf("a list of one byte: %v", err)
	}
}

// Several initiators share a target. Each has numbers of its own, reaches no other's,
// and takes only its own with it.
func TestInitiatorsShareASide(t *testing.T) {
	p, target := testPair(t, localSide(t), nil)
	second := &Pair{Local: localSide(t), Peer: target.Join()}
	want := MemoryRequest{Kind: mem.Host, Bytes: linkBytes}
	if _, _, err := second.Allocate(t.Context(), want, want); err != nil {
		t.Fatal(err)
	}
	var plans []*Plan
	for _, p := range []*Pair{p, second} {
		l, err := p.Open(t.Context(), linkConfig("socket"))
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, planned(t, l, testMove(loop.Write)))
	}
	if plans[0].id != plans[1].id || plans[0].link.id != plans[1].link.id {
		t.Errorf("plans %d and %d over %d and %d: this test is about equal numbers", plans[0].id, plans[1].id, plans[0].link.id, plans[1].link.id)
	}
	run := func(i int) {
		t.Helper()
		out, err := plans[i].Transfer(t.Context(), Batch{Iters: 2, Key: uint64(i)})
		if err != nil || !*out.Verified {
			t.Errorf("initiator %d: %+v, %v", i, out, err)
		}
	}
	run(0)
	run(1)
	// Both have what they wrote: nobody's buffer is another's.
	for i, plan := range plans {
		rep, err := plan.link.pair.Peer.Check(t.Context(), PayloadRequest{plan.id, uint64(i)})
		if err != nil || rep.Mismatch != nil {
			t.Errorf("initiator %d: %+v, %v", i, rep, err)
		}
	}
	if err := errors.Join(p.Seal(t.Context()), second.Seal(t.Context())); err != nil {
		t.Error(err)
	}
	if err := second.Peer.(*Served).Leave(); err != nil {
		t.Error(err)
	}
	if _, err := second.Peer.Settle(t.Context(), SettleRequest{plans[1].id}); !errors.Is(err, ErrRefused) {
		t.Errorf("a plan of an initiator that has left: %v", err)
	}
	if n := len(target.Side.endpoints) + len(target.Side.buffers) + len(target.Side.plans); n != 3 {
		t.Errorf("%d endpoints, buffers and plans are left, want one each", n)
	}
	if c := target.session(); len(c.all) != 1 || c.endpoints != 1 || c.buffers != 1 || c.plans != 1 {
		t.Errorf("the account is %+v", c)
	}
	run(0)
}

// The limits of a session hold for its initiators together.
func TestServedLimitsAreTheSessions(t *testing.T) {
	s := servedFake(t, nil)
	if _, err := s.Memory(t.Context(), MemoryRequest{Kind: mem.Host, Bytes: 4096}); err != nil {
		t.Fatal(err)
	}
	views := []*Served{s, s.Join(), s.Join()}
	for i := range maxEndpoints {
		if _, err := views[i%3].Open(t.Context(), OpenRequest{i, good()}); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range views {
		if _, err := v.Open(t.Context(), OpenRequest{maxEndpoints, good()}); !errors.Is(err, ErrRefused) {
			t.Errorf("one more: %v", err)
		}
	}
	if err := views[2].Leave(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), OpenRequest{maxEndpoints, good()}); err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

// listening is a side that listens; from connects to it from an address of loopback.
func listening(t *testing.T) (s *Side, from func(ip string) Connection) {
	t.Helper()
	s = &Side{before: map[uint64]bool{}}
	own, err := host.Root("").OwnSockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range own {
		s.before[o.Inode] = true
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return s, func(ip string) Connection {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return Connection{netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())}
	}
}

// tellingPeer has the connections that it tells.
type tellingPeer struct {
	Peer
	has []Connection
}

func (p tellingPeer) Seal(context.Context, SealRequest) (SealReply, error) {
	return SealReply{Connections: p.has}, nil
}

// Pairs that share a local side are sealed together: a connection of one peer is a
// stranger's to another.
func TestSealOfSeveralPairs(t *testing.T) {
	s, from := listening(t)
	one := &Pair{Local: s, Peer: tellingPeer{has: []Connection{from("127.0.0.2")}}, bound: true}
	two := &Pair{Local: s, Peer: tellingPeer{has: []Connection{from("127.0.0.3")}}, bound: true}
	if err := one.Seal(t.Context()); !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), "127.0.0.3") {
		t.Errorf("one of two: %v", err)
	}
	if err := Seal(t.Context(), one, two, &Pair{Local: s}); err != nil {
		t.Errorf("both: %v", err)
	}
}

// Until all initiators of a side have sealed, those who have not may connect, and
// nobody else.
func TestSealOfSeveralInitiators(t *testing.T) {
	s, from := listening(t)
	one, two := &Served{Side: s}, (*Served)(nil)
	two = one.Join()
	one.opened = map[int]*servedEndpoint{0: {peers: []string{"127.0.0.2"}}}
	two.opened = map[int]*servedEndpoint{0: {peers: []string{"127.0.0.3"}}}
	first, second := from("127.0.0.2"), from("127.0.0.3")
	rep, err := one.Seal(t.Context(), SealRequest{[]Connection{first}})
	if err != nil {
		t.Errorf("the second has yet to seal: %v", err)
	}
	if len(rep.Connections) != 0 {
		t.Errorf("%v were told to the first: nothing was accepted yet", rep.Connections)
	}
	if _, err := two.Seal(t.Context(), SealRequest{}); !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), "127.0.0.3") {
		t.Errorf("a connection that the second does not know: %v", err)
	}
	if _, err := two.Seal(t.Context(), SealRequest{[]Connection{second}}); err != nil {
		t.Errorf("all is known: %v", err)
	}
	from("127.0.0.4")
	if _, err := one.Seal(t.Context(), SealRequest{[]Connection{first}}); !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), "127.0.0.4") {
		t.Errorf("a stranger: %v", err)
	}
}

// What an endpoint listens on is held to its own peer's way, whatever others have
// open beside it.
func TestEachEndpointListensForItself(t *testing.T) {
	wide := &opensWide{network: "tcp", address: "0.0.0.0:0"}
	quiet := &opensWide{network: "tcp", address: "127.0.0.1:0"}
	next := map[string]Endpoint{"ucx": wide, "tcp": quiet}
	s := &Side{open: func(_ context.Context, c Config) (Endpoint, error) { return next[c.Provider], nil }}
	defer s.Close()
	ctx := t.Context()
	if _, err := s.Memory(ctx, MemoryRequest{Kind: mem.Host, Bytes: 4096}); err != nil {
		t.Fatal(err)
	}
	open := func(id int, c Config) {
		t.Helper()
		c.Bind = []string{"127.0.0.1"}
		if _, err := s.Open(ctx, OpenRequest{id, c}); err != nil {
			t.Fatal(err)
		}
	}
	open(0, Config{Provider: "tcp"})
	// The user wants this one to listen everywhere.
	open(1, Config{Provider: "ucx", Options: map[string]string{"NET_DEVICES": "all"}})
	if _, err := s.Register(ctx, RegisterRequest{Endpoint: 1}); err != nil {
		t.Fatal(err)
	}
	if rep, err := s.Register(ctx, RegisterRequest{Endpoint: 0}); err != nil || len(rep.Notes) != 0 {
		t.Errorf("beside one that listens everywhere: %v, %v", rep.Notes, err)
	}
	next["tcp"] = &opensWide{network: "tcp", address: "0.0.0.0:0"}
	open(2, Config{Provider: "tcp"})
	if _, err := s.Register(ctx, RegisterRequest{Endpoint: 2}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("one that listens everywhere beside one that may: %v", err)
	}
}
