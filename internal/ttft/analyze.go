package ttft

import (
	"fmt"
	"slices"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Result is what a run's requests say.
type Result struct {
	Rows        []Row
	Comparisons []ArmComparison
	Series      []Series
	// Requests and Invalid count the measured ones, without warm-up.
	Requests, Invalid int
	Reasons           map[record.Reason]int
	// Details are of the first request of each reason: an engine's own words, say.
	Details map[record.Reason]string
	// WarmupInvalid counts the requests before that.
	WarmupInvalid int
	Simulated     bool
}

// InvalidShare is the share of measured requests that do not count.
func (r *Result) InvalidShare() float64 {
	if r.Requests == 0 {
		return 0
	}
	return float64(r.Invalid) / float64(r.Requests)
}

// MaxInvalid is the share of invalid requests above which a run has failed.
const MaxInvalid = 0.05

// Row is one condition. Times are in ns; summaries are over the medians of
// blocks, which are the independent units, quantiles over requests.
type Row struct {
	Condition record.Condition
	Arm, Path string
	Tokens    int
	Level     string // "c1", "2/s", "offline"
	N         int    // valid requests
	Invalid   int
	Reasons   map[record.Reason]int
	// TTFT is nil without a valid request.
	TTFT     *stats.Summary
	P95, P99 *stats.QuantileResult
	maxTTFT  float64
	// Medians over valid requests; 0 if there are none.
	ITL, E2E float64
	Split    *SplitMedians
	Moved    *MovedMedians
	// Offline: makespan of a block's batch and tokens out of it a second.
	Makespan   *stats.Summary
	Throughput float64 // output tokens a second, Σtokens/Σmakespan
	// Cold connections: requests for which one had to be opened.
	Cold int
	// Merged: requests of which a chunk had to hold several tokens, because the
	// server got to sending late: the first one may hold more than the first token.
	Merged int
	// Mismatch: requests whose two first tokens differ, of Matched compared.
	Mismatch, Matched int
}

// SplitMedians are the medians of the parts of the TTFT.
type SplitMedians struct {
	Wait, Prefill, HandOver, DecodeQueue, OneToken, Network float64
	// Engine is how many of the requests had the engines' own counts.
	Engine, N int
}

// MovedMedians are what NIXL counted for each transfer.
type MovedMedians struct {
	Transfers         int64
	Bytes             float64 // a transfer
	MinDesc, MaxDesc  int64   // descriptors after merging, of single requests
	Xfer, Post, Share float64 // ns, ns, and the share of TTFT that Xfer is (medians)
}

// ArmComparison compares an arm with the first one.
type ArmComparison struct {
	A, B    int // condition ids
	Name    string
	Base    string
	Tokens  int
	Level   string
	Verdict stats.Verdict
	Dropped int // blocks that only one of the arms has
}

// Analyze computes the result of a run from its lines.
func Analyze(lines []record.Request, conds []record.Condition, seed uint64) (*Result, error) {
	res := &Result{Reasons: map[record.Reason]int{}, Details: map[record.Reason]string{}}
	by := map[int][]record.Request{}
	for _, l := range lines {
		res.Simulated = res.Simulated || l.Simulated
		if l.Phase != record.PhaseMeasure {
			if !l.Valid {
				res.WarmupInvalid++
			}
			continue
		}
		res.Requests++
		if !l.Valid {
			res.Invalid++
			if res.Reasons[l.Reason]++; res.Reasons[l.Reason] == 1 {
				res.Details[l.Reason] = l.Detail
			}
		}
		by[l.Condition] = append(by[l.Condition], l)
	}
	units := map[int][]stats.Unit{}
	for _, c := range conds {
		row, u, err := newRow(c, by[c.ID])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		res.Rows = append(res.Rows, row)
		units[c.ID] = u
	}
	if err := res.compare(units, seed); err != nil {
		return nil, err
	}
	var err error
	res.Series, err = series(lines)
	return res, err
}

func newRow(c record.Condition, lines []record.Request) (Row, []stats.Unit, error) {
	row := Row{Condition: c, Arm: c.Provider, Tokens: int(c.Tokens), Reasons: map[record.Reason]int{}}
	var ttft, itl, e2e []float64
	var samples []stats.Sample
	var valid []record.Request
	for _, l := range lines {
		row.Path, row.Level = l.Path, level(l)
		if !l.Valid {
			row.Invalid++
			row.Reasons[l.Reason]++
			continue
		}
		valid = append(valid, l)
		samples = append(samples, stats.Sample{Block: l.Block, Value: float64(l.TTFTNs)})
		ttft = append(ttft, float64(l.TTFTNs))
		e2e = append(e2e, float64(l.E2ENs))
		for _, d := range l.ITLNs {
			itl = append(itl, float64(d))
		}
		if len(l.ITLNs)+1 < l.Completion {
			row.Merged++
		}
		if !l.ConnReused || l.PrefillConnReused != nil && !*l.PrefillConnReused {
			row.Cold++
		}
		if l.FirstTokenMatch != nil {
			row.Matched++
			if !*l.FirstTokenMatch {
				row.Mismatch++
			}
		}
	}
	row.N = len(valid)
	if row.N == 0 {
		return row, nil, nil
	}
	units, err := stats.BlockMedians(samples)
	if err != nil {
		return row, nil, err
	}
	sum, err := stats.Summarize(stats.Values(units), 0.95)
	if err != nil {
		return row, nil, err
	}
	row.TTFT, row.maxTTFT = &sum, slices.Max(ttft)
	for p, q := range map[float64]**stats.QuantileResult{0.95: &row.P95, 0.99: &row.P99} {
		v, err := stats.Quantile(ttft, p)
		if err != nil {
			return row, nil, err
		}
		*q = &v
	}
	if row.E2E, err = stats.Median(e2e); err != nil {
		return row, nil, err
	}
	if len(itl) > 0 {
		if row.ITL, err = stats.Median(itl); err != nil {
			return row, nil, err
		}
	}
	if row.Split, err = splitMedians(valid); err != nil {
		return row, nil, err
	}
	if row.Moved, err = movedMedians(valid, sum.Median); err != nil {
		return row, nil, err
	}
	return row, units, row.offline(lines)
}

func level(l record.Request) string {
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

func movedMedians(lines []record.Request, ttft float64) (*MovedMedians, error) {
	m := &MovedMedians{}
	var bytes, xfer, post []float64
	seen := map[int]bool{}
	for _, l := range lines {
		if l.Moved == nil || seen[l.Batch] {
			continue
		}
		seen[l.Batch] = true
		n := float64(l.Moved.Transfers)
		m.Transfers += l.Moved.Transfers
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
func (row *Row) offline(lines []record.Request) error {
	type batch struct {
		end    int64
		tokens int
		bad    bool
	}
	batches := map[int]*batch{}
	for _, l := range lines {
		if l.Load != record.LoadOffline {
			return nil
		}
		b := batches[l.Batch]
		if b == nil {
			b = &batch{}
			batches[l.Batch] = b
		}
		b.end = max(b.end, l.E2ENs)
		b.tokens += l.Completion
		b.bad = b.bad || !l.Valid
	}
	var spans []float64
	var tokens []int64
	for _, b := range batches {
		if !b.bad {
			spans = append(spans, float64(b.end))
			tokens = append(tokens, int64(b.tokens))
		}
	}
	if len(spans) == 0 {
		return nil
	}
	sum, err := stats.Summarize(spans, 0.95)
	if err != nil {
		return err
	}
	row.Makespan = &sum
	row.Throughput, err = stats.Rate(tokens, spans)
	return err
}

// compare holds every arm against the first one of the run with the same prompt
// length and load.
func (r *Result) compare(units map[int][]stats.Unit, seed uint64) error {
	var verdicts []stats.Verdict
	for i, b := range r.Rows {
		at := slices.IndexFunc(r.Rows, func(a Row) bool { return a.Tokens == b.Tokens && a.Level == b.Level })
		a := r.Rows[at]
		if at == i || a.N == 0 || b.N == 0 {
			continue
		}
		as, bs, dropped, err := stats.PairUnits(units[a.Condition.ID], units[b.Condition.ID])
		if err != nil {
			return err
		}
		v, err := stats.ComparePaired(as, bs, stats.Options{Seed: seed})
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
		r.Comparisons = append(r.Comparisons, ArmComparison{A: a.Condition.ID, B: b.Condition.ID, Name: b.Arm, Base: a.Arm,
			Tokens: b.Tokens, Level: b.Level, Dropped: dropped})
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
