package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/cuda"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
)

// Peer is the target side as the initiator reaches it: a [Side] of its own
// process behind the control channel, or in tests one of the same process.
// Endpoints and plans are named by numbers that the initiator chooses.
type Peer interface {
	Inventory(ctx context.Context) (record.Host, error)
	Memory(ctx context.Context, r MemoryRequest) (MemoryReply, error)
	Routes(ctx context.Context, r RoutesRequest) (RoutesReply, error)
	Open(ctx context.Context, r OpenRequest) (OpenReply, error)
	Register(ctx context.Context, r EndpointRequest) (RegisterReply, error)
	Connect(ctx context.Context, r ConnectRequest) (ConnectReply, error)
	Plan(ctx context.Context, r PlanRequest) (PlanReply, error)
	Fill(ctx context.Context, r PayloadRequest) (Done, error)
	Poison(ctx context.Context, r PayloadRequest) (Done, error)
	Check(ctx context.Context, r PayloadRequest) (CheckReply, error)
	Arm(ctx context.Context, r ArmRequest) (UsageReply, error)
	Settle(ctx context.Context, r SettleRequest) (UsageReply, error)
	Seal(ctx context.Context, r SealRequest) (SealReply, error)
	Shut(ctx context.Context, r EndpointRequest) (Done, error)
}

// The requests and replies of [Peer]; they cross the control channel as JSON.
// Durations are ns.
type (
	// MemoryRequest asks for the side's one buffer.
	MemoryRequest struct {
		Kind   mem.Kind `json:"kind"`
		Device int      `json:"device"`
		Bytes  uint64   `json:"bytes"`
		// More is what else the run will take of the same memory in this process,
		// Others what it will in other processes of this host; in bytes.
		More   uint64 `json:"more_bytes,omitempty"`
		Others uint64 `json:"others_bytes,omitempty"`
		// From is the asker's process, known before either side makes a file.
		From Process `json:"from,omitzero"`
	}
	MemoryReply struct {
		Ns   int64   `json:"ns"`
		From Process `json:"from,omitzero"`
	}
	OpenRequest struct {
		Endpoint int    `json:"endpoint"`
		Config   Config `json:"config"`
	}
	OpenReply struct {
		Info  Info  `json:"info"`
		Lanes int   `json:"lanes"`
		Ns    int64 `json:"ns"`
	}
	EndpointRequest struct {
		Endpoint int `json:"endpoint"`
	}
	// RegisterReply and ConnectReply carry notes on what the endpoint listens on.
	RegisterReply struct {
		Address []byte   `json:"address"`
		Ns      int64    `json:"ns"`
		Notes   []string `json:"notes,omitempty"`
	}
	ConnectRequest struct {
		Endpoint int    `json:"endpoint"`
		Address  []byte `json:"address"`
	}
	ConnectReply struct {
		Ns    int64    `json:"ns"`
		Notes []string `json:"notes,omitempty"`
	}
	// PlanRequest asks for the plans of a condition, laid out as split does.
	PlanRequest struct {
		Plan     int        `json:"plan"`
		Endpoint int        `json:"endpoint"`
		Op       loop.Op    `json:"op"`
		KV       kv.Request `json:"kv"`
		Lanes    int        `json:"lanes"`
		Chunk    uint64     `json:"chunk_bytes"`
		// Reuse lays a lane's pieces over one another; see Run.Reuse.
		Reuse bool `json:"reuse,omitempty"`
	}
	PlanReply struct {
		Ops int `json:"operations"`
	}
	// PayloadRequest is about the payload of key in the bytes that a plan uses.
	PayloadRequest struct {
		Plan int    `json:"plan"`
		Key  uint64 `json:"key"`
	}
	CheckReply struct {
		Mismatch *mem.Mismatch `json:"mismatch,omitempty"`
	}
	ArmRequest struct {
		Plan  int `json:"plan"`
		Iters int `json:"iters"`
	}
	SettleRequest struct {
		Plan int `json:"plan"`
	}
	// UsageReply is the side's usage at the end of the call.
	UsageReply struct {
		Arrived int           `json:"arrived"`
		Usage   host.Snapshot `json:"usage"`
	}
	// Done is an empty reply.
	Done struct{}
)

// ErrTooLarge is matched by the errors of a buffer that a side refuses.
var ErrTooLarge = errors.New("too large")

// Side is one side of a run: its buffer, its open endpoints and its plans. It
// implements [Peer]. Its methods are for one goroutine at a time; Close may
// come from another once the last call returned.
type Side struct {
	// Root is the host that is described and counted.
	Root host.Root
	// MaxMemory limits the buffer, 0 not at all.
	MaxMemory uint64
	// Bind replaces a target's Config.Bind when set; without it the target uses
	// the addresses from which the initiator's are reached.
	Bind []string
	// Libfabric and Libucp are the libraries that a target loads, "" for the
	// loader's. An initiator's Config.Library is its own host's: a target that
	// obeyed it would load any file for who holds the token.
	Libfabric, Libucp string

	// Their is the other side's process; see Sweep.
	Their Process

	buf       *mem.Buffer
	target    bool // memory was asked for by the other side
	endpoints map[int]Endpoint
	watched   map[int]*watched // of the endpoints
	before    map[uint64]bool  // the sockets before the first endpoint
	peers     []string         // of all endpoints
	plans     map[int]*sidePlan
	open      func(context.Context, Config) (Endpoint, error) // of tests; nil: Open
	held      bool                                            // a library did not let go of an endpoint, its plans and the buffer
}

type sidePlan struct {
	endpoint int
	op       loop.Op
	transfer *kv.Transfer
	lanes    []*loop.Plan
}

// localSource is implemented by endpoints without a peer: their transfers read
// a buffer of their own.
type localSource interface{ Source() *mem.Buffer }

// Inventory describes the side's host.
func (s *Side) Inventory(context.Context) (record.Host, error) { return s.Root.Inventory(), nil }

// Memory allocates the side's buffer, unless it or all of the run is more than
// this side may have or its host has.
func (s *Side) Memory(ctx context.Context, r MemoryRequest) (MemoryReply, error) {
	if s.buf != nil {
		return MemoryReply{}, errors.New("the buffer is allocated already")
	}
	if s.MaxMemory > 0 && r.Bytes > s.MaxMemory {
		return MemoryReply{}, fmt.Errorf("%w: %d bytes asked for, this side's limit is %d; choose a smaller --size or raise serve's --max-memory", ErrTooLarge, r.Bytes, s.MaxMemory)
	}
	if err := Fits(s.Root, r); err != nil {
		return MemoryReply{}, err
	}
	if err := fabric.RemoveStale(); err != nil {
		return MemoryReply{}, err
	}
	if r.From != (Process{}) {
		s.Their, s.target = r.From, true
	}
	t := clock.Now()
	b, err := mem.NewContext(ctx, r.Kind, r.Device, int(r.Bytes))
	switch {
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, cuda.ErrorOutOfMemory):
		return MemoryReply{}, fmt.Errorf("%w: %w; choose a smaller --size", ErrTooLarge, err)
	case errors.Is(err, cuda.ErrUnavailable):
		return MemoryReply{}, fmt.Errorf("%w: %w; install the NVIDIA driver, or use --memory host", ErrUnavailable, err)
	case errors.Is(err, cuda.ErrorInvalidDevice):
		return MemoryReply{}, fmt.Errorf("%w: %w; xferbench providers lists the GPUs", ErrUnavailable, err)
	case err != nil:
		return MemoryReply{}, err
	}
	s.buf = b
	return MemoryReply{Ns: clock.Now() - t, From: Self()}, nil
}

// Open opens an endpoint.
func (s *Side) Open(ctx context.Context, r OpenRequest) (OpenReply, error) {
	if s.endpoints == nil {
		s.endpoints, s.watched = map[int]Endpoint{}, map[int]*watched{}
	}
	if s.endpoints[r.Endpoint] != nil {
		return OpenReply{}, fmt.Errorf("endpoint %d is open already", r.Endpoint)
	}
	if r.Config.Role == Target {
		if len(r.Config.Peers) == 0 {
			r.Config.Peers = r.Config.Bind
		}
		var err error
		if r.Config.Bind, err = s.routes(r.Config.Bind); err != nil {
			return OpenReply{}, err
		}
		r.Config.Library = s.Libfabric
		if api, _, _ := strings.Cut(r.Config.Provider, ":"); api == "ucx" {
			r.Config.Library = s.Libucp
		}
	}
	w, err := watch(r.Config)
	if err != nil {
		return OpenReply{}, err
	}
	t := clock.Now()
	open := Open
	if s.open != nil {
		open = s.open
	}
	ep, err := open(ctx, r.Config)
	if err != nil {
		w.end()
		return OpenReply{}, err
	}
	if s.before == nil && w != nil {
		s.before = w.before
	}
	s.peers = append(s.peers, r.Config.Peers...)
	s.endpoints[r.Endpoint], s.watched[r.Endpoint] = ep, w
	return OpenReply{Info: ep.Info(), Lanes: ep.Lanes(), Ns: clock.Now() - t}, nil
}

// routes are this host's addresses on the routes to the initiator's.
func (s *Side) routes(theirs []string) ([]string, error) {
	if len(s.Bind) > 0 {
		return s.Bind, nil
	}
	var out []string
	for _, a := range theirs {
		from, err := sourceFor(a)
		if err != nil {
			return nil, fmt.Errorf("%w: no route to the initiator's address %s: %w", ErrUnavailable, a, err)
		}
		out = append(out, from)
	}
	return out, nil
}

// sourceFor is this host's address on the route to another.
func sourceFor(to string) (string, error) {
	// Connecting a datagram socket sends nothing; the kernel chooses the
	// source address as it would for data.
	c, err := net.Dial("udp", net.JoinHostPort(to, "9"))
	if err != nil {
		return "", err
	}
	return c.LocalAddr().(*net.UDPAddr).IP.String(), c.Close()
}

func (s *Side) endpoint(id int) (Endpoint, error) {
	if ep := s.endpoints[id]; ep != nil {
		return ep, nil
	}
	return nil, fmt.Errorf("endpoint %d is not open", id)
}

// Register registers the buffer with an endpoint and returns its address.
func (s *Side) Register(_ context.Context, r EndpointRequest) (RegisterReply, error) {
	ep, err := s.endpoint(r.Endpoint)
	if err != nil {
		return RegisterReply{}, err
	}
	if s.buf == nil {
		return RegisterReply{}, errors.New("no buffer to register")
	}
	t := clock.Now()
	if err := shortage(ep.Register(s.buf)); err != nil {
		return RegisterReply{}, err
	}
	ns := clock.Now() - t
	notes, err := s.watched[r.Endpoint].check() // before the peer, or anybody, hears of it
	if err != nil {
		return RegisterReply{}, err
	}
	a, err := ep.Address()
	return RegisterReply{Address: a, Ns: ns, Notes: notes}, err
}

// Connect connects an endpoint to its peer's address.
func (s *Side) Connect(ctx context.Context, r ConnectRequest) (ConnectReply, error) {
	ep, err := s.endpoint(r.Endpoint)
	if err != nil {
		return ConnectReply{}, err
	}
	t := clock.Now()
	if err := shortage(ep.Connect(ctx, r.Address)); err != nil {
		return ConnectReply{}, err
	}
	ns := clock.Now() - t
	notes, err := s.watched[r.Endpoint].check()
	return ConnectReply{Ns: ns, Notes: notes}, err
}

// Plan lays out a condition.
func (s *Side) Plan(_ context.Context, r PlanRequest) (PlanReply, error) {
	ep, err := s.endpoint(r.Endpoint)
	if err != nil {
		return PlanReply{}, err
	}
	if r.Lanes != ep.Lanes() {
		return PlanReply{}, fmt.Errorf("a plan for %d lanes, this side's endpoint has %d", r.Lanes, ep.Lanes())
	}
	t, err := kv.New(r.KV)
	if err != nil {
		return PlanReply{}, err
	}
	if s.buf == nil || t.Bytes > int64(s.buf.Len()) {
		return PlanReply{}, fmt.Errorf("the plan's %d bytes do not fit the buffer", t.Bytes)
	}
	if s.plans[r.Plan] != nil {
		return PlanReply{}, fmt.Errorf("plan %d exists already", r.Plan)
	}
	ps, err := plans(t, r.Lanes, r.Chunk, r.Reuse)
	if err != nil {
		return PlanReply{}, err
	}
	if s.plans == nil {
		s.plans = map[int]*sidePlan{}
	}
	s.plans[r.Plan] = &sidePlan{endpoint: r.Endpoint, op: r.Op, transfer: t, lanes: ps}
	n := 0
	for _, p := range ps {
		n += p.Len()
	}
	return PlanReply{Ops: n}, nil
}

func (s *Side) plan(id int) (*sidePlan, Endpoint, error) {
	p := s.plans[id]
	if p == nil {
		return nil, nil, fmt.Errorf("plan %d does not exist", id)
	}
	ep, err := s.endpoint(p.endpoint)
	return p, ep, err
}

// Fill writes the payload, as the side that the data comes from does.
func (s *Side) Fill(ctx context.Context, r PayloadRequest) (Done, error) {
	p, ep, err := s.plan(r.Plan)
	if err != nil {
		return Done{}, err
	}
	buf := s.buf
	if l, ok := ep.(localSource); ok {
		buf = l.Source()
	}
	return Done{}, buf.Fill(ctx, int(p.transfer.Bytes), r.Key)
}

// Poison overwrites what a transfer will write, so that nothing stale passes.
func (s *Side) Poison(ctx context.Context, r PayloadRequest) (Done, error) {
	p, _, err := s.plan(r.Plan)
	if err != nil {
		return Done{}, err
	}
	return Done{}, s.buf.Poison(ctx, int(p.transfer.Bytes))
}

// Check verifies the payload on the side that it went to. Wrong data is a
// reply, not an error.
func (s *Side) Check(ctx context.Context, r PayloadRequest) (CheckReply, error) {
	p, _, err := s.plan(r.Plan)
	if err != nil {
		return CheckReply{}, err
	}
	for _, lane := range p.lanes {
		err := s.buf.Check(ctx, spans(lane, p.op == loop.Read), r.Key)
		var m *mem.Mismatch
		if errors.As(err, &m) {
			return CheckReply{Mismatch: m}, nil
		}
		if err != nil {
			return CheckReply{}, err
		}
	}
	return CheckReply{}, nil
}

// Arm readies a target for iters transfers and returns its usage so far.
func (s *Side) Arm(ctx context.Context, r ArmRequest) (UsageReply, error) {
	p, ep, err := s.plan(r.Plan)
	if err != nil {
		return UsageReply{}, err
	}
	if err := ep.Fault(); err != nil {
		return UsageReply{}, err
	}
	if err := ep.Arm(ctx, p.op, p.lanes, r.Iters); err != nil {
		return UsageReply{}, err
	}
	u, err := s.Root.Usage()
	return UsageReply{Usage: u}, err
}

// Settle ends what Arm began and returns the usage after it.
func (s *Side) Settle(ctx context.Context, r SettleRequest) (UsageReply, error) {
	_, ep, err := s.plan(r.Plan)
	if err != nil {
		return UsageReply{}, err
	}
	n, err := ep.Settle(ctx)
	if err != nil {
		return UsageReply{}, err
	}
	u, err := s.Root.Usage()
	return UsageReply{Arrived: n, Usage: u}, err
}

// info is what an endpoint knows of itself by now.
func (s *Side) info(id int) (Info, error) {
	ep, err := s.endpoint(id)
	if err != nil {
		return Info{}, err
	}
	return ep.Info(), nil
}

// transfer runs a plan as the initiator.
func (s *Side) transfer(ctx context.Context, plan, iters int) ([]loop.Sample, error) {
	p, ep, err := s.plan(plan)
	if err != nil {
		return nil, err
	}
	return ep.Transfer(ctx, p.op, p.lanes, iters)
}

// Shut closes one endpoint and frees its plans.
func (s *Side) Shut(_ context.Context, r EndpointRequest) (Done, error) {
	ep, err := s.endpoint(r.Endpoint)
	if err != nil {
		return Done{}, err
	}
	delete(s.endpoints, r.Endpoint)
	err = ep.Close()
	s.watched[r.Endpoint].end()
	delete(s.watched, r.Endpoint)
	s.held = s.held || errors.Is(err, ErrNotClosed)
	for id, p := range s.plans {
		if p.endpoint == r.Endpoint {
			s.freePlans(id, p)
		}
	}
	return Done{}, err
}

// freePlans frees a plan's lanes, unless a library may still read them.
func (s *Side) freePlans(id int, p *sidePlan) {
	if !s.held {
		freePlans(p.lanes)
	}
	delete(s.plans, id)
}

// Close closes all endpoints, then frees plans and buffer, unless an endpoint did
// not close and its library may still use them; a target sweeps then. It may be
// called twice.
func (s *Side) Close() error {
	var errs []error
	for id, ep := range s.endpoints {
		err := ep.Close()
		s.held = s.held || errors.Is(err, ErrNotClosed)
		errs = append(errs, err)
		s.watched[id].end()
		delete(s.endpoints, id)
		delete(s.watched, id)
	}
	for id, p := range s.plans {
		s.freePlans(id, p)
	}
	if s.buf != nil && !s.held {
		errs = append(errs, s.buf.Free())
	}
	s.buf = nil
	if s.target {
		errs = append(errs, s.Sweep())
	}
	return errors.Join(errs...)
}
