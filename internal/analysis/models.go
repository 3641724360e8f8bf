package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/stats"
)

// minSizes is the fewest sizes for a cost model: two points always lie on a
// line.
const minSizes = 3

// Model is the cost of one provider over sizes, on which its times form a line.
type Model struct {
	// Label is the provider with what else the rows share.
	Label string
	// Parts is of how many lines over neighbouring sizes this is one: a provider that
	// changes its protocol has several.
	Parts int
	// Rows are in order of size. Rows of the same bytes, and descriptors where
	// the model has them, are one point of the model.
	Rows []*Row
	// Cost has a time per descriptor where their number was varied at one size.
	Cost stats.CostModel
}

// PieceModel is the cost of cutting the same bytes into descriptors: time =
// BaseNs + NsPerDesc × descriptors.
type PieceModel struct {
	Label       string
	Bytes       uint64
	Rows        []*Row // in order of descriptors
	BaseNs      float64
	NsPerDesc   float64
	NsPerDescCI stats.Interval
	Warnings    []Warning
}

// Guide is the advice on two providers over the sizes that were measured: their
// verdicts, size by size, decide it.
type Guide struct {
	// A and B are the rows of the smallest size.
	A, B  *Row
	Zones []stats.Zone
	// Crossings are where the faster one changes.
	Crossings []Crossing
	// Units is the fewest units behind a verdict, and Need is how many the verdicts
	// need that have too few; 0 where none has.
	Units, Need int
}

// Crossing is a change of the faster provider, somewhere between two sizes.
type Crossing struct {
	stats.Turn
	// Lines is where the lines of both cross, with an interval that lies between
	// the two sizes; nil unless both have one line there, and it says so.
	Lines *stats.Crossover
}

// MinBytes and MaxBytes are the sizes between which the guide gives advice.
func (g Guide) MinBytes() int64 { return g.Zones[0].FromBytes }

// MaxBytes is the largest size.
func (g Guide) MaxBytes() int64 { return g.Zones[len(g.Zones)-1].ToBytes }

// Sizes is how many different sizes the guide rests on.
func (g Guide) Sizes() int {
	n := 0
	for _, z := range g.Zones {
		n += z.Sizes
	}
	return n
}

// series is what the rows of a model share: all but size and descriptors.
type series struct {
	provider string
	payload
	setting
	shape string // "" for a model over shapes
	descs int    // of contiguous bytes cut into a given number of pieces
}

func (a *Analysis) seriesOf(r *Row, overShapes bool) series {
	s := series{provider: r.Provider, payload: payloadOf(r)}
	s.Bytes = 0
	if !overShapes {
		s.shape = r.Shape
		if r.Shape == "contiguous" {
			s.descs = r.Descs
		}
	}
	if a.varied(r) {
		s.setting = settingOf(r)
	}
	return s
}

// grouped are the rows that may be fitted, by series, in order: transports, not
// copies in memory, whose caches are no line.
func (a *Analysis) grouped(key func(r *Row) series) [][]*Row {
	at := map[series]int{}
	var out [][]*Row
	for _, r := range a.Rows {
		if !r.HasSpeed() || r.API == "memcpy" {
			continue
		}
		k := key(r)
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], r)
	}
	return out
}

// models fits the cost models and guidelines of a sweep. What cannot be fitted is a
// warning: the rows stand without it.
func (a *Analysis) models() {
	for _, rows := range a.grouped(func(r *Row) series { return a.seriesOf(r, false) }) {
		if sizes(rows) >= minSizes {
			a.lines(rows)
		}
	}
	a.guides()
	for _, rows := range a.grouped(func(r *Row) series { return a.seriesOf(r, true) }) {
		// Three coefficients: fewer than four cells would always fit.
		if !rows[0].Ceiling && sizes(rows) >= 2 && cells(rows) > 3 && cells(rows) > sizes(rows) {
			a.plane(rows, rows[0].Provider+" "+rows[0].opWord()+", all descriptor counts")
		}
	}
	a.pieces()
}

// lines fits the cost of rows over sizes, piecewise. What is not a line gets a
// warning and no model.
func (a *Analysis) lines(rows []*Row) {
	label := rows[0].WithoutSize()
	rows = slices.SortedStableFunc(slices.Values(rows), func(x, y *Row) int { return cmp.Compare(x.Bytes, y.Bytes) })
	ms, err := stats.FitSegments(points(rows, func(r *Row) (bytes, descriptors int64) { return int64(r.Bytes), 0 }), Level)
	if err != nil {
		a.unfit(err, "cost model of "+label)
		return
	}
	for _, m := range ms {
		if !m.Line() {
			i := slices.IndexFunc(m.Warnings, func(w stats.Warning) bool { return w.Code == stats.NotALine })
			a.unfitted = append(a.unfitted, Warning{stats.NotALine, fmt.Sprintf("%s: no cost model from %d to %d bytes: %s", label, m.MinBytes, m.MaxBytes, m.Warnings[i].Text)})
			continue
		}
		within := slices.DeleteFunc(slices.Clone(rows), func(r *Row) bool { return int64(r.Bytes) < m.MinBytes || int64(r.Bytes) > m.MaxBytes })
		a.Models = append(a.Models, Model{Label: label, Parts: len(ms), Rows: within, Cost: m})
	}
}

// plane fits the cost of rows over sizes and descriptors.
func (a *Analysis) plane(rows []*Row, label string) {
	rows = slices.SortedStableFunc(slices.Values(rows), func(x, y *Row) int { return cmp.Compare(x.Bytes, y.Bytes) })
	m, err := stats.FitCost(points(rows, func(r *Row) (bytes, descriptors int64) { return int64(r.Bytes), int64(r.Descs) }), Level)
	if err != nil {
		a.unfit(err, "cost model of "+label)
		return
	}
	a.Models = append(a.Models, Model{Label: label, Parts: 1, Rows: rows, Cost: m})
}

// points are the units of rows: with several launches, a launch takes the place of
// a block.
func points(rows []*Row, of func(*Row) (bytes, descriptors int64)) []stats.CostPoint {
	var out []stats.CostPoint
	for _, r := range rows {
		bytes, descriptors := of(r)
		for _, u := range r.Units {
			out = append(out, stats.CostPoint{Block: max(u.Key.Block, u.Key.Launch), Bytes: bytes, Descriptors: descriptors, TimeNS: u.Value})
		}
	}
	return out
}

// unfit warns that something could not be fitted; rows of too few blocks have a
// warning of their own.
func (a *Analysis) unfit(err error, what string) {
	if !errors.Is(err, stats.ErrTooFew) {
		a.unfitted = append(a.unfitted, Warning{"not-fitted", fmt.Sprintf("no %s: %v; the rows and verdicts hold without it: use sizes or descriptor counts further apart for one", what, err)})
	}
}

// WithoutSize is the row's label less its size.
func (r *Row) WithoutSize() string {
	return strings.Join(slices.DeleteFunc(strings.Fields(r.Label), func(w string) bool { return w == Size(r.Bytes) }), " ")
}

// pieces fits the time of a descriptor where the same contiguous bytes were cut
// into three numbers of them or more.
func (a *Analysis) pieces() {
	for _, rows := range a.grouped(func(r *Row) series {
		s := a.seriesOf(r, true)
		s.shape, s.Bytes = r.Shape, r.Bytes
		return s
	}) {
		if rows[0].Shape != "contiguous" || cells(rows) < minSizes {
			continue
		}
		rows = slices.Clone(rows)
		slices.SortStableFunc(rows, func(x, y *Row) int { return cmp.Compare(x.Descs, y.Descs) })
		label := fmt.Sprintf("%s %s of %s", rows[0].Provider, rows[0].opWord(), Size(rows[0].Bytes))
		// The same least squares, with descriptors in the place of bytes.
		m, err := stats.FitCost(points(rows, func(r *Row) (bytes, descriptors int64) { return int64(r.Descs), 0 }), Level)
		if err != nil {
			a.unfit(err, "descriptor cost of "+label)
			continue
		}
		p := PieceModel{Label: label, Bytes: rows[0].Bytes, Rows: rows, BaseNs: m.AlphaNS, NsPerDesc: m.NSPerByte, NsPerDescCI: m.NSPerByteCI}
		if m.WorstResidual > 0.1 {
			p.Warnings = append(p.Warnings, Warning{"not-a-line", fmt.Sprintf("%s: with %d descriptors the times are %.0f %% off the line base + descriptors: several costs meet here, such as pipelining or splitting", label, m.WorstBytes, m.WorstResidual*100)})
		}
		a.Pieces = append(a.Pieces, p)
	}
}

// sizes counts the different sizes of rows.
func sizes(rows []*Row) int {
	return count(rows, func(r *Row) uint64 { return r.Bytes })
}

// cells counts the different pairs of size and number of descriptors.
func cells(rows []*Row) int {
	return count(rows, func(r *Row) [2]uint64 { return [2]uint64{r.Bytes, uint64(r.Descs)} })
}

// count is how many different values xs have.
func count[X any, K comparable](xs []X, of func(X) K) int {
	seen := map[K]bool{}
	for _, x := range xs {
		seen[of(x)] = true
	}
	return len(seen)
}

// duel is a pair of series that differ in the provider alone.
type duel struct{ a, b series }

// guides joins the verdicts on pairs into advice over sizes.
func (a *Analysis) guides() {
	of := map[duel][]Pair{}
	var order []duel
	for _, p := range a.Pairs {
		d := duel{a.seriesOf(p.A, false), a.seriesOf(p.B, false)}
		if d.a.provider == d.b.provider {
			continue
		}
		if back := (duel{d.b, d.a}); of[back] != nil {
			d, p = back, p.turned()
		}
		if of[d] == nil {
			order = append(order, d)
		}
		of[d] = append(of[d], p)
	}
	for _, d := range order {
		judged := slices.DeleteFunc(slices.Clone(of[d]), func(p Pair) bool { return p.Refused != "" })
		if count(judged, func(p Pair) uint64 { return p.A.Bytes }) >= minSizes {
			a.Guides = append(a.Guides, a.guide(d, of[d]))
		}
	}
}

// rivals tells whether rows of two providers answer which one to use: all else but
// the size is the same.
func (a *Analysis) rivals(p, q *Row) bool {
	pp, pq := payloadOf(p), payloadOf(q)
	pp.Bytes, pq.Bytes = 0, 0
	switch {
	case p.Ceiling || q.Ceiling || p.Provider == q.Provider || pp != pq || p.Shape != q.Shape:
		return false
	case p.Shape == "contiguous" && p.Descs != q.Descs:
		return false
	case a.varied(p) || a.varied(q):
		return settingOf(p) == settingOf(q)
	}
	return true
}

// guide makes the advice of pairs. A size with several pairs, of a provider that
// stands in the run twice, has the standing that they agree on.
func (a *Analysis) guide(d duel, pairs []Pair) Guide {
	pairs = slices.SortedStableFunc(slices.Values(pairs), func(x, y Pair) int { return cmp.Compare(x.A.Bytes, y.A.Bytes) })
	g := Guide{A: pairs[0].A, B: pairs[0].B, Units: math.MaxInt}
	var at []stats.SizeStanding
	for _, p := range pairs {
		s := stats.SizeStanding{Bytes: int64(p.A.Bytes)}
		if p.Refused == "" {
			s.Standing = p.Verdict.Standing(Relevant)
			g.Units = min(g.Units, p.Verdict.NA)
			if p.Verdict.Kind == stats.TooFew {
				g.Need = max(g.Need, p.Verdict.Need)
			}
		}
		if n := len(at); n > 0 && at[n-1].Bytes == s.Bytes {
			if at[n-1].Standing != s.Standing {
				at[n-1].Standing = stats.Undecided
			}
			continue
		}
		at = append(at, s)
	}
	g.Zones = stats.Zones(at)
	for _, t := range stats.Turns(g.Zones) {
		g.Crossings = append(g.Crossings, Crossing{t, a.sharpen(d, t)})
	}
	return g
}

// sharpen finds where the lines of both series cross, if one line of each spans the
// sizes of the turn and the interval of the crossing lies between them.
func (a *Analysis) sharpen(d duel, t stats.Turn) *stats.Crossover {
	line := func(s series) *stats.CostModel {
		for _, m := range a.Models {
			if a.seriesOf(m.Rows[0], false) == s && m.Cost.MinBytes <= t.FromBytes && t.ToBytes <= m.Cost.MaxBytes {
				return &m.Cost
			}
		}
		return nil
	}
	x, y := line(d.a), line(d.b)
	if x == nil || y == nil {
		return nil
	}
	c, err := stats.FindCrossover(*x, *y, 0)
	before := x.TimeNS(t.FromBytes, 0) < y.TimeNS(t.FromBytes, 0)
	if err != nil || c.Kind != stats.CrossesAt || c.Interval.Lo < float64(t.FromBytes) || c.Interval.Hi > float64(t.ToBytes) || before != (t.Before == stats.AFaster) {
		return nil // the sizes between which it lies stand without it
	}
	return &c
}
