package raw

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/transport"
)

// batchTime is how long the transfers of one block should take together, so
// that a short transfer is not a single reading; maxIters bounds them.
const (
	batchTime = 20 * time.Millisecond
	maxIters  = 500
)

// ErrData is matched by the result of a run in which a data check failed.
var ErrData = fault.New(fault.Data, "data check failed")

// workload is the transfers of a plan between a local side and a peer, which the
// caller closes.
type workload struct {
	plan  *Plan
	pair  *transport.Pair
	seed  uint64 // of payloads
	start int64  // clock.Now() at the record's start
	write func(record.Line) error

	links      []*transport.Link // of the transports
	cold       []bool            // of the transports: its cold transfer is to come
	plans      []*transport.Plan // of the conditions
	conditions []record.Condition
	iters      []int // of a block, by condition
	moved      []moved
	batch      uint64 // batches so far: each has a payload of its own
	failed     int    // data checks
	sealed     bool
	held       []record.Line // of a condition that is not written yet
	holding    bool
}

// moved is what a condition has transferred in its blocks so far.
type moved struct {
	bytes uint64
	ns    int64
}

// newWorkload allocates the buffers of both sides.
func newWorkload(ctx context.Context, p *Plan, local *transport.Side, peer transport.Peer, start int64, write func(record.Line) error) (*workload, error) {
	w := &workload{plan: p, start: start, write: write, seed: *p.spec.Seed, moved: make([]moved, len(p.cells)), iters: make([]int, len(p.cells))}
	w.pair = &transport.Pair{Local: local, Peer: peer, Note: func(note string) error { return w.event(record.Warning, "%s", note) }}
	if err := p.size(p.transports[0].SameHost); err != nil {
		return nil, err
	}
	return w, p.allocate(ctx, w.pair)
}

// open brings the transports up and lays the conditions out.
func (w *workload) open(ctx context.Context) error {
	for i, c := range w.plan.transports {
		l, err := w.link(ctx, i, c)
		if err != nil {
			return err
		}
		w.links, w.cold = append(w.links, l), append(w.cold, true)
	}
	for id, c := range w.plan.cells {
		if err := w.layOut(ctx, id, c); err != nil {
			return err
		}
	}
	return nil
}

// link brings up endpoints of c over the buffers of transport i.
func (w *workload) link(ctx context.Context, i int, c transport.Config) (*transport.Link, error) {
	n := w.plan.over[i]
	return w.pair.OpenOver(ctx, c, transport.Buffers{Local: n, Peer: n})
}

func (w *workload) layOut(ctx context.Context, id int, c cell) error {
	link, label, m := w.links[c.transport], w.plan.labels[c.transport], c.move
	t, err := kv.New(m.KV)
	if err != nil {
		return err
	}
	m.Name = fmt.Sprintf("%s %s %s %d", label, m.Op, t.Shape, t.Bytes)
	plan, err := link.Plan(ctx, m)
	if err != nil {
		return err
	}
	w.plans = append(w.plans, plan)
	info, mems := link.Info(), w.plan.memories[w.plan.over[c.transport]]
	w.conditions = append(w.conditions, record.Condition{
		ID: id, Provider: label, API: info.API, Op: m.Op.String(), Name: m.Name,
		Memory: string(mems.local.Kind), PeerMem: string(mems.peer.Kind),
		Shape: string(t.Shape), Layout: string(t.Layout), Model: t.Model.Name, TP: t.TensorParallel,
		Tokens: t.Tokens, Block: t.BlockTokens, Asked: uint64(t.Asked()), Bytes: uint64(t.Bytes),
		Descs: max(t.Count(), m.Pieces), Ops: plan.Ops, Ceiling: c.ceiling,
		Landing: info.Landing[m.Op.String()], Transport: info, Simulated: info.Simulated,
	})
	return nil
}

func (w *workload) event(level, format string, args ...any) error {
	return w.write(record.Event{TimeNs: clock.Now() - w.start, Level: level, Message: fmt.Sprintf(format, args...)})
}

// First implements [schedule.Workload]: a condition's first transfer, which is
// never part of its figures, and then the condition's line with the lines of that
// transfer after it. Some libraries know what they use only once they did.
func (w *workload) First(ctx context.Context, c int) error {
	w.held, w.holding = nil, true
	err := w.first(ctx, c)
	w.holding = false
	cond := &w.conditions[c]
	cond.Transport = w.links[w.plan.cells[c].transport].Info()
	cond.Landing = cond.Transport.Landing[cond.Op]
	for _, l := range append([]record.Line{*cond}, w.held...) {
		if werr := w.write(l); werr != nil {
			return errors.Join(err, werr)
		}
	}
	return err
}

// put writes a line, or keeps it until its condition is known.
func (w *workload) put(l record.Line) error {
	if w.holding {
		w.held = append(w.held, l)
		return nil
	}
	return w.write(l)
}

// first runs the transport's cold transfer, or a warm-up, and finds out how many
// iterations a block should have.
func (w *workload) first(ctx context.Context, c int) error {
	t, cond := w.plan.cells[c].transport, w.conditions[c]
	phase := record.PhaseWarmup
	if w.cold[t] {
		phase = record.PhaseCold
	}
	before := schedule.Slot{Condition: c, Block: -1}
	ss, err := w.run(ctx, before, 1, phase)
	if err != nil {
		return err
	}
	if w.cold[t] {
		w.cold[t] = false
		s, setup, m := ss[0], w.links[t].Setup(), w.plan.memories[w.plan.over[t]]
		cold := record.Cold{
			Provider: cond.Provider, Condition: c,
			OpenNs: setup.OpenNs, RegisterNs: setup.RegisterNs, RegisterBytes: m.local.Bytes, ConnectNs: setup.ConnectNs,
			FirstNs: s.TotalNs, FirstBytes: s.Bytes, FirstEAgain: s.EAgain, FirstVerified: s.Verified != nil && *s.Verified,
			PeerOpenNs: setup.PeerOpenNs, PeerRegisterNs: setup.PeerRegisterNs, MemoryNs: m.localNs, PeerMemoryNs: m.peerNs,
			Simulated: cond.Simulated,
		}
		if err := w.put(cold); err != nil {
			return err
		}
		// Some more, warm: the cold time, or that of a single one, would make the
		// blocks too short, and shorter than those of a row they are compared to.
		if cond.Bytes < 1<<20 {
			if ss, err = w.run(ctx, before, 5, record.PhaseWarmup); err != nil {
				return err
			}
		}
	}
	w.iters[c] = w.plan.spec.Design.Iterations
	if w.iters[c] > 0 {
		return nil
	}
	fastest := ss[0].TotalNs
	for _, s := range ss {
		fastest = min(fastest, s.TotalNs)
	}
	w.iters[c] = int(min(maxIters, max(1, int64(batchTime)/max(1, fastest))))
	if w.iters[c] == 2 {
		w.iters[c] = 3 // the first of a block is often slow, and the median of two holds it
	}
	return nil
}

// Batch implements [schedule.Workload].
func (w *workload) Batch(ctx context.Context, at schedule.Slot) ([]float64, error) {
	if !w.sealed {
		// Libraries connect with the first transfer.
		if err := w.pair.Seal(ctx); err != nil {
			return nil, err
		}
		w.sealed = true
	}
	ss, err := w.run(ctx, at, w.iters[at.Condition], record.PhaseMeasure)
	out := make([]float64, len(ss))
	m := &w.moved[at.Condition]
	for i, s := range ss {
		out[i] = float64(s.TotalNs)
		m.bytes, m.ns = m.bytes+s.Bytes, m.ns+s.TotalNs
	}
	return out, err
}

// checks is the result of all data checks.
func (w *workload) checks() error {
	if w.failed == 0 {
		return nil
	}
	return fmt.Errorf("%w in %d of %d batches; the record's events name the bytes", ErrData, w.failed, w.batch)
}

// run runs one condition iters times with a payload of its own and writes the
// lines.
func (w *workload) run(ctx context.Context, at schedule.Slot, iters int, phase string) (out []record.Sample, err error) {
	c := at.Condition
	cond := w.conditions[c]
	w.batch++
	b, err := w.plans[c].Transfer(ctx, transport.Batch{Iters: iters, Key: mem.Key(w.seed, w.batch), Unchecked: w.plan.spec.Raw.NoVerify})
	if err != nil {
		return nil, err
	}
	if b.Fault != "" {
		w.failed++
		if err := w.put(record.Event{TimeNs: clock.Now() - w.start, Level: record.Fault, Condition: &c, Message: b.Fault}); err != nil {
			return nil, err
		}
	}
	per := int64(len(b.Samples))
	for i, s := range b.Samples {
		out = append(out, record.Sample{
			Condition: c, Block: at.Block, Order: at.Place, Iteration: i, Phase: phase,
			BeginNs: s.BeginNs - w.start, PostNs: int64(s.Post()), LocalNs: int64(s.Local()), TotalNs: int64(s.Total()),
			Bytes: s.Bytes, Ops: s.Ops, EAgain: s.EAgain, Polls: s.Polls, Verified: b.Verified,
			CPUNs: (b.After.CPUNs - b.Before.CPUNs) / per, PeerCPUNs: (b.PeerAfter.CPUNs - b.PeerBefore.CPUNs) / per,
			Simulated: cond.Simulated,
		})
	}
	for _, s := range out {
		if err := w.put(s); err != nil {
			return nil, err
		}
	}
	return out, w.put(record.Path{
		Condition: c, Block: at.Block, Phase: phase, PayloadBytes: cond.Bytes * uint64(len(out)),
		Counters:  append(host.Diff("initiator", b.Before, b.After), host.Diff("target", b.PeerBefore, b.PeerAfter)...),
		Voluntary: b.After.Voluntary - b.Before.Voluntary, Involuntary: b.After.Involuntary - b.Before.Involuntary,
		PeerVoluntary:   b.PeerAfter.Voluntary - b.PeerBefore.Voluntary,
		PeerInvoluntary: b.PeerAfter.Involuntary - b.PeerBefore.Involuntary,
		Simulated:       cond.Simulated,
	})
}
