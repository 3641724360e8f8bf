package ttft

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// batch is the requests between two readings of the engines' metrics.
type batch struct {
	r    *runner
	c    *condition
	s    stretch
	pair int // of the first request

	mu    sync.Mutex
	slots []*slot
	err   error
}

// slot is one request of a batch; one goroutine at a time works on it.
type slot struct {
	req             *prepared
	line            record.Request
	ev              reqEvidence
	prefill, decode string // engines on the two-leg path
}

// inBatch reads the metrics, lets send run, reads them again and judges. conns
// connections to each server are open before. The error is the record's, or
// ctx's; a request that fails is a line and no error.
func (r *runner) inBatch(ctx context.Context, c *condition, s stretch, conns int, send func(context.Context, *batch)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := &batch{r: r, c: c, s: s}
	r.batch++
	r.mu.Lock()
	b.pair = r.seq[c.arm]
	r.mu.Unlock()
	prefill, decode := c.arm.engines()
	if conns == 1 && c.arm.Path == record.PathTwoLeg {
		// One request: its own two engines only.
		p, d := c.arm.pair(b.pair)
		prefill, decode = []string{p}, []string{d}
	}
	if err := r.warmConns(ctx, c.arm, conns); err != nil {
		return err
	}
	before, beforeErr := r.readAll(ctx, prefill, decode)
	if err := r.patience(beforeErr); err != nil {
		return err
	}
	send(ctx, b)
	if b.err != nil {
		return b.err
	}
	ev := evidence{path: c.arm.Path, expects: c.arm.expects}
	for _, q := range b.slots {
		ev.reqs = append(ev.reqs, q.ev)
	}
	if beforeErr != nil {
		ev.scrapeErr = beforeErr
	} else {
		r.settle(ctx, &ev, before, prefill, decode)
	}
	return b.conclude(ctx, ev)
}

// maxLate is how many batches in a row may find a page of metrics without end.
const maxLate = 3

// patience counts the pages in a row that were too long or too slow, each of which
// takes its whole time. The error is that it was too often.
func (r *runner) patience(scrape error) error {
	if !errors.Is(scrape, ErrLimit) {
		r.late = 0
		return nil
	}
	if r.late++; r.late < maxLate {
		return nil
	}
	return fmt.Errorf("no proof is possible, %d times in a row: %w", r.late, scrape)
}

// warmConns opens connections, so that none is opened inside the clock. A single
// request needs only the ones that reading the metrics leaves behind.
func (r *runner) warmConns(ctx context.Context, a *Arm, conns int) error {
	var errs []error
	for _, base := range a.all() {
		if conns > 1 || base == a.Front {
			// A server that is gone shows in the requests; here it is no error.
			if err := r.client.warm(ctx, base, conns); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(errs) > 0 {
		return r.event(record.Warning, fmt.Sprintf("connections could not be opened beforehand: %v", errors.Join(errs...)))
	}
	return nil
}

// readings are the metrics of both sides, by engine.
type readings map[string]metrics.Reading

func (r *runner) readAll(ctx context.Context, prefill, decode []string) (readings, error) {
	out := readings{}
	for _, list := range [][]string{prefill, decode} {
		for _, base := range list {
			m, err := r.client.scrape(ctx, base)
			if err != nil {
				return nil, err
			}
			out[base] = m
		}
	}
	return out, nil
}

// since adds up what a side counted.
func (after readings) since(before readings, engines []string) (sum metrics.Reading, reset []metrics.Count) {
	for _, base := range engines {
		d, back := after[base].Since(before[base])
		sum = sum.Plus(d)
		reset = append(reset, back...)
	}
	return sum, reset
}

// settle reads the metrics until they show the batch's requests, or the time
// is over: engines count a request shortly after they answer it.
func (r *runner) settle(ctx context.Context, ev *evidence, before readings, prefill, decode []string) {
	limit := time.Now().Add(r.cfg.Settle)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		after, err := r.readAll(ctx, prefill, decode)
		if err != nil {
			ev.scrapeErr = err
			return
		}
		var back []metrics.Count
		ev.prefill, ev.reset = after.since(before, prefill)
		ev.decode, back = after.since(before, decode)
		ev.reset = append(ev.reset, back...)
		if ev.complete() || !time.Now().Add(pause).Before(limit) {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// complete reports whether the counts have seen all requests.
func (ev *evidence) complete() bool {
	var want, decoded int64
	failed := false
	for _, r := range ev.reqs {
		if r.failure != nil {
			failed = true
			continue
		}
		want++
		if r.reachedDecode {
			decoded++
		}
	}
	if failed {
		return false // nobody knows what will be counted: wait the whole time
	}
	if get(ev.prefill, metrics.Requests) < want {
		return false
	}
	if !ev.disaggregated() {
		return true
	}
	d, m := ev.decode, ev.moved()
	local, _ := computed(d)
	// Each rank counts a transfer of its own, and not all at once.
	transfers := decoded
	for _, r := range ev.reqs {
		transfers += int64(max(r.decodeTP-1, 0))
	}
	if len(ev.reqs) > 0 && ev.reqs[0].handed != nil && ev.reqs[0].handed.Push {
		transfers = decoded
	}
	return get(d, metrics.Requests) >= decoded && (get(m, metrics.Transfers) >= transfers || !m.Has(metrics.Transfers) || local > decoded)
}

// fault ends the run after this batch.
func (b *batch) fault(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = errors.Join(b.err, err)
}

// next prepares the batch's next request.
func (b *batch) next() (*slot, error) {
	r, c := b.r, b.c
	id := newRequestID()
	p, err := r.prompts.prepare(r.index.Add(1)-1, id, c.arm.Model, c.tokens, r.cfg.MaxTokens)
	if err != nil {
		return nil, err
	}
	q := &slot{req: p, ev: reqEvidence{tokens: c.tokens, prefillCached: -1, decodeCached: -1, failure: fail(record.ReasonInterrupted, "not sent")}}
	q.line = record.Request{Condition: c.id, Arm: c.arm.Name, Mode: c.arm.Mode, Path: c.arm.Path, Block: b.s.block, Order: b.s.order, Phase: b.s.phase,
		Batch: r.batch, Simulated: c.arm.simulated, RequestID: id, PromptTokens: c.tokens, MaxTokens: r.cfg.MaxTokens, Load: r.cfg.Load,
		Concurrency: c.concurrency, RateMilli: int64(c.rate*1000 + 0.5)}
	prefill, _ := c.arm.engines()
	q.line.PoolBlocks, q.line.BlockTokens = c.arm.pools[prefill[0]].Blocks, c.arm.expects.blockTokens
	b.mu.Lock()
	defer b.mu.Unlock()
	q.line.Sequence = r.nextSequence(c.arm)
	if b.s.phase == record.PhaseMeasure {
		q.line.Iteration = c.sent
		c.sent++
	}
	if c.arm.Path == record.PathTwoLeg {
		q.prefill, q.decode = c.arm.pair(q.line.Sequence)
		q.line.Prefill, q.line.Decode = q.prefill, q.decode
	}
	b.slots = append(b.slots, q)
	return q, nil
}

func (r *runner) nextSequence(a *Arm) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.seq[a]
	r.seq[a]++
	return n
}

// send prepares one request and runs it from now on.
func (b *batch) send(ctx context.Context) {
	q, err := b.next()
	if err != nil {
		b.fault(err)
		return
	}
	b.exchange(ctx, q, time.Now())
}

// exchange runs one request and fills in its line and evidence.
func (b *batch) exchange(ctx context.Context, q *slot, intended time.Time) {
	ctx, cancel := context.WithTimeout(ctx, b.r.cfg.Timeout)
	defer cancel()
	p, line, ev := q.req, &q.line, &q.ev
	q.req = nil // its bodies can go when this request is over
	since := func(t time.Time) int64 { return t.Sub(intended).Nanoseconds() }
	line.IntendedAtNs = intended.Sub(b.r.start).Nanoseconds()
	var sl streamLeg
	if b.c.arm.Path == record.PathTwoLeg {
		pl := b.r.client.prefill(ctx, q.prefill, p)
		line.BeginAtNs = pl.begin.Sub(b.r.start).Nanoseconds()
		line.PrefillConnReused = &pl.reused
		line.Legs = &record.Legs{SendPrefill: since(pl.begin), PrefillHeaders: since(pl.headers)}
		if pl.failure == nil {
			line.Legs.PrefillBody = since(pl.body)
			if n, ok := pl.usage.cached(); ok {
				ev.prefillCached = n
			}
			ev.reachedDecode = true
			sl = b.r.client.stream(ctx, q.decode, p.id, p.decodeBody(pl.params), line.MaxTokens)
			ev.handed = handedOver(twoleg.HandedBy(pl.params))
			line.Legs.SendDecode, line.Legs.DecodeHeaders = since(sl.begin), since(sl.headers)
			if n, ok := sl.usage.cached(); ok {
				ev.decodeCached = n
			}
			if pl.token != "" && sl.token != "" {
				same := pl.token == sl.token
				line.FirstTokenMatch = &same
			}
		} else {
			sl.failure = pl.failure
		}
	} else {
		ev.reachedDecode = b.c.arm.Path == record.PathProxy
		sl = b.r.client.stream(ctx, b.c.arm.Front, p.id, p.whole, line.MaxTokens)
		line.BeginAtNs = sl.begin.Sub(b.r.start).Nanoseconds()
		if n, ok := sl.usage.cached(); ok {
			if b.c.arm.Path == record.PathProxy {
				ev.decodeCached = n
			} else {
				ev.prefillCached = n
			}
		}
		if b.c.arm.Path == record.PathProxy && sl.handed != "" {
			ev.handed = handedOver(twoleg.ParseHanded(sl.handed))
		}
	}
	if ev.reachedDecode {
		ev.decodeTP = fingerprintTP(sl.fingerprint)
	}
	if h := ev.handed; h != nil {
		line.PrefillTP = h.TP
	}
	line.DecodeTP = ev.decodeTP
	line.ConnReused = sl.reused
	if len(sl.tokens) > 0 {
		line.TTFTNs = since(sl.tokens[0])
		for i := 1; i < len(sl.tokens); i++ {
			line.ITLNs = append(line.ITLNs, sl.tokens[i].Sub(sl.tokens[i-1]).Nanoseconds())
		}
		if line.Legs != nil {
			line.Legs.FirstToken = line.TTFTNs
		}
	}
	if !sl.body.IsZero() {
		line.E2ENs = since(sl.body)
	}
	if sl.usage != nil {
		line.Completion, line.TruthNs = sl.usage.Completion, sl.usage.TruthNs
		if b.r.cfg.Prompts == TextPrompts {
			line.PromptTokens, ev.tokens = sl.usage.Prompt, sl.usage.Prompt
		}
	}
	line.Split = legSplit(line, sl.timing)
	ev.failure = sl.failure
	if ev.failure == nil {
		ev.failure = b.incomplete(sl, line)
	}
	b.r.progress(b, line, ev.failure != nil)
}

// incomplete is what is wrong with a stream that ended well.
func (b *batch) incomplete(sl streamLeg, line *record.Request) *failure {
	switch {
	case len(sl.tokens) == 0:
		return fail(record.ReasonNoToken, "the stream ended without a token")
	case sl.usage == nil:
		return fail(record.ReasonNoUsage, "no usage chunk, though stream_options asked for it")
	case sl.usage.Prompt != line.PromptTokens:
		return fail(record.ReasonPromptLength, "the engine counted %d prompt tokens and %d were sent", sl.usage.Prompt, line.PromptTokens)
	case sl.usage.Completion != line.MaxTokens:
		return fail(record.ReasonShortCompletion, "%d tokens came and %d were asked for", sl.usage.Completion, line.MaxTokens)
	}
	return nil
}

// legSplit is the split of a TTFT by this side's clock alone.
func legSplit(line *record.Request, timing string) *record.Split {
	if line.TTFTNs == 0 {
		return nil
	}
	s := &record.Split{Wait: line.BeginAtNs - line.IntendedAtNs}
	switch line.Path {
	case record.PathTwoLeg:
		l := line.Legs
		s.Wait = l.SendPrefill
		s.Prefill = l.PrefillBody - l.SendPrefill
		s.HandOver = l.SendDecode - l.PrefillBody
		s.DecodeQueue = l.FirstToken - l.SendDecode
	case record.PathProxy:
		s.Prefill, s.HandOver = serverTiming(timing, "prefill"), serverTiming(timing, "handover")
		s.Network = line.TTFTNs - s.Wait - s.Prefill - s.HandOver
	default:
		s.Network = line.TTFTNs - s.Wait
	}
	return s
}

// engineSplit puts the engines' own counts of one request into its split.
func engineSplit(s *record.Split, ev evidence, ttft int64) {
	side := func(r metrics.Reading) (queue, prefill int64, ok bool) {
		return get(r, metrics.QueueNS), get(r, metrics.PrefillNS), r.Has(metrics.QueueNS, metrics.PrefillNS) && get(r, metrics.FirstTokens) == 1
	}
	queue, prefill, ok := side(ev.prefill)
	if !ok {
		return
	}
	out := record.Split{Wait: s.Wait, Prefill: queue + prefill, HandOver: s.HandOver, Engine: true}
	if ev.disaggregated() {
		if out.DecodeQueue, out.OneToken, ok = side(ev.decode); !ok {
			return
		}
	}
	out.Network = ttft - out.Wait - out.Prefill - out.HandOver - out.DecodeQueue - out.OneToken
	*s = out
}

// serverTiming finds the duration of a metric in a Server-Timing header, in
// ns; 0 if it is not there.
func serverTiming(header, name string) int64 {
	for _, entry := range strings.Split(header, ",") {
		parts := strings.Split(entry, ";")
		if strings.TrimSpace(parts[0]) != name {
			continue
		}
		for _, p := range parts[1:] {
			if v, ok := strings.CutPrefix(strings.TrimSpace(p), "dur="); ok {
				if ms, err := strconv.ParseFloat(v, 64); err == nil && ms >= 0 && ms < 1e9 {
					return int64(ms * 1e6)
				}
			}
		}
	}
	return 0
}

// conclude judges the batch and writes its lines.
func (b *batch) conclude(ctx context.Context, ev evidence) error {
	verdicts := judge(ev)
	for i, q := range b.slots {
		line, v := &q.line, verdicts[i]
		line.Valid, line.Reason, line.Detail, line.Proof, line.Rule = v.reason == "", v.reason, v.detail, v.proof, v.rule
		line.KVBlocks = v.blocks
		if err := b.r.once(b.c.arm, v.note); err != nil {
			return err
		}
		if len(b.slots) == 1 && line.Split != nil && ev.scrapeErr == nil {
			engineSplit(line.Split, ev, line.TTFTNs)
		}
		if m := ev.moved(); get(m, metrics.Transfers) > 0 {
			line.Moved = &record.Moved{Scope: v.proof, By: record.ByDecode, Transfers: get(m, metrics.Transfers), Bytes: get(m, metrics.TransferBytes), Descriptors: get(m, metrics.Descriptors),
				XferNs: get(m, metrics.TransferNS), PostNs: get(m, metrics.PostNS)}
			if ev.pushed() {
				line.Moved.By = record.ByPrefill
			}
			if v.proof == record.ProofNone {
				line.Moved = nil
			}
		}
		if err := b.r.cfg.Record(*line); err != nil {
			return err
		}
		if line.Valid && line.Phase == record.PhaseMeasure {
			b.r.mu.Lock()
			b.r.ttft = append(b.r.ttft, float64(line.TTFTNs))
			b.r.mu.Unlock()
		}
	}
	return ctx.Err()
}

func (r *runner) progress(b *batch, line *record.Request, bad bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	if bad {
		r.bad++
	}
	if r.cfg.Progress == nil {
		return
	}
	p := Progress{Condition: b.c.name(r.cfg.Load), Block: b.s.block, Blocks: r.cfg.Blocks, Done: r.done, Of: r.of, Invalid: r.bad,
		LastTTFT: time.Duration(line.TTFTNs), Elapsed: time.Since(r.start), Limit: r.cfg.Schedule.Budget}
	if r.cfg.Schedule.Budget > 0 {
		p.Blocks = 0
	}
	r.cfg.Progress(p)
}

// once warns of what of an arm's geometry could not be used, once.
func (r *runner) once(a *Arm, note string) error {
	if note == "" || a.noted[note] {
		return nil
	}
	a.noted[note] = true
	return r.event(record.Warning, fmt.Sprintf("arm %s: the geometry of the KV cache is not used where it does not fit: %s", a.Name, note))
}

func (r *runner) event(level, message string) error {
	return r.cfg.Record(record.Event{TimeNs: time.Since(r.start).Nanoseconds(), Level: level, Message: message})
}

// newRequestID is unique over all runs: engines name a transfer after it.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return "xferbench-" + hex.EncodeToString(b[:])
}
