package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Spec is one condition to measure.
type Spec struct {
	// Transport indexes Run.Transports.
	Transport int
	Op        loop.Op
	KV        kv.Request
	// Pieces cuts a contiguous transfer into that many descriptors; 0: one.
	Pieces int
	// Ceiling marks a row that others are compared to.
	Ceiling bool
}

// Schedule says how often conditions run. Each block runs every condition
// once, in random order.
type Schedule struct {
	Blocks    int           // wanted
	MinBlocks int           // run even when the budget is over
	Budget    time.Duration // for all blocks; 0: none
	// RoundRobin keeps the conditions in order, for debugging an order effect.
	RoundRobin bool
	// Iterations a block; 0: as many as take about BatchTime, at least one.
	Iterations int
	// Enough, when set, ends the run after a block: a declared sequential
	// stop. It is asked once MinBlocks are done.
	Enough func(samples []record.Sample) bool
	// Skip, when set, names the batches that an earlier run has done already.
	Skip func(condition, block int) bool
}

// batchTime is how long the transfers of one block should take together, so
// that a short transfer is not a single reading; maxIters bounds them.
const (
	batchTime = 20 * time.Millisecond
	maxIters  = 500
)

// Progress is where a run stands.
type Progress struct {
	Condition   record.Condition // that runs next
	Block       int
	Blocks      int
	Done, Total int     // batches
	BytesPerSec float64 // of the condition so far
	Elapsed     time.Duration
	Left        time.Duration // estimate; 0: unknown
}

// Run measures conditions over transports between a local side and a peer. The
// caller closes both sides.
type Run struct {
	Local      *Side
	Peer       Peer
	Transports []Config // Role is set by the run
	Labels     []string // of the transports in the record, unique
	Specs      []Spec
	Schedule   Schedule
	Memory     MemoryRequest // Bytes is computed
	PeerMemory MemoryRequest
	Seed       uint64
	SkipVerify bool
	// Reuse lays all pieces of a lane over one piece of memory, as
	// ucx_perftest and iperf3 work: for comparisons with them, without checks.
	Reuse bool
	Start int64 // clock.Now() at the record's start
	// Before holds the samples of a record that this run goes on with.
	Before []record.Sample

	// Write takes each line of the record; its error ends the run.
	Write func(record.Line) error
	// Prepare, when set, is called once both sides have their buffers and
	// before transports are opened; it may change them, after probes.
	Prepare func(context.Context) error
	// Progress, when set, is told before each batch.
	Progress func(Progress)

	conditions []record.Condition
	opened     []*opened
	probes     int // opened so far, and plans made for them
	probePlans int
	batch      uint64 // batches so far: each has a payload of its own
	samples    []record.Sample
	held       []record.Line // of a condition that is not written yet
	holding    bool
}

type opened struct {
	cfg      Config
	label    string
	local    OpenReply
	peer     OpenReply
	reg      RegisterReply
	peerReg  RegisterReply
	conn     ConnectReply
	alone    bool // no peer: memcpy
	coldDone bool
}

// ErrTransfer is matched by the error of a transfer that did not complete.
var ErrTransfer = errors.New("transfer failed")

// ErrData is matched by the result of a run in which a data check failed.
var ErrData = errors.New("data check failed")

// Do measures. Data checks that fail do not end it; they are its result at the
// end, an error that matches [ErrData].
func (r *Run) Do(ctx context.Context) error {
	memNs, peerNs, err := r.allocate(ctx)
	if err != nil {
		return err
	}
	if r.Prepare != nil {
		if err := r.Prepare(ctx); err != nil {
			return err
		}
	}
	for i := range r.Transports {
		o, err := r.open(ctx, i, r.Transports[i], r.Labels[i])
		if err != nil {
			return err
		}
		r.opened = append(r.opened, o)
	}
	if err := r.plan(ctx); err != nil {
		return err
	}
	for _, s := range r.Before {
		if s.Phase == record.PhaseMeasure {
			r.samples = append(r.samples, s)
		}
	}
	failed := 0
	iters := make([]int, len(r.Specs))
	for c := range r.Specs {
		n, bad, err := r.describeFirst(ctx, c, memNs, peerNs)
		if err != nil {
			return err
		}
		iters[c] = n
		failed += bad
	}
	// Libraries connect with the first transfer.
	if err := r.seal(ctx); err != nil {
		return err
	}
	bad, err := r.blocks(ctx, iters)
	if err != nil {
		return err
	}
	if failed += bad; failed > 0 {
		return fmt.Errorf("%w in %d of %d batches; the record's events name the bytes", ErrData, failed, r.batch)
	}
	return nil
}

// Conditions are the run's conditions, complete once Do has planned them.
func (r *Run) Conditions() []record.Condition { return r.conditions }

func (r *Run) event(level, format string, args ...any) error {
	return r.Write(record.Event{TimeNs: clock.Now() - r.Start, Level: level, Message: fmt.Sprintf(format, args...)})
}

// allocate gives both sides a buffer that holds the largest condition. The peer
// is asked first: it refuses before this side has spent its time.
func (r *Run) allocate(ctx context.Context) (local, peer int64, err error) {
	same := len(r.Transports) > 0 && r.Transports[0].SameHost
	if r.Memory, r.PeerMemory, err = Requests(r.Memory, r.PeerMemory, r.Specs, r.Transports, same); err != nil {
		return 0, 0, err
	}
	r.PeerMemory.From = Self()
	p, err := r.Peer.Memory(ctx, r.PeerMemory)
	if err != nil {
		return 0, 0, fmt.Errorf("peer: %w", err)
	}
	r.Local.Their = p.From
	r.Memory.Others = 0 // allocated by now
	m, err := r.Local.Memory(ctx, r.Memory)
	if err != nil {
		return 0, 0, err
	}
	return m.Ns, p.Ns, nil
}

// open opens a transport as endpoint i of both sides.
func (r *Run) open(ctx context.Context, i int, cfg Config, label string) (*opened, error) {
	o := &opened{cfg: cfg, label: label}
	o.alone = o.cfg.Provider == "memcpy"
	o.cfg.Role = Initiator
	target := o.cfg
	target.Role = Target
	var err error
	if !o.alone {
		if err = r.peers(ctx, &o.cfg, &target); err != nil {
			return nil, err
		}
	}
	if o.local, err = r.Local.Open(ctx, OpenRequest{i, o.cfg}); err != nil {
		return nil, err
	}
	if o.reg, err = r.Local.Register(ctx, EndpointRequest{i}); err != nil {
		return nil, err
	}
	if o.alone {
		o.conn, err = r.Local.Connect(ctx, ConnectRequest{Endpoint: i})
		return o, err
	}
	if o.peer, err = r.Peer.Open(ctx, OpenRequest{i, target}); err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	if o.local.Lanes != o.peer.Lanes {
		return nil, fmt.Errorf("%w: %s has %d lanes here and %d on the peer; set --rails to the smaller number of NICs",
			ErrUnavailable, o.cfg.Provider, o.local.Lanes, o.peer.Lanes)
	}
	if o.local.Info.Version != o.peer.Info.Version {
		if err := r.event(record.Warning, "%s: library version %s here, %s on the peer", o.cfg.Provider, o.local.Info.Version, o.peer.Info.Version); err != nil {
			return nil, err
		}
	}
	if o.peerReg, err = r.Peer.Register(ctx, EndpointRequest{i}); err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	// The target connects first: from then on it progresses its queues, and
	// the initiator's first operation is answered.
	peerConn, err := r.Peer.Connect(ctx, ConnectRequest{i, o.reg.Address})
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	if o.conn, err = r.Local.Connect(ctx, ConnectRequest{i, o.peerReg.Address}); err != nil {
		return nil, err
	}
	return o, errors.Join(r.notes("", o.reg.Notes, o.conn.Notes), r.notes("peer: ", o.peerReg.Notes, peerConn.Notes))
}

// notes writes what a side said of an endpoint as events.
func (r *Run) notes(side string, lists ...[]string) error {
	for _, n := range slices.Concat(lists...) {
		if err := r.event(record.Warning, "%s%s", side, n); err != nil {
			return err
		}
	}
	return nil
}

// chunk is the longest piece of op that both sides of a transport take; 0 is
// any.
func (o *opened) chunk(op loop.Op) uint64 {
	least := uint64(0)
	for _, i := range []Info{o.local.Info, o.peer.Info} {
		for _, n := range []uint64{i.Chunk, i.MaxPiece[op.String()]} {
			if n != 0 && (least == 0 || n < least) {
				least = n
			}
		}
	}
	return least
}

// pieceBytes is the length of the pieces of a contiguous transfer that is cut.
func pieceBytes(s Spec) (uint64, error) {
	t, err := kv.New(s.KV)
	if err != nil {
		return 0, err
	}
	n := uint64(s.Pieces)
	return (uint64(t.Bytes) + n - 1) / n, nil
}

// layOut makes plan id of both sides, of s over endpoint.
func (r *Run) layOut(ctx context.Context, o *opened, endpoint, id int, s Spec) (PlanReply, error) {
	req := PlanRequest{Plan: id, Endpoint: endpoint, Op: s.Op, KV: s.KV, Lanes: o.local.Lanes, Chunk: o.chunk(s.Op), Reuse: r.Reuse}
	if s.Pieces > 0 {
		piece, err := pieceBytes(s)
		if err != nil {
			return PlanReply{}, err
		}
		if req.Chunk == 0 || piece < req.Chunk {
			req.Chunk = piece
		}
	}
	rep, err := r.Local.Plan(ctx, req)
	if err != nil || o.alone {
		return rep, err
	}
	if _, err := r.Peer.Plan(ctx, req); err != nil {
		return PlanReply{}, fmt.Errorf("peer: %w", err)
	}
	return rep, nil
}

func (r *Run) plan(ctx context.Context) error {
	for id, s := range r.Specs {
		o := r.opened[s.Transport]
		rep, err := r.layOut(ctx, o, s.Transport, id, s)
		if err != nil {
			return err
		}
		t, err := kv.New(s.KV)
		if err != nil {
			return err
		}
		asked := uint64(s.KV.Bytes)
		if round, _ := t.Rounding(); asked == 0 {
			asked = uint64(round.AskedTokens * int64(t.Rank.BytesPerToken()))
		}
		info := o.local.Info
		info.Simulated = info.Simulated || o.peer.Info.Simulated
		r.conditions = append(r.conditions, record.Condition{
			ID: id, Provider: o.label, API: info.API, Op: s.Op.String(),
			Name:   fmt.Sprintf("%s %s %s %d", o.label, s.Op, t.Shape, t.Bytes),
			Memory: string(r.Memory.Kind), PeerMem: string(r.PeerMemory.Kind),
			Shape: string(t.Shape), Layout: string(t.Layout), Model: t.Model.Name, TP: t.TensorParallel,
			Tokens: t.Tokens, Block: t.BlockTokens, Asked: asked, Bytes: uint64(t.Bytes),
			Descs: max(t.Count(), s.Pieces), Ops: rep.Ops, Ceiling: s.Ceiling,
			Landing: info.Landing[s.Op.String()], Transport: info, Simulated: info.Simulated,
		})
	}
	return nil
}

// describeFirst runs a condition's first transfer and then writes the condition,
// its lines after it: some libraries know what they use only once they did.
func (r *Run) describeFirst(ctx context.Context, c int, memNs, peerNs int64) (iters, failed int, err error) {
	r.held, r.holding = nil, true
	iters, failed, err = r.first(ctx, c, memNs, peerNs)
	r.holding = false
	o, cond := r.opened[r.Specs[c].Transport], &r.conditions[c]
	if info, ierr := r.Local.info(r.Specs[c].Transport); ierr == nil {
		info.Simulated = info.Simulated || o.peer.Info.Simulated
		cond.Transport, cond.Landing = info, info.Landing[cond.Op]
	}
	for _, l := range append([]record.Line{*cond}, r.held...) {
		if werr := r.Write(l); werr != nil {
			return 0, 0, errors.Join(err, werr)
		}
	}
	return iters, failed, err
}

// put writes a line, or keeps it until its condition is known.
func (r *Run) put(l record.Line) error {
	if r.holding {
		r.held = append(r.held, l)
		return nil
	}
	return r.Write(l)
}

// first runs a condition's first transfer, which is never part of its figures:
// the transport's cold one, or a warm-up. It returns how many iterations a
// block should have.
func (r *Run) first(ctx context.Context, c int, memNs, peerNs int64) (iters, failed int, err error) {
	o, cond := r.opened[r.Specs[c].Transport], r.conditions[c]
	phase := record.PhaseWarmup
	if !o.coldDone {
		phase = record.PhaseCold
	}
	r.tell(c, 0, 0, 0)
	ss, failed, err := r.runBatch(ctx, c, -1, 0, 1, phase)
	if err != nil {
		return 0, 0, err
	}
	if !o.coldDone {
		o.coldDone = true
		s := ss[0]
		cold := record.Cold{
			Provider: o.label, Condition: c,
			OpenNs: o.local.Ns, RegisterNs: o.reg.Ns, RegisterBytes: r.Memory.Bytes, ConnectNs: o.conn.Ns,
			FirstNs: s.TotalNs, FirstBytes: s.Bytes, FirstEAgain: s.EAgain, FirstVerified: s.Verified != nil && *s.Verified,
			PeerOpenNs: o.peer.Ns, PeerRegisterNs: o.peerReg.Ns, MemoryNs: memNs, PeerMemoryNs: peerNs,
			Simulated: cond.Simulated,
		}
		if err := r.put(cold); err != nil {
			return 0, 0, err
		}
		// Some more, warm: the cold time, or that of a single one, would make the
		// blocks too short, and shorter than those of a row they are compared to.
		if cond.Bytes < 1<<20 {
			if ss, _, err = r.runBatch(ctx, c, -1, 0, 5, record.PhaseWarmup); err != nil {
				return 0, 0, err
			}
		}
	}
	if r.Schedule.Iterations > 0 {
		return r.Schedule.Iterations, failed, nil
	}
	fastest := ss[0].TotalNs
	for _, s := range ss {
		fastest = min(fastest, s.TotalNs)
	}
	n := int(min(maxIters, max(1, int64(batchTime)/max(1, fastest))))
	if n == 2 {
		n = 3 // the first of a block is often slow, and the median of two holds it
	}
	return n, failed, nil
}

func (r *Run) blocks(ctx context.Context, iters []int) (failed int, err error) {
	sch := r.Schedule
	began := clock.Now()
	n := len(r.Specs)
	for b := 0; b < sch.Blocks; b++ {
		order := stats.Order(r.Seed, b, n)
		for place := range n {
			c := place
			if !sch.RoundRobin {
				c = order[place]
			}
			if sch.Skip != nil && sch.Skip(c, b) {
				continue
			}
			r.tell(c, b, b*n+place, time.Duration(clock.Now()-began))
			_, bad, err := r.runBatch(ctx, c, b, place, iters[c], record.PhaseMeasure)
			if err != nil {
				return failed, err
			}
			failed += bad
		}
		if b+1 < sch.MinBlocks {
			continue
		}
		spent := clock.Now() - began
		// The next block would take about as long as the mean one.
		if sch.Budget > 0 && spent+spent/int64(b+1) > int64(sch.Budget) {
			break
		}
		if sch.Enough != nil && sch.Enough(r.samples) {
			break
		}
	}
	return failed, nil
}

// tell reports progress before a batch.
func (r *Run) tell(c, block, done int, spent time.Duration) {
	if r.Progress == nil {
		return
	}
	p := Progress{Condition: r.conditions[c], Block: block, Blocks: r.Schedule.Blocks,
		Done: done, Total: r.Schedule.Blocks * len(r.Specs), Elapsed: spent}
	if done > 0 {
		p.Left = spent / time.Duration(done) * time.Duration(p.Total-done)
		if b := r.Schedule.Budget; b > 0 && done >= r.Schedule.MinBlocks*len(r.Specs) {
			p.Left = max(0, min(p.Left, b-spent))
		}
	}
	var bytes uint64
	var ns int64
	for i := len(r.samples) - 1; i >= 0; i-- {
		if s := r.samples[i]; s.Condition == c {
			bytes, ns = bytes+s.Bytes, ns+s.TotalNs
		}
	}
	if ns > 0 {
		p.BytesPerSec = float64(bytes) / float64(ns) * 1e9
	}
	r.Progress(p)
}

// runBatch runs one condition iters times with a payload of its own, checks the
// data and writes the lines. Outside the clock are: payload, poison, arming,
// usage and check.
func (r *Run) runBatch(ctx context.Context, c, block, place, iters int, phase string) (out []record.Sample, failed int, err error) {
	spec, cond, o := r.Specs[c], r.conditions[c], r.opened[r.Specs[c].Transport]
	r.batch++
	pay := PayloadRequest{Plan: c, Key: mem.Key(r.Seed, r.batch)}
	if !r.SkipVerify {
		if err := r.prepare(ctx, spec.Op, o, pay); err != nil {
			return nil, 0, err
		}
	}
	var peerBefore, peerAfter UsageReply
	if !o.alone {
		if peerBefore, err = r.Peer.Arm(ctx, ArmRequest{c, iters}); err != nil {
			return nil, 0, fmt.Errorf("peer: %w", err)
		}
	}
	before, err := r.Local.Root.Usage()
	if err != nil {
		return nil, 0, err
	}
	ss, terr := r.Local.transfer(ctx, c, iters)
	after, err := r.Local.Root.Usage()
	if err != nil {
		return nil, 0, err
	}
	if terr != nil {
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrTransfer, cond.Name, errors.Join(terr, r.peerFault(ctx, o, c)))
	}
	if !o.alone {
		if peerAfter, err = r.Peer.Settle(ctx, SettleRequest{c}); err != nil {
			return nil, 0, fmt.Errorf("peer: %w", err)
		}
	}
	var verified *bool
	if !r.SkipVerify {
		ok, err := r.check(ctx, spec.Op, o, pay, c)
		if err != nil {
			return nil, 0, err
		}
		verified = &ok
		if !ok {
			failed = 1
		}
	}
	per := int64(len(ss))
	for i, s := range ss {
		out = append(out, record.Sample{
			Condition: c, Block: block, Order: place, Iteration: i, Phase: phase,
			BeginNs: s.BeginNs - r.Start, PostNs: int64(s.Post()), LocalNs: int64(s.Local()), TotalNs: int64(s.Total()),
			Bytes: s.Bytes, Ops: s.Ops, EAgain: s.EAgain, Polls: s.Polls, Verified: verified,
			CPUNs: (after.CPUNs - before.CPUNs) / per, PeerCPUNs: (peerAfter.Usage.CPUNs - peerBefore.Usage.CPUNs) / per,
			Simulated: cond.Simulated,
		})
	}
	for _, s := range out {
		if err := r.put(s); err != nil {
			return nil, 0, err
		}
	}
	if phase == record.PhaseMeasure {
		r.samples = append(r.samples, out...)
	}
	return out, failed, r.put(record.Path{
		Condition: c, Block: block, Phase: phase, PayloadBytes: cond.Bytes * uint64(len(ss)),
		Counters:  append(host.Diff("initiator", before, after), host.Diff("target", peerBefore.Usage, peerAfter.Usage)...),
		Voluntary: after.Voluntary - before.Voluntary, Involuntary: after.Involuntary - before.Involuntary,
		PeerVoluntary:   peerAfter.Usage.Voluntary - peerBefore.Usage.Voluntary,
		PeerInvoluntary: peerAfter.Usage.Involuntary - peerBefore.Usage.Involuntary,
		Simulated:       cond.Simulated,
	})
}

// peerFault is what went wrong on the peer, when a transfer failed here: often
// the reason for it. It does not wait for long.
func (r *Run) peerFault(ctx context.Context, o *opened, c int) error {
	if o.alone || ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := r.Peer.Settle(ctx, SettleRequest{c})
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("peer: %w", err)
}

// prepare puts the payload where the data comes from and poison where it goes,
// both sides at once.
func (r *Run) prepare(ctx context.Context, op loop.Op, o *opened, pay PayloadRequest) error {
	if o.alone {
		if _, err := r.Local.Fill(ctx, pay); err != nil {
			return err
		}
		_, err := r.Local.Poison(ctx, pay)
		return err
	}
	local, peer := r.Local.Fill, r.Peer.Poison
	if op == loop.Read {
		local, peer = r.Local.Poison, r.Peer.Fill
	}
	theirs := make(chan error, 1)
	go func() {
		_, err := peer(ctx, pay)
		theirs <- err
	}()
	_, err := local(ctx, pay)
	if perr := <-theirs; perr != nil {
		return errors.Join(err, fmt.Errorf("peer: %w", perr))
	}
	return err
}

func (r *Run) check(ctx context.Context, op loop.Op, o *opened, pay PayloadRequest, c int) (bool, error) {
	check, side := r.Local.Check, "initiator"
	if op != loop.Read && !o.alone {
		check, side = r.Peer.Check, "target"
	}
	rep, err := check(ctx, pay)
	if err != nil {
		return false, err
	}
	if rep.Mismatch == nil {
		return true, nil
	}
	return false, r.put(record.Event{TimeNs: clock.Now() - r.Start, Level: record.Fault, Condition: &c,
		Message: fmt.Sprintf("%s, on the %s: %v", r.conditions[c].Name, side, rep.Mismatch)})
}
