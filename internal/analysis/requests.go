package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Requests is what the requests of a TTFT run say. Slices follow the order of
// the record.
type Requests struct {
	Record *record.Record
	// Live: the run may still go on, so that a missing end line means nothing.
	Live        bool
	Rows        []*RequestRow
	Comparisons []ArmComparison
	Series      []Series
	// N and Invalid count the measured requests, without warm-up.
	N, Invalid int
	Reasons    map[record.Reason]int
	// Details are of the first request of each reason: an engine's own words, say.
	Details map[record.Reason]string
	// Simulated: some engine was a stand-in.
	Simulated bool
}

// InvalidShare is the share of measured requests that do not count.
func (r *Requests) InvalidShare() float64 {
	if r.N == 0 {
		return 0
	}
	return float64(r.Invalid) / float64(r.N)
}

// RequestRow is one condition of a TTFT run. Times are in ns; summaries are over
// Units, quantiles over requests.
type RequestRow struct {
	Condition record.Condition
	Arm, Path string
	Tokens    int
	Load      string // "c1", "2/s", "offline"
	// Requests are the measured and valid ones in the order of the arm, and
	// Invalid counts those that are not.
	Requests []record.Request
	Invalid  int
	// Reasons count those that do not count, Details are of the first of each reason,
	// and Rules count what all were held to.
	Reasons map[record.Reason]int
	Details map[record.Reason]string
	Rules   map[string]int
	// Units are the independent observations: medians of the TTFT over blocks, or
	// over launches when there are several. Blocks counts the blocks, Launches the
	// sets of fresh processes.
	Units            []stats.Unit
	Blocks, Launches int
	// TTFT summarises Units; nil without a valid request.
	TTFT         *stats.Summary
	MinNs, MaxNs float64 // of the TTFT of any request
	P95, P99     *stats.QuantileResult
	// Medians over valid requests; 0 if there are none.
	ITL, E2E float64
	Split    *SplitMedians
	Moved    *MovedMedians
	// Offline: makespan of a block's batch and tokens out of it a second.
	Makespan   *stats.Summary
	Throughput float64 // output tokens a second, Σtokens/Σmakespan
	// Cold counts requests for which a connection had to be opened.
	Cold int
	// Merged counts requests of which a chunk had to hold several tokens, because
	// the server got to sending late: the first one may hold more than the first token.
	Merged int
	// Mismatch counts requests whose two first tokens differ, of Matched compared.
	Mismatch, Matched int
}

// N is how many requests count.
func (r *RequestRow) N() int { return len(r.Requests) }

// SplitMedians are the medians of the parts of the TTFT.
type SplitMedians struct {
	Wait, Prefill, HandOver, DecodeQueue, OneToken, Network float64
	// Engine is how many of the N requests had the engines' own counts.
	Engine, N int
}

// MovedMedians are what NIXL counted for each transfer.
type MovedMedians struct {
	Transfers         int64
	Bytes             float64 // of one transfer
	MinDesc, MaxDesc  int64   // descriptors after merging, of single requests; 0: none counted
	Xfer, Post, Share float64 // ns, ns, and the share of TTFT that Xfer is (medians)
}

// ArmComparison compares an arm with the first one that has the same prompt
// length and load.
type ArmComparison struct {
	A, B    *RequestRow
	Verdict stats.Verdict
	Dropped int // units that only one of the arms has
}

// LiveRequests is [OfRequests] for a run that has yet to write its end line.
func LiveRequests(rec *record.Record) (*Requests, error) {
	r, err := OfRequests(rec)
	if r != nil {
		r.Live = true
	}
	return r, err
}

// OfRequests analyses the record of a TTFT run.
func OfRequests(rec *record.Record) (*Requests, error) {
	if rec == nil {
		return nil, errors.New("nothing to analyse: no record")
	}
	res := &Requests{Record: rec, Reasons: map[record.Reason]int{}, Details: map[record.Reason]string{}, Simulated: rec.Run.Simulated}
	by := map[int][]record.Request{}
	for _, q := range rec.Requests {
		res.Simulated = res.Simulated || q.Simulated
		if q.Phase != record.PhaseMeasure {
			continue
		}
		res.N++
		if !q.Valid {
			res.Invalid++
			if res.Reasons[q.Reason]++; res.Reasons[q.Reason] == 1 {
				res.Details[q.Reason] = q.Detail
			}
		}
		by[q.Condition] = append(by[q.Condition], q)
	}
	seen := map[int]bool{}
	for _, c := range rec.Conditions {
		if seen[c.ID] {
			continue // a resumed run says it again
		}
		seen[c.ID] = true
		row, err := newRequestRow(c, by[c.ID])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		res.Rows = append(res.Rows, row)
	}
	if err := res.compare(rec.Run.Seed); err != nil {
		return nil, err
	}
	var err error
	res.Series, err = requestSeries(rec.Requests)
	return res, err
}

func newRequestRow(c record.Condition, lines []record.Request) (*RequestRow, error) {
	row := &RequestRow{Condition: c, Arm: c.Provider, Tokens: int(c.Tokens), Reasons: map[record.Reason]int{}, Details: map[record.Reason]string{}, Rules: map[string]int{}}
	slices.SortStableFunc(lines, func(a, b record.Request) int {
		return cmp.Or(cmp.Compare(a.Launch, b.Launch), cmp.Compare(a.Sequence, b.Sequence))
	})
	var ttft, itl, e2e []float64
	for _, q := range lines {
		row.Path, row.Load = q.Path, load(q)
		if row.judged(q); !q.Valid {
			continue
		}
		row.Requests = append(row.Requests, q)
		ttft = append(ttft, float64(q.TTFTNs))
		e2e = append(e2e, float64(q.E2ENs))
		for _, d := range q.ITLNs {
			itl = append(itl, float64(d))
		}
		if len(q.ITLNs)+1 < q.Completion {
			row.Merged++
		}
		if !q.ConnReused || q.PrefillConnReused != nil && !*q.PrefillConnReused {
			row.Cold++
		}
		if q.FirstTokenMatch != nil {
			row.Matched++
			if !*q.FirstTokenMatch {
				row.Mismatch++
			}
		}
	}
	if row.N() == 0 {
		return row, nil
	}
	var err error
	if row.Blocks, row.Units, err = row.units(func(q record.Request) (float64, bool) { return float64(q.TTFTNs), true }); err != nil {
		return row, err
	}
	row.Launches = count(row.Requests, func(q record.Request) int { return q.Launch })
	sum, err := stats.Summarize(stats.Values(row.Units), Level)
	if err != nil {
		return row, err
	}
	row.TTFT, row.MinNs, row.MaxNs = &sum, slices.Min(ttft), slices.Max(ttft)
	for p, q := range map[float64]**stats.QuantileResult{0.95: &row.P95, 0.99: &row.P99} {
		v, err := stats.Quantile(ttft, p)
		if err != nil {
			return row, err
		}
		*q = &v
	}
	if row.E2E, err = stats.Median(e2e); err != nil {
		return row, err
	}
	if len(itl) > 0 {
		if row.ITL, err = stats.Median(itl); err != nil {
			return row, err
		}
	}
	if row.Split, err = splitMedians(row.Requests); err != nil {
		return row, err
	}
	if row.Moved, err = movedMedians(row.Requests, sum.Median); err != nil {
		return row, err
	}
	return row, row.offline(lines)
}

// judged counts what a request was held to, and why it does not count.
func (r *RequestRow) judged(q record.Request) {
	if q.Rule != "" {
		r.Rules[q.Rule]++
	}
	if q.Valid {
		return
	}
	r.Invalid++
	if r.Reasons[q.Reason]++; r.Reasons[q.Reason] == 1 {
		r.Details[q.Reason] = q.Detail
	}
}

// units are the independent observations of a value of the row's requests, and
// how many blocks are behind them; none without a value.
func (r *RequestRow) units(of func(record.Request) (float64, bool)) (blocks int, _ []stats.Unit, _ error) {
	var ss []stats.Sample
	for _, q := range r.Requests {
		if v, ok := of(q); ok {
			ss = append(ss, stats.Sample{Launch: q.Launch, Block: q.Block, Value: v})
		}
	}
	if len(ss) == 0 {
		return 0, nil, nil
	}
	bs, us, err := independent(ss)
	return len(bs), us, err
}

// independent are the block medians of samples, and the units that verdicts and
// intervals count: the same, or medians of launches when there are several.
func independent(ss []stats.Sample) (blocks, units []stats.Unit, err error) {
	if blocks, err = stats.BlockMedians(ss); err != nil {
		return nil, nil, err
	}
	if blocks[0].Key.Launch == blocks[len(blocks)-1].Key.Launch {
		return blocks, blocks, nil
	}
	units, err = stats.LaunchMedians(ss)
	return blocks, units, err
}

// load is the load of a request as a label.
func load(l record.Request) string {
	switch l.Load {
	case record.LoadOpen:
		return fmt.Sprintf("%g/s", float64(l.RateMilli)/1000)
	case record.LoadOffline:
		return "offline"
	}
	return fmt.Sprintf("c%d", l.Concurrency)
}

func splitMedians(lines []record.Request) (*SplitMedians, error) {
	m := &SplitMedians{}
	// Requests with the engines' counts and without have different parts; the
	// former win where there are any.
	for _, l := range lines {
		if l.Split != nil && l.Split.Engine {
			m.Engine++
		}
	}
	parts := map[*float64]func(*record.Split) int64{
		&m.Wait: func(s *record.Split) int64 { return s.Wait }, &m.Prefill: func(s *record.Split) int64 { return s.Prefill },
		&m.HandOver: func(s *record.Split) int64 { return s.HandOver }, &m.DecodeQueue: func(s *record.Split) int64 { return s.DecodeQueue },
		&m.OneToken: func(s *record.Split) int64 { return s.OneToken }, &m.Network: func(s *record.Split) int64 { return s.Network },
	}
	for dst, part := range parts {
		var xs []float64
		for _, l := range lines {
			if l.Split != nil && (m.Engine == 0 || l.Split.Engine) {
				xs = append(xs, float64(part(l.Split)))
			}
		}
		if len(xs) == 0 {
			return nil, nil
		}
		m.N = len(xs)
		var err error
		if *dst, err = stats.Median(xs); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// batchKey names a batch of a run.
type batchKey struct{ launch, batch int }

func movedMedians(lines []record.Request, ttft float64) (*MovedMedians, error) {
	m := &MovedMedians{}
	var bytes, xfer, post []float64
	seen := map[batchKey]bool{}
	for _, l := range lines {
		k := batchKey{l.Launch, l.Batch}
		if l.Moved == nil || l.Moved.Transfers == 0 || seen[k] {
			continue
		}
		seen[k] = true
		n := float64(l.Moved.Transfers)
		more(&m.Transfers, l.Moved.Transfers, math.MaxInt64)
		bytes = append(bytes, float64(l.Moved.Bytes)/n)
		xfer = append(xfer, float64(l.Moved.XferNs)/n)
		post = append(post, float64(l.Moved.PostNs)/n)
		if l.Moved.Scope == record.ProofSample {
			if m.MinDesc == 0 || l.Moved.Descriptors < m.MinDesc {
				m.MinDesc = l.Moved.Descriptors
			}
			m.MaxDesc = max(m.MaxDesc, l.Moved.Descriptors)
		}
	}
	if len(bytes) == 0 {
		return nil, nil
	}
	var err error
	for dst, xs := range map[*float64][]float64{&m.Bytes: bytes, &m.Xfer: xfer, &m.Post: post} {
		if *dst, err = stats.Median(xs); err != nil {
			return nil, err
		}
	}
	if ttft > 0 {
		m.Share = m.Xfer / ttft
	}
	return m, nil
}

// offline fills in makespan and throughput from batches without an invalid
// request: one that failed early makes the batch look fast.
func (r *RequestRow) offline(lines []record.Request) error {
	type batch struct {
		end    int64
		tokens int64
		bad    bool
	}
	batches := map[batchKey]*batch{}
	for _, l := range lines {
		if l.Load != record.LoadOffline {
			return nil
		}
		k := batchKey{l.Launch, l.Batch}
		b := batches[k]
		if b == nil {
			b = &batch{}
			batches[k] = b
		}
		b.end = max(b.end, l.E2ENs)
		more(&b.tokens, int64(l.Completion), math.MaxInt64)
		b.bad = b.bad || !l.Valid
	}
	var spans []float64
	var tokens []int64
	for _, b := range batches {
		if !b.bad {
			spans = append(spans, float64(b.end))
			tokens = append(tokens, b.tokens)
		}
	}
	if len(spans) == 0 {
		return nil
	}
	sum, err := stats.Summarize(spans, Level)
	if err != nil {
		return err
	}
	r.Makespan = &sum
	r.Throughput, err = stats.Rate(tokens, spans)
	return err
}

// compare holds every arm against the first one of the run with the same prompt
// length and load.
func (r *Requests) compare(seed uint64) error {
	var verdicts []stats.Verdict
	for i, b := range r.Rows {
		at := slices.IndexFunc(r.Rows, func(a *RequestRow) bool { return a.Tokens == b.Tokens && a.Load == b.Load })
		a := r.Rows[at]
		if at == i || a.N() == 0 || b.N() == 0 {
			continue
		}
		as, bs, dropped, err := stats.PairUnits(a.Units, b.Units)
		if err != nil {
			return err
		}
		v, err := stats.ComparePaired(as, bs, stats.Options{Level: Level, Seed: seed})
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
		r.Comparisons = append(r.Comparisons, ArmComparison{A: a, B: b, Dropped: dropped})
	}
	adjusted, err := stats.AdjustFamily(verdicts)
	if err != nil {
		return err
	}
	for i := range adjusted {
		r.Comparisons[i].Verdict = adjusted[i]
	}
	return nil
}

// Outcome is the verdict in the words of the record: different, no-difference,
// too-few.
func (c ArmComparison) Outcome() string { return outcome(c.Verdict) }

// Slower is the arm that takes longer by the estimate, with the ratio of the
// times (at least 1) and its interval, nil without one.
func (c ArmComparison) Slower() (*RequestRow, float64, *stats.Interval) {
	v := c.Verdict
	if v.Ratio >= 1 {
		return c.B, v.Ratio, v.Interval
	}
	return c.A, 1 / v.Ratio, turned(v.Interval)
}

// Lines are the summaries of rows and the verdicts on arms that a run appends to
// its record, for readers that do not compute their own.
func (r *Requests) Lines() []record.Line {
	var out []record.Line
	for _, row := range r.Rows {
		if row.N()+row.Invalid == 0 {
			continue
		}
		invalid := row.Invalid
		s := record.Summary{Condition: row.Condition.ID, N: row.N(), Invalid: &invalid, Blocks: row.Blocks, Simulated: row.Condition.Simulated}
		if t := row.TTFT; t != nil {
			s.MedianNs, s.MinNs, s.MaxNs = round(t.Median), round(row.MinNs), round(row.MaxNs)
			s.E2ENs, s.ITLNs = round(row.E2E), round(row.ITL)
			if t.CI != nil {
				s.MedianLoNs, s.MedianHiNs = round(t.CI.Lo), round(t.CI.Hi)
			}
			if !row.P95.Guarded {
				s.P95Ns = round(row.P95.Value)
			}
			if !row.P99.Guarded {
				s.P99Ns = round(row.P99.Value)
			}
		}
		if m := row.Moved; m != nil {
			s.Bytes = uint64(round(m.Bytes))
		}
		out = append(out, s)
	}
	for _, c := range r.Comparisons {
		out = append(out, comparisonLine(c.A.Condition.ID, c.B.Condition.ID, c.Verdict))
	}
	return out
}
