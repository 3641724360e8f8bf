// Package loop is the measuring loop that every native transport runs in: it
// posts a plan's pieces, polls them to completion, proves landing and takes the
// clock, all in C and in one call a batch of transfers.
//
// A transport package (fabric, ucx) creates its endpoint objects in C, fills a
// table of functions (struct xb_ops in loop.h) and hands both to [NewGroup] as a
// [Lane]. From [Group.Start] to [Group.Close] each lane belongs to its own thread;
// the transport's Go code must not touch it meanwhile. Another package can bring
// lanes of its own: loop.h says what each function of the table must do.
//
// Pieces and plans are offsets into the [Region] of either side; the loop holds them
// within the regions before it posts anything. It has no other policy: depth, poll
// mode and timeout are the caller's.
package loop

/*
#include <stdlib.h>
#include "group.h"
*/
import "C"

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Op is what one operation does, seen from the initiator.
type Op int

// The numbers are those of enum xb_op.
const (
	Read  Op = C.XB_READ  // the initiator pulls: remote to local, as vLLM's NixlConnector does
	Write Op = C.XB_WRITE // the initiator pushes into the target's memory
	Send  Op = C.XB_SEND  // two-sided: the target posted receives
)

// String is "read", "write" or "send".
func (o Op) String() string {
	switch o {
	case Read:
		return "read"
	case Write:
		return "write"
	case Send:
		return "send"
	}
	return fmt.Sprintf("op(%d)", int(o))
}

// ParseOp reads the words of [Op.String].
func ParseOp(s string) (Op, error) {
	for _, o := range []Op{Read, Write, Send} {
		if s == o.String() {
			return o, nil
		}
	}
	return 0, fmt.Errorf("op %q: want read, write or send", s)
}

// Poll is how a lane waits for its queues.
type Poll int

// Spinning has the lowest latency when every poller owns a core; on fewer cores
// it starves its peer, and yielding is faster.
const (
	Spin  Poll = C.XB_SPIN
	Yield Poll = C.XB_YIELD
)

// String is "spin" or "yield".
func (p Poll) String() string {
	if p == Spin {
		return "spin"
	}
	return "yield"
}

// Piece is one operation: byte offsets from the bases of the initiator's
// (Local) and the target's (Remote) region, and a length in bytes. Its layout
// is that of struct xb_piece.
type Piece struct{ Local, Remote, Len uint64 }

// Within is nil for a piece that lies within regions of own and peer bytes, here and
// at the peer; else an error that matches [ErrOutside].
func (p Piece) Within(own, peer uint64) error {
	if p.Len <= own && p.Local <= own-p.Len && p.Len <= peer && p.Remote <= peer-p.Len {
		return nil
	}
	return fmt.Errorf("a piece (local offset %d, remote offset %d, %d bytes), regions of %d bytes here and %d at the peer: %w",
		p.Local, p.Remote, p.Len, own, peer, ErrOutside)
}

// Sample holds the times of one iteration over all lanes, in ns on
// CLOCK_MONOTONIC_RAW, and its counts.
type Sample struct {
	BeginNs  int64 // before the first post
	PostedNs int64 // after the last post
	LocalNs  int64 // last local completion seen
	DoneNs   int64 // landing proven
	Bytes    uint64
	Ops      uint64
	EAgain   uint64 // posts refused and tried again
	Polls    uint64
}

// Post is the time to hand all operations to the library.
func (s Sample) Post() time.Duration { return time.Duration(s.PostedNs - s.BeginNs) }

// Local is the time until the last local completion; for WRITE and SEND it is
// not a transfer time, since data may still be on its way.
func (s Sample) Local() time.Duration { return time.Duration(s.LocalNs - s.BeginNs) }

// Total is the transfer time: until the data is known to have landed.
func (s Sample) Total() time.Duration { return time.Duration(s.DoneNs - s.BeginNs) }

// Join makes s that of another lane as well, which ran the same iteration as t: the
// first begin, the last of the other times, the sum of the counts.
func (s *Sample) Join(t Sample) {
	s.BeginNs = min(s.BeginNs, t.BeginNs)
	s.PostedNs = max(s.PostedNs, t.PostedNs)
	s.LocalNs = max(s.LocalNs, t.LocalNs)
	s.DoneNs = max(s.DoneNs, t.DoneNs)
	s.Bytes += t.Bytes
	s.Ops += t.Ops
	s.EAgain += t.EAgain
	s.Polls += t.Polls
}

// Plan is a list of pieces in C memory, read by a lane's thread.
type Plan struct {
	pieces        *C.struct_xb_piece
	n             int
	bytes         uint64
	local, remote uint64 // where the furthest pieces end
}

// NewPlan copies pieces to C memory; the caller frees it with [Plan.Free] once
// no group uses it. Its error matches [ErrOutside] where a piece goes beyond what
// 64 bits can count.
func NewPlan(pieces []Piece) (*Plan, error) {
	p := &Plan{n: len(pieces)}
	if len(pieces) == 0 {
		return p, nil
	}
	for i, q := range pieces {
		if q.Local+q.Len < q.Local || q.Remote+q.Len < q.Remote {
			return nil, fmt.Errorf("piece %d (local offset %d, remote offset %d, %d bytes): %w", i, q.Local, q.Remote, q.Len, ErrOutside)
		}
		p.bytes += q.Len
		p.local, p.remote = max(p.local, q.Local+q.Len), max(p.remote, q.Remote+q.Len)
	}
	p.pieces = (*C.struct_xb_piece)(C.malloc(C.size_t(len(pieces)) * C.sizeof_struct_xb_piece))
	if p.pieces == nil {
		return nil, fmt.Errorf("a plan of %d pieces: %w", len(pieces), syscall.ENOMEM)
	}
	copy(unsafe.Slice((*Piece)(unsafe.Pointer(p.pieces)), len(pieces)), pieces)
	return p, nil
}

// Len is the number of pieces.
func (p *Plan) Len() int { return p.n }

// Bytes is the sum of the pieces' lengths.
func (p *Plan) Bytes() uint64 { return p.bytes }

// Pieces is a view of the plan's memory to read, valid until Free.
func (p *Plan) Pieces() []Piece {
	return unsafe.Slice((*Piece)(unsafe.Pointer(p.pieces)), p.n)
}

// Free releases the plan's memory; it may be called twice.
func (p *Plan) Free() {
	C.free(unsafe.Pointer(p.pieces))
	*p = Plan{}
}

// Lane is a transport's endpoint object and its table, a struct xb_ops.
type Lane struct {
	Impl, Ops unsafe.Pointer
	// Own and Peer are the bytes of this side's and of the peer's region. No
	// operation goes beyond them: see [ErrOutside].
	Own, Peer uint64
}

// Config sets how a group waits.
type Config struct {
	Poll Poll
	// Timeout ends a wait in which nothing moved for that long; 0 is
	// [DefaultTimeout].
	Timeout time.Duration
}

// DefaultTimeout is the timeout of a [Config] that names none.
const DefaultTimeout = 10 * time.Second

// Errors that a batch can end with; the text says what was waited for.
var (
	ErrTimeout = errors.New("no progress within the timeout")
	ErrStopped = errors.New("stopped")
	// ErrStuck: a lane's thread does not return from a call of its library.
	ErrStuck = errors.New("the library does not return from a call")
	// ErrOutside: a piece is not within its region. Nothing was posted.
	ErrOutside = errors.New("a piece is outside its region")
	// ErrClosed: the group is closed, or was never started.
	ErrClosed = errors.New("the group's lanes do not run")
)

// Error is a failed batch: Words are the transport library's own.
type Error struct {
	Words string
	errno syscall.Errno
}

func (e *Error) Error() string {
	switch e.errno {
	case syscall.ETIMEDOUT:
		return ErrTimeout.Error() + ": " + e.Words
	case syscall.ECANCELED:
		return e.Words
	}
	return e.Words
}

// Is matches [ErrTimeout] and [ErrStopped].
func (e *Error) Is(target error) bool {
	return target == ErrTimeout && e.errno == syscall.ETIMEDOUT ||
		target == ErrStopped && e.errno == syscall.ECANCELED
}

// Group is a set of lanes that transfer together. Its methods are for one
// goroutine at a time, except Stop and Fault.
type Group struct {
	lanes   []Lane
	results *C.struct_xb_sample
	room    int
	running bool // from Start to Close

	mu sync.Mutex // guards g against Close during Stop and Fault
	g  *C.struct_xb_group
}

// errLen holds a library's words.
const errLen = 512

// NewGroup makes a group of lanes; their threads begin with Start.
func NewGroup(lanes []Lane, cfg Config) (*Group, error) {
	switch {
	case len(lanes) == 0:
		return nil, errors.New("a group needs a lane")
	case len(lanes) > math.MaxInt32:
		return nil, fmt.Errorf("a group of %d lanes: at most %d", len(lanes), math.MaxInt32)
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("a timeout of %v", cfg.Timeout)
	}
	if i := slices.IndexFunc(lanes, func(l Lane) bool { return l.Impl == nil || l.Ops == nil }); i >= 0 {
		return nil, fmt.Errorf("lane %d has no endpoint: is it closed?", i)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	g := C.xb_group_new(C.int(len(lanes)), C.int(cfg.Poll), C.int64_t(cfg.Timeout))
	if g == nil {
		return nil, fmt.Errorf("a group of %d lanes: %w", len(lanes), syscall.ENOMEM)
	}
	for i, l := range lanes {
		C.xb_group_set(g, C.int(i), l.Impl, l.Ops)
	}
	return &Group{lanes: slices.Clone(lanes), g: g}, nil
}

// Lanes is how many lanes the group has.
func (g *Group) Lanes() int { return len(g.lanes) }

// Start begins one thread a lane, which progresses its queues until Close.
func (g *Group) Start() error {
	if g.g == nil || g.running {
		return fmt.Errorf("starting a group that runs or is closed: %w", ErrClosed)
	}
	if rc := C.xb_group_start(g.g); rc != 0 {
		return fmt.Errorf("starting a lane's thread: %w", syscall.Errno(rc))
	}
	g.running = true
	return nil
}

// Close ends the threads; after it the lanes belong to their transport again.
// After [ErrStuck] they do not: lanes, plans and their memory must stay as they
// are until the process ends. It may be called twice.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.g == nil {
		return nil
	}
	rc := C.xb_group_free(g.g)
	results := g.results
	g.g, g.results, g.running = nil, nil, false
	if rc != 0 {
		return ErrStuck
	}
	C.free(unsafe.Pointer(results))
	return nil
}

// Stop ends the batch in hand, and every later one, with [ErrStopped].
func (g *Group) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.g != nil {
		C.xb_group_stop(g.g, 1)
	}
}

// Fault is the error of a lane that failed outside a batch, or nil.
func (g *Group) Fault() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.g == nil {
		return nil
	}
	var words [errLen]C.char
	rc := C.xb_group_fault(g.g, &words[0], errLen)
	return batchError(rc, &words)
}

// Hot makes the lanes poll without rest, as a target must while its peer
// transfers; false lets them rest between polls (about a poll every ms).
func (g *Group) Hot(hot bool) {
	if g.running {
		C.xb_group_hot(g.g, C.int(btoi(hot)))
	}
}

// Transfer runs iters transfers back to back, each lane its own plan with at
// most depth operations in flight, and returns the samples of those that were
// completed; with an error these may be fewer. Cancelling ctx stops it.
func (g *Group) Transfer(ctx context.Context, op Op, plans []*Plan, iters, depth int) ([]Sample, error) {
	within := func(l Lane, p Piece) bool {
		return p.Local+p.Len <= l.Own && (op == Send || p.Remote+p.Len <= l.Peer)
	}
	if err := g.plan(plans, within); err != nil {
		return nil, err
	}
	if depth < 1 || depth > math.MaxUint32 {
		return nil, fmt.Errorf("depth %d: want 1 to %d", depth, math.MaxUint32)
	}
	if err := g.iterations(iters); err != nil {
		return nil, err
	}
	if need := len(g.lanes) * iters; g.room < need {
		C.free(unsafe.Pointer(g.results))
		g.results = (*C.struct_xb_sample)(C.calloc(C.size_t(need), C.sizeof_struct_xb_sample))
		if g.results == nil {
			g.room = 0
			return nil, fmt.Errorf("room for %d samples: %w", need, syscall.ENOMEM)
		}
		g.room = need
	}
	defer context.AfterFunc(ctx, g.Stop)()
	var words [errLen]C.char
	var complete C.uint32_t
	rc := C.xb_group_transfer(g.g, C.int(op), C.uint32_t(iters), C.uint32_t(depth),
		g.results, &complete, &words[0], errLen)
	return merge(unsafe.Slice((*laneSample)(unsafe.Pointer(g.results)), len(g.lanes)*iters),
		len(g.lanes), iters, int(complete)), cause(ctx, batchError(rc, &words))
}

// Arm makes a target ready for iters transfers of its plans: receives are
// posted, counted writes expected. It returns once the first can begin.
func (g *Group) Arm(ctx context.Context, op Op, plans []*Plan, iters int) error {
	if err := g.plan(plans, func(l Lane, p Piece) bool { return p.Remote+p.Len <= l.Own }); err != nil {
		return err
	}
	if err := g.iterations(iters); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, g.Stop)()
	var words [errLen]C.char
	rc := C.xb_group_arm(g.g, C.int(op), C.uint32_t(iters), &words[0], errLen)
	return cause(ctx, batchError(rc, &words))
}

// Settle waits until all armed transfers arrived and were acknowledged, and
// says how many did.
func (g *Group) Settle(ctx context.Context) (arrived int, err error) {
	if !g.running {
		return 0, ErrClosed
	}
	defer context.AfterFunc(ctx, g.Stop)()
	var words [errLen]C.char
	var n C.uint32_t
	rc := C.xb_group_settle(g.g, &n, &words[0], errLen)
	return int(n), cause(ctx, batchError(rc, &words))
}

// iterations holds iters within what the loop counts and memory can hold.
func (g *Group) iterations(iters int) error {
	if most := math.MaxInt32 / len(g.lanes); iters < 1 || iters > most {
		return fmt.Errorf("iters %d on %d lanes: want 1 to %d", iters, len(g.lanes), most)
	}
	return nil
}

// plan gives each lane its plan, which is within the lane's regions.
func (g *Group) plan(plans []*Plan, within func(Lane, Piece) bool) error {
	if !g.running {
		return ErrClosed
	}
	if C.xb_group_stuck(g.g) != 0 {
		return ErrStuck // that lane may still use its plan and its samples
	}
	if len(plans) != len(g.lanes) {
		return fmt.Errorf("%d plans for %d lanes", len(plans), len(g.lanes))
	}
	for i, p := range plans {
		if p == nil {
			return fmt.Errorf("lane %d has no plan", i)
		}
		l := g.lanes[i]
		if !within(l, Piece{Local: p.local, Remote: p.remote}) {
			j := slices.IndexFunc(p.Pieces(), func(q Piece) bool { return !within(l, q) })
			q := p.Pieces()[j]
			return fmt.Errorf("piece %d of lane %d (local offset %d, remote offset %d, %d bytes), regions of %d bytes here and %d at the peer: %w",
				j, i, q.Local, q.Remote, q.Len, l.Own, l.Peer, ErrOutside)
		}
		C.xb_group_plan(g.g, C.int(i), p.pieces, C.uint64_t(p.n))
	}
	return nil
}

// laneSample is struct xb_sample.
type laneSample Sample

// merge joins the lanes of each completed iteration.
func merge(in []laneSample, lanes, iters, complete int) []Sample {
	out := make([]Sample, complete)
	for i := range out {
		s := Sample(in[i])
		for l := 1; l < lanes; l++ {
			s.Join(Sample(in[l*iters+i]))
		}
		out[i] = s
	}
	return out
}

func batchError(rc C.int, words *[errLen]C.char) error {
	if rc == 0 {
		return nil
	}
	return &Error{Words: C.GoString(&words[0]), errno: syscall.Errno(rc)}
}

// cause prefers the context's own reason over the stop that it led to.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
