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
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
)

// Peer is the target side as the initiator reaches it: a [Side] of its own
// process behind the control channel, or in tests one of the same process.
// Buffers, endpoints and plans are named by numbers that the initiator chooses.
type Peer interface {
	Inventory(ctx context.Context) (record.Host, error)
	Memory(ctx context.Context, r MemoryRequest) (MemoryReply, error)
	Routes(ctx context.Context, r RoutesRequest) (RoutesReply, error)
	Open(ctx context.Context, r OpenRequest) (OpenReply, error)
	Register(ctx context.Context, r RegisterRequest) (RegisterReply, error)
	Connect(ctx context.Context, r ConnectRequest) (ConnectReply, error)
	Plan(ctx context.Context, r PlanRequest) (PlanReply, error)
	Fill(ctx context.Context, r PayloadRequest) (Done, error)
	Poison(ctx context.Context, r PayloadRequest) (Done, error)
	Check(ctx context.Context, r PayloadRequest) (CheckReply, error)
	Arm(ctx context.Context, r ArmRequest) (UsageReply, error)
	Settle(ctx context.Context, r SettleRequest) (UsageReply, error)
	Drop(ctx context.Context, r DropRequest) (Done, error)
	Seal(ctx context.Context, r SealRequest) (SealReply, error)
	Shut(ctx context.Context, r EndpointRequest) (Done, error)
}

// The requests and replies of [Peer]; they cross the control channel as JSON.
// Durations are ns.
type (
	// MemoryRequest asks for a buffer.
	MemoryRequest struct {
		Buffer int      `json:"buffer,omitempty"`
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
	// MemoryReply is how long the buffer took, and the process that has it.
	MemoryReply struct {
		Ns   int64   `json:"ns"`
		From Process `json:"from,omitzero"`
	}
	// OpenRequest opens an endpoint under the number Endpoint.
	OpenRequest struct {
		Endpoint int    `json:"endpoint"`
		Config   Config `json:"config"`
	}
	// OpenReply describes the open endpoint: its library and way in Info, on how many
	// lanes it transfers, and how long opening took.
	OpenReply struct {
		Info  Info  `json:"info"`
		Lanes int   `json:"lanes"`
		Ns    int64 `json:"ns"`
	}
	// EndpointRequest names an open endpoint.
	EndpointRequest struct {
		Endpoint int `json:"endpoint"`
	}
	// RegisterRequest makes a buffer the endpoint's region: what its plans and their
	// payloads are laid over.
	RegisterRequest struct {
		Endpoint int `json:"endpoint"`
		Buffer   int `json:"buffer,omitempty"`
	}
	// RegisterReply is what the other side's [ConnectRequest] takes, how long the
	// registration took, and notes on what the endpoint listens on.
	RegisterReply struct {
		Address []byte   `json:"address"`
		Ns      int64    `json:"ns"`
		Notes   []string `json:"notes,omitempty"`
	}
	// ConnectRequest connects an endpoint to the Address of the other side's
	// [RegisterReply].
	ConnectRequest struct {
		Endpoint int    `json:"endpoint"`
		Address  []byte `json:"address"`
	}
	// ConnectReply is how long connecting took, and notes on what the endpoint
	// listens on.
	ConnectReply struct {
		Ns    int64    `json:"ns"`
		Notes []string `json:"notes,omitempty"`
	}
	// PlanRequest asks for the plans of a condition, laid out as split does.
	PlanRequest struct {
		// Name says what the transfers are for, to a side that keeps account of them.
		Name     string     `json:"name,omitempty"`
		Plan     int        `json:"plan"`
		Endpoint int        `json:"endpoint"`
		Op       loop.Op    `json:"op"`
		KV       kv.Request `json:"kv"`
		List     *List      `json:"list,omitempty"` // in place of KV
		Lanes    int        `json:"lanes"`
		Chunk    uint64     `json:"chunk_bytes"`
		// Reuse lays a lane's pieces over one another; see [Move].
		Reuse bool `json:"reuse,omitempty"`
	}
	// PlanReply is how many operations a transfer by the plan posts, over all lanes.
	PlanReply struct {
		Ops int `json:"operations"`
	}
	// PayloadRequest is about the payload of key in the bytes that a plan uses.
	PayloadRequest struct {
		Plan int    `json:"plan"`
		Key  uint64 `json:"key"`
	}
	// CheckReply is where the payload is wrong first; nil: it is right.
	CheckReply struct {
		Mismatch *mem.Mismatch `json:"mismatch,omitempty"`
	}
	// ArmRequest readies a plan's endpoint for Iters transfers.
	ArmRequest struct {
		Plan  int `json:"plan"`
		Iters int `json:"iters"`
	}
	// SettleRequest ends what an [ArmRequest] for the plan began.
	SettleRequest struct {
		Plan int `json:"plan"`
	}
	// DropRequest ends a plan before its endpoint ends.
	DropRequest struct {
		Plan int `json:"plan"`
	}
	// UsageReply is the side's usage at the end of the call, and after Settle how many
	// transfers arrived.
	UsageReply struct {
		Arrived int           `json:"arrived"`
		Usage   host.Snapshot `json:"usage"`
	}
	// Done is an empty reply.
	Done struct{}
)

// ErrTooLarge is matched by the errors of a buffer that a side refuses.
var ErrTooLarge = fault.New(fault.Usage, "too large")

// Side is one side of a run: its buffers, its open endpoints and its plans. It
// implements [Peer]. Its methods are for one goroutine at a time; Close may
// come from another once the last call returned.
type Side struct {
	// Root is the host that is described and counted.
	Root host.Root
	// MaxMemory limits the buffers that are asked for, together; 0 not at all.
	MaxMemory uint64
	// Bind replaces a target's Config.Bind when set; without it the target uses
	// the addresses from which the initiator's are reached.
	Bind []string
	// Libfabric and Libucp are the libraries that a target loads, "" for the
	// loader's. An initiator's Config.Library is its own host's: a target that
	// obeyed it would load any file for who holds the token.
	Libfabric, Libucp string

	theirs    []Process // the other sides' processes; see Sweep
	target    bool      // memory was asked for by another side
	buffers   map[int]sideBuffer
	taken     uint64 // bytes of the buffers that were asked for
	endpoints map[int]*sideEndpoint
	before    map[uint64]bool // the sockets before the first endpoint
	plans     map[int]*sidePlan
	open      func(context.Context, Config) (Endpoint, error) // of tests; nil: Open
	other     *Side                                           // see opposite; nil: none
	numbers   int                                             // that were given for buffers, endpoints and plans
	held      bool                                            // a library did not let go of an endpoint, its plans and the buffers
}

// sideBuffer is a buffer of the side, or one that was lent to it.
type sideBuffer struct {
	*mem.Buffer
	lent bool
}

// sideEndpoint is an open endpoint and the watch over what it listens on, which
// may be nil.
type sideEndpoint struct {
	Endpoint
	watched *watched
	role    Role
	peers   []string
	buf     *mem.Buffer // its region
}

type sidePlan struct {
	endpoint int
	op       loop.Op
	payload  int // bytes from the start of the buffer; 0: it has none
	lanes    []*loop.Plan
}

// opposite is a side in this process whose buffer of that number is like this side's:
// memcpy's endpoints have no other. It closes with this side.
func (s *Side) opposite(ctx context.Context, number int) (*Side, error) {
	b := s.buffers[number].Buffer
	if b == nil {
		return nil, fmt.Errorf("no buffer %d to copy with", number)
	}
	if s.other == nil {
		s.other = &Side{Root: s.Root}
	}
	if s.other.buffers[number].Buffer == nil {
		c, err := mem.NewContext(ctx, b.Kind(), b.Device(), b.Len())
		if err != nil {
			return nil, fmt.Errorf("memcpy's source: %w", err)
		}
		s.other.keep(number, sideBuffer{Buffer: c})
		s.other.taken += uint64(c.Len())
	}
	return s.other, nil
}

// Inventory describes the side's host.
func (s *Side) Inventory(context.Context) (record.Host, error) { return s.Root.Inventory(), nil }

// Memory allocates a buffer, unless it or all of the run is more than this side
// may have or its host has.
func (s *Side) Memory(ctx context.Context, r MemoryRequest) (MemoryReply, error) {
	if s.buffers[r.Buffer].Buffer != nil {
		return MemoryReply{}, fmt.Errorf("buffer %d is allocated already", r.Buffer)
	}
	if s.MaxMemory > 0 && r.Bytes > s.MaxMemory-s.taken {
		return MemoryReply{}, fmt.Errorf("%w: %s asked for, this side's limit is %d; choose a smaller --size or raise serve's --max-memory", ErrTooLarge, asked(r.Bytes, s.taken), s.MaxMemory)
	}
	if err := Fits(s.Root, r); err != nil {
		return MemoryReply{}, err
	}
	if err := fabric.RemoveStale(); err != nil {
		return MemoryReply{}, err
	}
	if r.From != (Process{}) {
		s.meet(r.From)
		s.target = true
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
	s.keep(r.Buffer, sideBuffer{Buffer: b})
	s.taken += r.Bytes
	return MemoryReply{Ns: clock.Now() - t, From: Self()}, nil
}

// asked words a request for bytes beside those that are taken.
func asked(bytes, taken uint64) string {
	if taken == 0 {
		return fmt.Sprintf("%d bytes", bytes)
	}
	return fmt.Sprintf("%d bytes beside %d", bytes, taken)
}

func (s *Side) keep(number int, b sideBuffer) {
	if s.buffers == nil {
		s.buffers = map[int]sideBuffer{}
	}
	s.buffers[number] = b
}

// Lend gives the side a buffer of the caller's, who frees it once the side is
// closed: not after an error of Close that matches [ErrNotClosed].
func (s *Side) Lend(number int, b *mem.Buffer) error {
	if s.buffers[number].Buffer != nil {
		return fmt.Errorf("buffer %d exists already", number)
	}
	s.keep(number, sideBuffer{b, true})
	return nil
}

// release frees a buffer, unless it is lent or a library may still use it.
func (s *Side) release(number int) error {
	b := s.buffers[number]
	delete(s.buffers, number)
	if b.lent || s.held {
		return nil
	}
	s.taken -= uint64(b.Len())
	return b.Free()
}

// Open opens an endpoint.
func (s *Side) Open(ctx context.Context, r OpenRequest) (OpenReply, error) {
	if s.endpoints == nil {
		s.endpoints = map[int]*sideEndpoint{}
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
	s.endpoints[r.Endpoint] = &sideEndpoint{Endpoint: ep, watched: w, role: r.Config.Role, peers: r.Config.Peers}
	rep := OpenReply{Info: ep.Info(), Lanes: ep.Lanes(), Ns: clock.Now() - t}
	if _, err := w.claim(s.anothers(w)); err != nil {
		return OpenReply{}, errors.Join(err, s.shut(r.Endpoint, s.endpoints[r.Endpoint]))
	}
	return rep, nil
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

func (s *Side) endpoint(id int) (*sideEndpoint, error) {
	if ep := s.endpoints[id]; ep != nil {
		return ep, nil
	}
	return nil, fmt.Errorf("endpoint %d is not open", id)
}

// Register registers a buffer with an endpoint and returns its address.
func (s *Side) Register(_ context.Context, r RegisterRequest) (RegisterReply, error) {
	ep, err := s.endpoint(r.Endpoint)
	if err != nil {
		return RegisterReply{}, err
	}
	buf := s.buffers[r.Buffer].Buffer
	if buf == nil {
		return RegisterReply{}, fmt.Errorf("no buffer %d to register", r.Buffer)
	}
	t := clock.Now()
	if err := shortage(ep.Register(buf)); err != nil {
		return RegisterReply{}, err
	}
	ns := clock.Now() - t
	ep.buf = buf
	notes, err := ep.watched.check(s.anothers(ep.watched)) // before the peer, or anybody, hears of it
	if err != nil {
		return RegisterReply{}, err
	}
	a, err := ep.Address()
	return RegisterReply{Address: a, Ns: ns, Notes: notes}, err
}

// anothers reports whether a socket is one of another endpoint than that of w: what
// is opened in an endpoint's calls is its own, whatever is open meanwhile.
func (s *Side) anothers(w *watched) func(inode uint64) bool {
	return func(inode uint64) bool {
		for _, e := range s.endpoints {
			if e.watched != nil && e.watched != w && e.watched.own[inode] {
				return true
			}
		}
		return false
	}
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
	notes, err := ep.watched.check(s.anothers(ep.watched))
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
	if ep.buf == nil {
		return PlanReply{}, fmt.Errorf("endpoint %d has no buffer yet", r.Endpoint)
	}
	x, payload, err := r.extent()
	if err != nil {
		return PlanReply{}, err
	}
	if payload > int64(ep.buf.Len()) {
		return PlanReply{}, fmt.Errorf("the plan's %d bytes do not fit the buffer", payload)
	}
	if r.List != nil {
		if err := r.List.within(ep.role, uint64(ep.buf.Len())); err != nil {
			return PlanReply{}, err
		}
	}
	if s.plans[r.Plan] != nil {
		return PlanReply{}, fmt.Errorf("plan %d exists already", r.Plan)
	}
	ps, err := plans(x, r.Lanes, r.Chunk, r.Reuse)
	if err != nil {
		return PlanReply{}, err
	}
	if s.plans == nil {
		s.plans = map[int]*sidePlan{}
	}
	s.plans[r.Plan] = &sidePlan{endpoint: r.Endpoint, op: r.Op, payload: int(payload), lanes: ps}
	n := 0
	for _, p := range ps {
		n += p.Len()
	}
	return PlanReply{Ops: n}, nil
}

func (s *Side) plan(id int) (*sidePlan, *sideEndpoint, error) {
	p := s.plans[id]
	if p == nil {
		return nil, nil, fmt.Errorf("plan %d does not exist", id)
	}
	ep, err := s.endpoint(p.endpoint)
	return p, ep, err
}

// errNoPayload is of a plan by a list, whose transfers are unchecked.
var errNoPayload = errors.New("a plan by a list has no payload")

// checked is a plan that has a payload.
func (s *Side) checked(id int) (*sidePlan, *sideEndpoint, error) {
	p, ep, err := s.plan(id)
	if err == nil && p.payload == 0 {
		err = errNoPayload
	}
	return p, ep, err
}

// Fill writes the payload, as the side that the data comes from does.
func (s *Side) Fill(ctx context.Context, r PayloadRequest) (Done, error) {
	p, ep, err := s.checked(r.Plan)
	if err != nil {
		return Done{}, err
	}
	return Done{}, ep.buf.Fill(ctx, p.payload, r.Key)
}

// Poison overwrites what a transfer will write, so that nothing stale passes.
func (s *Side) Poison(ctx context.Context, r PayloadRequest) (Done, error) {
	p, ep, err := s.checked(r.Plan)
	if err != nil {
		return Done{}, err
	}
	return Done{}, ep.buf.Poison(ctx, p.payload)
}

// Check verifies the payload on the side that it went to. Wrong data is a
// reply, not an error.
func (s *Side) Check(ctx context.Context, r PayloadRequest) (CheckReply, error) {
	p, ep, err := s.checked(r.Plan)
	if err != nil {
		return CheckReply{}, err
	}
	for _, lane := range p.lanes {
		err := ep.buf.Check(ctx, spans(lane, p.op == loop.Read), r.Key)
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

// number is one that no buffer, endpoint or plan that took its number here has had.
func (s *Side) number() int {
	s.numbers++
	return s.numbers
}

// transfer runs a plan as the initiator.
func (s *Side) transfer(ctx context.Context, plan, iters int) ([]loop.Sample, error) {
	p, ep, err := s.plan(plan)
	if err != nil {
		return nil, err
	}
	return ep.Transfer(ctx, p.op, p.lanes, iters)
}

// Drop frees a plan, of which no transfer may be under way.
func (s *Side) Drop(_ context.Context, r DropRequest) (Done, error) {
	p, _, err := s.plan(r.Plan)
	if err != nil {
		return Done{}, err
	}
	s.freePlans(r.Plan, p)
	return Done{}, nil
}

// Shut closes one endpoint and frees its plans.
func (s *Side) Shut(_ context.Context, r EndpointRequest) (Done, error) {
	ep, err := s.endpoint(r.Endpoint)
	if err != nil {
		return Done{}, err
	}
	err = s.shut(r.Endpoint, ep)
	for id, p := range s.plans {
		if p.endpoint == r.Endpoint {
			s.freePlans(id, p)
		}
	}
	return Done{}, err
}

func (s *Side) shut(id int, ep *sideEndpoint) error {
	delete(s.endpoints, id)
	err := ep.Close()
	s.held = s.held || errors.Is(err, ErrNotClosed)
	ep.watched.end()
	return err
}

// freePlans frees a plan's lanes, unless a library may still read them.
func (s *Side) freePlans(id int, p *sidePlan) {
	if !s.held {
		freePlans(p.lanes)
	}
	delete(s.plans, id)
}

// Close closes all endpoints, then frees plans and buffers, unless an endpoint did
// not close and its library may still use them; a target sweeps then. It may be
// called twice.
func (s *Side) Close() error {
	var errs []error
	for id, ep := range s.endpoints {
		errs = append(errs, s.shut(id, ep))
	}
	for id, p := range s.plans {
		s.freePlans(id, p)
	}
	for number := range s.buffers {
		errs = append(errs, s.release(number))
	}
	if s.other != nil {
		s.other.held = s.other.held || s.held
		errs = append(errs, s.other.Close())
		s.other = nil
	}
	if s.target {
		errs = append(errs, s.Sweep())
	}
	return errors.Join(errs...)
}
