package transport

import (
	"context"
	"errors"
	"fmt"
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

	pair       *Pair
	conditions []record.Condition
	links      []*Link // of the transports
	cold       []bool  // of the transports: its cold transfer is to come
	plans      []*Plan // of the conditions
	batch      uint64  // batches so far: each has a payload of its own
	samples    []record.Sample
	held       []record.Line // of a condition that is not written yet
	holding    bool
}

// ErrData is matched by the result of a run in which a data check failed.
var ErrData = errors.New("data check failed")

// Do measures. Data checks that fail do not end it; they are its result at the
// end, an error that matches [ErrData].
func (r *Run) Do(ctx context.Context) error {
	r.pair = &Pair{Local: r.Local, Peer: r.Peer, Note: func(note string) error { return r.event(record.Warning, "%s", note) }}
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
		l, err := r.pair.Open(ctx, r.Transports[i])
		if err != nil {
			return err
		}
		r.links, r.cold = append(r.links, l), append(r.cold, true)
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
	if err := r.pair.Seal(ctx); err != nil {
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

// allocate gives both sides a buffer that holds the largest condition.
func (r *Run) allocate(ctx context.Context) (local, peer int64, err error) {
	same := len(r.Transports) > 0 && r.Transports[0].SameHost
	if r.Memory, r.PeerMemory, err = Requests(r.Memory, r.PeerMemory, r.Specs, r.Transports, same); err != nil {
		return 0, 0, err
	}
	return r.pair.Allocate(ctx, r.Memory, r.PeerMemory)
}

// move is what transfers of s move.
func (r *Run) move(name string, s Spec) Move {
	return Move{Name: name, Op: s.Op, KV: s.KV, Pieces: s.Pieces, Reuse: r.Reuse}
}

func (r *Run) plan(ctx context.Context) error {
	for id, s := range r.Specs {
		link, label := r.links[s.Transport], r.Labels[s.Transport]
		t, err := kv.New(s.KV)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s %s %s %d", label, s.Op, t.Shape, t.Bytes)
		plan, err := link.Plan(ctx, r.move(name, s))
		if err != nil {
			return err
		}
		r.plans = append(r.plans, plan)
		asked := uint64(s.KV.Bytes)
		if round, _ := t.Rounding(); asked == 0 {
			asked = uint64(round.AskedTokens * int64(t.Rank.BytesPerToken()))
		}
		info := link.Info()
		r.conditions = append(r.conditions, record.Condition{
			ID: id, Provider: label, API: info.API, Op: s.Op.String(), Name: name,
			Memory: string(r.Memory.Kind), PeerMem: string(r.PeerMemory.Kind),
			Shape: string(t.Shape), Layout: string(t.Layout), Model: t.Model.Name, TP: t.TensorParallel,
			Tokens: t.Tokens, Block: t.BlockTokens, Asked: asked, Bytes: uint64(t.Bytes),
			Descs: max(t.Count(), s.Pieces), Ops: plan.Ops, Ceiling: s.Ceiling,
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
	cond := &r.conditions[c]
	cond.Transport = r.links[r.Specs[c].Transport].Info()
	cond.Landing = cond.Transport.Landing[cond.Op]
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
	t, cond := r.Specs[c].Transport, r.conditions[c]
	phase := record.PhaseWarmup
	if r.cold[t] {
		phase = record.PhaseCold
	}
	r.tell(c, 0, 0, 0)
	ss, failed, err := r.runBatch(ctx, c, -1, 0, 1, phase)
	if err != nil {
		return 0, 0, err
	}
	if r.cold[t] {
		r.cold[t] = false
		s, setup := ss[0], r.links[t].Setup()
		cold := record.Cold{
			Provider: cond.Provider, Condition: c,
			OpenNs: setup.OpenNs, RegisterNs: setup.RegisterNs, RegisterBytes: r.Memory.Bytes, ConnectNs: setup.ConnectNs,
			FirstNs: s.TotalNs, FirstBytes: s.Bytes, FirstEAgain: s.EAgain, FirstVerified: s.Verified != nil && *s.Verified,
			PeerOpenNs: setup.PeerOpenNs, PeerRegisterNs: setup.PeerRegisterNs, MemoryNs: memNs, PeerMemoryNs: peerNs,
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

// runBatch runs one condition iters times with a payload of its own and writes the
// lines.
func (r *Run) runBatch(ctx context.Context, c, block, place, iters int, phase string) (out []record.Sample, failed int, err error) {
	cond := r.conditions[c]
	r.batch++
	b, err := r.plans[c].Transfer(ctx, Batch{Iters: iters, Key: mem.Key(r.Seed, r.batch), Unchecked: r.SkipVerify})
	if err != nil {
		return nil, 0, err
	}
	if b.Fault != "" {
		failed = 1
		if err := r.put(record.Event{TimeNs: clock.Now() - r.Start, Level: record.Fault, Condition: &c, Message: b.Fault}); err != nil {
			return nil, 0, err
		}
	}
	per := int64(len(b.Samples))
	for i, s := range b.Samples {
		out = append(out, record.Sample{
			Condition: c, Block: block, Order: place, Iteration: i, Phase: phase,
			BeginNs: s.BeginNs - r.Start, PostNs: int64(s.Post()), LocalNs: int64(s.Local()), TotalNs: int64(s.Total()),
			Bytes: s.Bytes, Ops: s.Ops, EAgain: s.EAgain, Polls: s.Polls, Verified: b.Verified,
			CPUNs: (b.After.CPUNs - b.Before.CPUNs) / per, PeerCPUNs: (b.PeerAfter.CPUNs - b.PeerBefore.CPUNs) / per,
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
		Condition: c, Block: block, Phase: phase, PayloadBytes: cond.Bytes * uint64(len(out)),
		Counters:  append(host.Diff("initiator", b.Before, b.After), host.Diff("target", b.PeerBefore, b.PeerAfter)...),
		Voluntary: b.After.Voluntary - b.Before.Voluntary, Involuntary: b.After.Involuntary - b.Before.Involuntary,
		PeerVoluntary:   b.PeerAfter.Voluntary - b.PeerBefore.Voluntary,
		PeerInvoluntary: b.PeerAfter.Involuntary - b.PeerBefore.Involuntary,
		Simulated:       cond.Simulated,
	})
}
