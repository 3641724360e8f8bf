package analysis

import (
	"fmt"
	"math"
	"slices"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Pair is the comparison of two rows.
type Pair struct {
	A, B *Row
	// Verdict has the ratio of time B over time A. It is not set when Refused.
	Verdict stats.Verdict
	// PRun is p after Holm's correction over all verdicts of the run; nil without a
	// verdict.
	PRun *float64
	// Unpaired counts blocks that only one side completed; they are left out.
	Unpaired int
	// Refused says why there is no comparison at all, "" when there is one.
	Refused string
}

// Faster returns the faster and the slower row by the estimate, with the ratio of
// their times (at least 1) and its interval, nil without one.
func (p Pair) Faster() (fast, slow *Row, ratio float64, ci *stats.Interval) {
	v := p.Verdict
	if v.Ratio >= 1 {
		return p.A, p.B, v.Ratio, v.Interval
	}
	return p.B, p.A, 1 / v.Ratio, turned(v.Interval)
}

// turned is the interval of 1 over what iv is of; nil of nil.
func turned(iv *stats.Interval) *stats.Interval {
	if iv == nil {
		return nil
	}
	return &stats.Interval{Lo: 1 / iv.Hi, Hi: 1 / iv.Lo, Level: iv.Level}
}

// turned is the pair with its sides exchanged.
func (p Pair) turned() Pair {
	p.A, p.B = p.B, p.A
	if v := &p.Verdict; p.Refused == "" {
		v.Ratio, v.Interval, v.NA, v.NB = 1/v.Ratio, turned(v.Interval), v.NB, v.NA
	}
	return p
}

// Warnings are those of the verdict that the verdict's own line does not tell.
func (p Pair) Warnings() []Warning {
	var out []Warning
	for _, w := range p.Verdict.Warnings {
		if w.Code != "too-few-units" && w.Code != "not-interleaved" {
			out = append(out, Warning{w.Code, p.A.Label + " and " + p.B.Label + ": " + w.Text})
		}
	}
	return out
}

// payload is what rows must share to be compared.
type payload struct {
	Op, Memory, PeerMem, Layout string
	TP, Block                   int
	Bytes                       uint64
}

func payloadOf(r *Row) payload {
	return payload{r.Op, r.Memory, r.PeerMem, r.Layout, r.TP, r.Block, r.Bytes}
}

// setting is what a provider may choose for itself; rows of different providers
// are compared across it unless the run varied it.
type setting struct {
	Streams, Depth int
	Chunk          uint64
}

func settingOf(r *Row) setting {
	return setting{r.Transport.Streams, r.Transport.Depth, r.Transport.Chunk}
}

// family names one question; Holm's correction runs over its sizes.
type family struct {
	kind, a, b string
	payload
	setting
}

// compare makes the pairs and brackets.
func (a *Analysis) compare() error {
	families := map[family][]*Pair{}
	var order []family
	var pairs, brackets []*Pair
	for j, y := range a.Rows {
		for _, x := range a.Rows[:j] {
			kind := a.comparable(x, y)
			if kind == "" {
				continue
			}
			p := &Pair{A: x, B: y}
			f := family{kind: kind, a: x.Provider, b: y.Provider, payload: payloadOf(x), setting: settingOf(x)}
			f.Bytes = 0
			if kind == "provider" {
				f.a, f.b = f.a+"\x00"+x.Shape, f.b+"\x00"+fmt.Sprint(x.Descs == y.Descs)
				pairs = append(pairs, p)
			} else {
				brackets = append(brackets, p)
			}
			if err := p.decide(a.Record.Run.Seed); err != nil {
				return err
			}
			if families[f] == nil {
				order = append(order, f)
			}
			families[f] = append(families[f], p)
		}
	}
	var questions [][]stats.Verdict
	var asked [][]*Pair
	for _, f := range order {
		var vs []stats.Verdict
		var at []*Pair
		for _, p := range families[f] {
			if p.Refused == "" {
				vs, at = append(vs, p.Verdict), append(at, p)
			}
		}
		adj, err := stats.AdjustFamily(vs)
		if err != nil {
			return err
		}
		for i, p := range at {
			p.Verdict = adj[i]
		}
		questions, asked = append(questions, adj), append(asked, at)
	}
	chance, over, err := chanceOf(questions)
	if err != nil {
		return err
	}
	a.Chance = chance
	for i, q := range asked {
		for k, p := range q {
			p.PRun = over[i][k]
		}
	}
	for _, p := range pairs {
		a.Pairs = append(a.Pairs, *p)
	}
	for _, p := range brackets {
		a.Brackets = append(a.Brackets, *p)
	}
	return nil
}

// comparable says what the difference of two rows answers: "provider", "shape",
// or "" for nothing.
func (a *Analysis) comparable(x, y *Row) string {
	if payloadOf(x) != payloadOf(y) || x.Ceiling || y.Ceiling {
		return ""
	}
	same := x.Provider == y.Provider
	if x.Shape == y.Shape && x.Descs == y.Descs {
		// A provider's own settings count as a difference only where the run
		// varied them; then rows are matched on them.
		if !same && (a.varied(x) || a.varied(y)) && settingOf(x) != settingOf(y) {
			return ""
		}
		if same && settingOf(x) != settingOf(y) {
			return ""
		}
		return "provider"
	}
	if same && settingOf(x) == settingOf(y) && x.Name != y.Name &&
		(x.Shape == "merged" && y.Shape == "fragmented" || x.Shape == "fragmented" && y.Shape == "merged") {
		return "shape"
	}
	return ""
}

// varied tells whether r's provider ran the same payload with several settings.
func (a *Analysis) varied(r *Row) bool {
	return slices.ContainsFunc(a.Rows, func(s *Row) bool {
		return s.Provider == r.Provider && s.Shape == r.Shape && payloadOf(s) == payloadOf(r) && settingOf(s) != settingOf(r)
	})
}

func (p *Pair) decide(seed uint64) error {
	if p.A.Shape == "fragmented" && p.B.Shape == "merged" {
		p.A, p.B = p.B, p.A
	}
	if p.refuse(); p.Refused != "" {
		return nil
	}
	as, bs, dropped, err := stats.PairUnits(p.A.Units, p.B.Units)
	if err != nil {
		return err
	}
	p.Unpaired = dropped
	p.Verdict, err = stats.ComparePaired(as, bs, stats.Options{Level: Level, Seed: seed})
	if err != nil {
		return fmt.Errorf("%s and %s: %w", p.A.Label, p.B.Label, err)
	}
	return nil
}

// Lines are the summaries of rows and the verdicts on pairs and brackets that a
// run appends to its record, for readers that do not compute their own.
func (a *Analysis) Lines() []record.Line { return slices.Concat(a.summaries(), a.comparisons()) }

func (a *Analysis) summaries() []record.Line {
	var out []record.Line
	for _, r := range a.Rows {
		if r.N == 0 {
			continue
		}
		failed := r.Failed
		s := record.Summary{
			Condition: r.ID, N: r.N, Blocks: r.Blocks, Bytes: r.Bytes, SumBytes: r.SumBytes, CPUNs: r.CPUNs, PeerCPUNs: r.PeerCPUNs,
			Failed: &failed, SteadyState: r.Steady.Class.String(), Simulated: r.Emulated,
		}
		if r.Valid() {
			s.MedianNs, s.MinNs, s.MaxNs, s.PostNs, s.SumTotalNs = round(r.MedianNs), round(r.MinNs), round(r.MaxNs), round(r.PostNs), r.SumNs
			if !r.P95.Guarded {
				s.P95Ns = round(r.P95.Value)
			}
			if r.CI != nil {
				s.MedianLoNs, s.MedianHiNs = round(r.CI.Lo), round(r.CI.Hi)
			}
		}
		out = append(out, s)
	}
	return out
}

func (a *Analysis) comparisons() []record.Line {
	var out []record.Line
	for _, p := range slices.Concat(a.Pairs, a.Brackets) {
		if p.Refused != "" {
			out = append(out, record.Comparison{A: p.A.ID, B: p.B.ID, Interleaved: true, Verdict: p.Outcome(), Reason: p.Refused})
			continue
		}
		out = append(out, comparisonLine(p.A.ID, p.B.ID, p.Verdict))
	}
	return out
}

// comparisonLine is a verdict on two conditions of one run.
func comparisonLine(a, b int, v stats.Verdict) record.Comparison {
	c := record.Comparison{A: a, B: b, Interleaved: true, Verdict: outcome(v), N: v.NA, P: finite(v.P), PHolm: finite(v.PAdjusted),
		Ratio: finite(v.Ratio), Detectable: finite(v.MDE)}
	if v.Interval != nil {
		c.RatioLo, c.RatioHi = finite(v.Interval.Lo), finite(v.Interval.Hi)
	}
	if v.Kind == stats.TooFew {
		c.Reason = fmt.Sprintf("%d units, %d are needed", min(v.NA, v.NB), v.Need)
	}
	return c
}

// Outcome is the verdict in the words of the record: different, no-difference,
// too-few, refused.
func (p Pair) Outcome() string {
	if p.Refused != "" {
		return "refused"
	}
	return outcome(p.Verdict)
}

func outcome(v stats.Verdict) string {
	switch v.Kind {
	case stats.Different:
		return "different"
	case stats.NoDifference:
		return "no-difference"
	}
	return "too-few"
}

func round(f float64) int64 { return int64(math.Round(f)) }

// finite is f, or nil where it is no number that JSON has.
func finite(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}
