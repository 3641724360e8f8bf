package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Deployment is what a serving setup asks of the wire. Times are in ns.
type Deployment struct {
	// Model is whose KV cache crosses, as records name it.
	Model string
	// Prompts are the lengths of the requests in order of tokens, each once.
	Prompts []Prompt
	// Ranks is how many transfer a prompt's cache at once, each its part; 0 is 1.
	Ranks int
	// Concurrency is how many requests are in flight, at least 1.
	Concurrency int
	// PricePerHour is that of a prefill and a decode node together; 0: not given.
	PricePerHour float64
	Worth        Worth
	// TTFTNs are the times to first token at the points of the advice where they
	// are given and not measured: one for all of them, or one each.
	TTFTNs []float64
	// Arm is the arm of a TTFT record to take; "" where it has one that moves a cache.
	Arm string
}

// Prompt is a length of prompts: its tokens, the bytes of its KV cache as one
// rank moves them, and how many requests have it.
type Prompt struct{ Tokens, Bytes, N int64 }

// Advice is what records say about a deployment.
type Advice struct {
	Deployment
	Requests int64
	Points   []Point
	// Records are of raw transfers; TTFT is a run that gives the times to first
	// token, or nil.
	Records    []*Analysis
	TTFT       *Requests
	Transports []*Candidate
	Contests   []Contest
	Warnings   []Warning
}

// Point is a percentile of the prompt lengths.
type Point struct {
	Name string // "p50"
	Prompt
	// FirstToken is the time to first token there, nil where it is not known and
	// Unknown says why.
	FirstToken *FirstToken
	Unknown    string
}

// FirstToken is a time to first token: given, or of a record.
type FirstToken struct {
	Ns float64
	// CI is nil for a given time and with too few units.
	CI    *stats.Interval
	Basis Basis // NotMeasured for a time that was given
	Rows  []*RequestRow
	wide  *stats.Interval // at wideLevel
}

// Candidate is one way of moving a KV cache: rows of one record that differ in
// size alone.
type Candidate struct {
	// Label names it without a size: "tcp READ merged".
	Label string
	// Record is its place among Advice.Records.
	Record int
	Rows   []*Row
	At     []Estimate // one for each point
	Cost   *Cost      // nil without a price, or where no prompt's time is known

	curve curve
}

// Estimate is the transfer time at a point.
type Estimate struct {
	Basis    Basis
	Rows     []*Row // that it rests on
	MedianNs float64
	// CI is nil with too few units. Of a Scaled time it holds all that a line
	// through the one size allows.
	CI *stats.Interval
	// Share of the time to first token, nil where it is not known: NoShare says why.
	Share   *Proportion
	NoShare string

	units []stats.Unit
}

// Proportion is a share with its interval, nil where either part has none.
type Proportion struct {
	Value float64
	CI    *stats.Interval
}

// Cost is the price of waiting: what a million prompt tokens cost in time of the
// nodes while their KV cache crosses, divided among the requests in flight.
type Cost struct {
	PerMillion float64
	// CI is nil with too few units, and where some time was Scaled.
	CI *stats.Interval
	// Covered is the share of all prompt tokens whose transfer time is known; the
	// others are not in the cost.
	Covered float64
}

// wideLevel is the level of each of two intervals whose quotient holds [Level].
const wideLevel = 1 - (1-Level)/2

// ErrAdvice is matched by the errors of [Advise] about what was asked.
var ErrAdvice = errors.New("no advice")

// Advise holds raw records against a deployment; tt may be nil.
func Advise(d Deployment, raws []*Analysis, tt *Requests) (*Advice, error) {
	if len(d.Prompts) == 0 || d.Concurrency < 1 {
		return nil, fmt.Errorf("%w: a deployment of %d prompt lengths and %d requests in flight", ErrAdvice, len(d.Prompts), d.Concurrency)
	}
	a := &Advice{Deployment: d, Records: raws, TTFT: tt}
	for _, p := range d.Prompts {
		a.Requests += p.N
	}
	a.Points = []Point{{Name: "p50", Prompt: d.percentile(0.5, a.Requests)}, {Name: "p95", Prompt: d.percentile(0.95, a.Requests)}}
	if a.Points[0].Prompt == a.Points[1].Prompt {
		a.Points = []Point{{Name: "p50=p95", Prompt: a.Points[0].Prompt}}
	}
	if err := a.firstTokens(); err != nil {
		return nil, err
	}
	for i, raw := range raws {
		for _, c := range raw.candidates() {
			c.Record = i
			if err := a.estimate(c); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Label, err)
			}
			a.Transports = append(a.Transports, c)
		}
	}
	if err := a.contests(); err != nil {
		return nil, err
	}
	a.warn()
	return a, nil
}

// percentile is the nearest rank: the shortest prompt that at least the fraction q
// of the n requests does not exceed.
func (d Deployment) percentile(q float64, n int64) Prompt {
	rank := int64(math.Ceil(q * float64(n)))
	for _, p := range d.Prompts {
		if rank -= p.N; rank <= 0 {
			return p
		}
	}
	return d.Prompts[len(d.Prompts)-1]
}

// Measured tells whether any time at any point is known.
func (a *Advice) Measured() bool {
	return slices.ContainsFunc(a.Transports, func(c *Candidate) bool {
		return slices.ContainsFunc(c.At, func(e Estimate) bool { return e.Basis != NotMeasured })
	})
}

// candidates are the rows that a deployment could use, by all but their size:
// measured, checked, and neither a ceiling nor a copy in memory.
func (a *Analysis) candidates() []*Candidate {
	var out []*Candidate
	at := map[series]*Candidate{}
	for _, r := range a.Rows {
		if !r.HasSpeed() || r.Ceiling || r.API == "memcpy" {
			continue
		}
		k := a.seriesOf(r, false)
		c := at[k]
		if c == nil {
			c = &Candidate{Label: r.WithoutSize()}
			at[k] = c
			out = append(out, c)
		}
		if !slices.ContainsFunc(c.Rows, func(s *Row) bool { return s.Bytes == r.Bytes }) {
			c.Rows = append(c.Rows, r)
		}
	}
	for _, c := range out {
		slices.SortStableFunc(c.Rows, func(x, y *Row) int { return cmp.Compare(x.Bytes, y.Bytes) })
		var ps []curvePoint
		for _, r := range c.Rows {
			ps = append(ps, curvePoint{int64(r.Bytes), r.Units})
		}
		c.curve = newCurve(ps)
	}
	return out
}

// estimate fills in a candidate's times, shares and cost.
func (a *Advice) estimate(c *Candidate) error {
	for _, p := range a.Points {
		e, err := c.at(p.Bytes)
		if err != nil {
			return err
		}
		if err := e.share(p); err != nil {
			return err
		}
		c.At = append(c.At, e)
	}
	return a.cost(c)
}

func (c *Candidate) at(bytes int64) (e Estimate, err error) {
	us, basis, from := c.curve.at(bytes)
	if len(us) == 0 {
		return e, nil
	}
	e.Basis, e.units = basis, us
	for _, i := range from {
		e.Rows = append(e.Rows, c.Rows[i])
	}
	e.MedianNs, e.CI, err = summary(us, Level)
	if basis == Scaled {
		e.CI = scaled(e.CI, int64(c.Rows[0].Bytes), bytes)
	}
	return e, err
}

// summary is the median of units and its interval at level.
func summary(us []stats.Unit, level float64) (float64, *stats.Interval, error) {
	s, err := stats.Summarize(stats.Values(us), level)
	return s.Median, s.CI, err
}

// scaled widens the interval of a time that was told in proportion from the size
// from to the size to: any start-up time puts the truth between the two times.
func scaled(iv *stats.Interval, from, to int64) *stats.Interval {
	if iv == nil {
		return nil
	}
	back := float64(from) / float64(to)
	return &stats.Interval{Lo: iv.Lo * math.Min(1, back), Hi: iv.Hi * math.Max(1, back), Level: iv.Level}
}

// share holds the time against the point's time to first token. Both medians
// stand as they are shown; the interval is of the two intervals' ends, each at
// wideLevel, so that it holds Level whatever the two have in common.
func (e *Estimate) share(p Point) error {
	switch {
	case e.Basis == NotMeasured:
		return nil
	case p.FirstToken == nil:
		e.NoShare = p.Unknown
		return nil
	case e.MedianNs > p.FirstToken.Ns:
		e.NoShare = "the transfer alone takes longer than the first token, which so came another way"
		return nil
	}
	ft := p.FirstToken
	s := &Proportion{Value: e.MedianNs / ft.Ns}
	e.Share = s
	if ft.Basis == NotMeasured {
		if e.CI != nil {
			s.CI = &stats.Interval{Lo: e.CI.Lo / ft.Ns, Hi: e.CI.Hi / ft.Ns, Level: e.CI.Level}
		}
		return nil
	}
	_, iv, err := summary(e.units, wideLevel)
	if err != nil {
		return err
	}
	if e.Basis == Scaled {
		iv = scaled(iv, int64(e.Rows[0].Bytes), p.Bytes)
	}
	if iv != nil && ft.wide != nil {
		s.CI = &stats.Interval{Lo: iv.Lo / ft.wide.Hi, Hi: iv.Hi / ft.wide.Lo, Level: Level}
	}
	return nil
}

// cost adds up the waiting of all requests whose time is known, unit by unit.
func (a *Advice) cost(c *Candidate) error {
	if a.PricePerHour <= 0 {
		return nil
	}
	sums, seen := map[stats.UnitKey]float64{}, map[stats.UnitKey]int{}
	var tokens, all float64
	known, bounded := 0, true
	for _, p := range a.Prompts {
		weight := float64(p.N)
		all += weight * float64(p.Tokens)
		us, basis, _ := c.curve.at(p.Bytes)
		if len(us) == 0 {
			continue
		}
		bounded = bounded && basis != Scaled
		known++
		tokens += weight * float64(p.Tokens)
		for _, u := range us {
			sums[u.Key] += weight * u.Value
			seen[u.Key]++
		}
	}
	var xs []float64
	for k, ns := range sums {
		if seen[k] == known { // a unit that some size lacks would count too little
			xs = append(xs, ns/3.6e12*a.PricePerHour/float64(a.Concurrency)/tokens*1e6)
		}
	}
	if len(xs) == 0 || tokens == 0 {
		return nil
	}
	s, err := stats.Summarize(xs, Level)
	if err != nil {
		return err
	}
	c.Cost = &Cost{PerMillion: s.Median, Covered: tokens / all}
	if bounded {
		c.Cost.CI = s.CI
	}
	return nil
}

// firstTokens finds the time to first token at each point.
func (a *Advice) firstTokens() error {
	switch n := len(a.TTFTNs); {
	case n > 0 && a.TTFT != nil:
		return fmt.Errorf("%w: a time to first token was given, and a TTFT record as well", ErrAdvice)
	case n > 0 && n != 1 && n != len(a.Points):
		return fmt.Errorf("%w: %d times to first token for %d prompt lengths", ErrAdvice, n, len(a.Points))
	case n > 0:
		for i := range a.Points {
			a.Points[i].FirstToken = &FirstToken{Ns: a.TTFTNs[min(i, n-1)]}
		}
		return nil
	case a.TTFT == nil:
		for i := range a.Points {
			a.Points[i].Unknown = "no time to first token is known"
		}
		return nil
	}
	rows, why, err := a.armRows()
	if err != nil {
		return err
	}
	for i := range a.Points {
		p := &a.Points[i]
		if p.Unknown = why; why != "" {
			continue
		}
		if p.FirstToken, err = firstToken(rows, p.Tokens); err != nil {
			return err
		}
		if p.FirstToken == nil {
			p.Unknown = fmt.Sprintf("the TTFT record has no prompts within a factor of %d of %d tokens", reach, p.Tokens)
		}
	}
	return nil
}

// armRows are the rows of one arm at one load; why says that there is none.
func (a *Advice) armRows() (rows []*RequestRow, why string, err error) {
	var arms, loads []string
	for _, r := range a.TTFT.Rows {
		moves := r.Path != record.PathUnified && r.Path != record.PathDirect
		if r.TTFT == nil || a.Arm != "" && r.Arm != a.Arm || a.Arm == "" && !moves {
			continue
		}
		rows, arms, loads = append(rows, r), append(arms, r.Arm), append(loads, r.Load)
	}
	arms, loads = once(arms), once(loads)
	want := fmt.Sprintf("c%d", a.Concurrency)
	switch {
	case len(rows) == 0 && a.Arm != "":
		return nil, "", fmt.Errorf("%w: the TTFT record has no valid request of an arm %q", ErrAdvice, a.Arm)
	case len(rows) == 0:
		return nil, "the TTFT record has no valid request that moved a KV cache", nil
	case len(arms) > 1:
		return nil, "", fmt.Errorf("%w: the TTFT record has the arms %s: name one", ErrAdvice, strings.Join(arms, ", "))
	case slices.Contains(loads, want):
		return slices.DeleteFunc(rows, func(r *RequestRow) bool { return r.Load != want }), "", nil
	}
	return nil, fmt.Sprintf("the TTFT record has the loads %s and not %s", strings.Join(loads, ", "), want), nil
}

func firstToken(rows []*RequestRow, tokens int64) (*FirstToken, error) {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(x, y *RequestRow) int { return x.Tokens - y.Tokens })
	rows = slices.CompactFunc(rows, func(x, y *RequestRow) bool { return x.Tokens == y.Tokens })
	var ps []curvePoint
	for _, r := range rows {
		ps = append(ps, curvePoint{int64(r.Tokens), r.Units})
	}
	us, basis, from := newCurve(ps).at(tokens)
	if len(us) == 0 {
		return nil, nil
	}
	f := &FirstToken{Basis: basis}
	for _, i := range from {
		f.Rows = append(f.Rows, rows[i])
	}
	var err error
	if f.Ns, f.CI, err = summary(us, Level); err != nil {
		return nil, err
	}
	if _, f.wide, err = summary(us, wideLevel); err != nil {
		return nil, err
	}
	if basis == Scaled {
		f.CI, f.wide = scaled(f.CI, int64(rows[0].Tokens), tokens), scaled(f.wide, int64(rows[0].Tokens), tokens)
	}
	return f, nil
}

// warn says what limits the advice.
func (a *Advice) warn() {
	add := func(code, format string, args ...any) {
		a.Warnings = append(a.Warnings, Warning{code, fmt.Sprintf(format, args...)})
	}
	for i, rec := range a.Records {
		a.Warnings = append(a.Warnings, a.warnOf(string(rune('A'+i)), rec)...)
	}
	if len(a.Records) > 1 {
		add("not-interleaved", "transports of different records are not compared: they were not interleaved; name them in one run for a verdict")
	}
	if a.Concurrency > 1 {
		add("not-concurrent", "%d requests in flight: how their transfers hinder each other was not measured, since a row is of one transfer at a time", a.Concurrency)
	}
	if a.Ranks > 1 {
		add("one-rank", "%d ranks transfer at once, each its part: the times are of one rank by itself", a.Ranks)
	}
	if a.TTFT != nil && a.TTFT.Simulated {
		add("simulated", "the times to first token are of simulated engines: no measurement")
	}
	n := 0
	for _, c := range a.Contests {
		for _, d := range c.Points {
			if d.Answer != AnswerUnknown {
				n++
			}
		}
	}
	if n > 1 {
		add("several-verdicts", "%d differences are judged, each at 95 %% by itself: the more there are, the likelier is one that is false", n)
	}
}

// warnOf is about one record, which name stands for.
func (a *Advice) warnOf(name string, rec *Analysis) (out []Warning) {
	add := func(code, format string, args ...any) {
		out = append(out, Warning{code, name + ": " + fmt.Sprintf(format, args...)})
	}
	var emulated, failed, models []string
	for _, r := range rec.Rows {
		switch {
		case r.Emulated:
			emulated = append(emulated, r.Label)
		case r.Failed > 0:
			failed = append(failed, r.Label)
		case r.Model != "" && a.Model != "" && !r.Ceiling && r.Model != a.Model:
			models = append(models, r.Model)
		}
	}
	if len(emulated) > 0 {
		add("emulated", "rows of an emulated device advise nothing: %s", strings.Join(emulated, ", "))
	}
	if len(failed) > 0 {
		add("data-check-failed", "rows whose data check failed advise nothing: %s", strings.Join(failed, ", "))
	}
	if len(models) > 0 {
		add("other-model", "its transfers have the descriptors of %s, not of %s: the bytes are the deployment's, the descriptors are not", strings.Join(once(models), ", "), a.Model)
	}
	if !slices.ContainsFunc(rec.Rows, func(r *Row) bool { return r.Launches > 1 }) {
		add("one-launch", "measured in one launch: its intervals lack what differs from one start of the processes to the next; --launches has that")
	}
	if !LeavesHost(&rec.Record.Run) {
		add("one-host", "measured within one host: its times are not those of a network between two")
	}
	if rec.Record.End == nil || rec.Record.End.Status != record.StatusOK {
		add("not-complete", "the run is not complete")
	}
	return out
}
