package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/stats"
)

// minSizes is the fewest sizes for a cost model: two points always lie on a
// line.
const minSizes = 3

// Model is the cost of one provider over sizes.
type Model struct {
	// Label is the provider with what else the rows share.
	Label string
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

// Guide is the advice on two providers over sizes.
type Guide struct {
	A, B      Model
	Crossover stats.Crossover
	Guideline stats.Guideline
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
		if !r.HasSpeed() || r.Launches > 1 || r.API == "memcpy" {
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
			a.fit(rows, rows[0].withoutSize(), false)
		}
	}
	a.guides()
	for _, rows := range a.grouped(func(r *Row) series { return a.seriesOf(r, true) }) {
		// Three coefficients: fewer than four cells would always fit.
		if !rows[0].Ceiling && sizes(rows) >= 2 && cells(rows) > 3 && cells(rows) > sizes(rows) {
			a.fit(rows, rows[0].Provider+" "+rows[0].opWord()+", all descriptor counts", true)
		}
	}
	a.pieces()
}

func (a *Analysis) fit(rows []*Row, label string, descriptors bool) {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(x, y *Row) int { return cmp.Compare(x.Bytes, y.Bytes) })
	var pts []stats.CostPoint
	for _, r := range rows {
		for _, u := range r.Units {
			p := stats.CostPoint{Block: u.Key.Block, Bytes: int64(r.Bytes), TimeNS: u.Value}
			if descriptors {
				p.Descriptors = int64(r.Descs)
			}
			pts = append(pts, p)
		}
	}
	if m, err := stats.FitCost(pts, Level); err != nil {
		a.unfit(err, "cost model of "+label)
	} else {
		a.Models = append(a.Models, Model{Label: label, Rows: rows, Cost: m})
	}
}

// unfit warns that something could not be fitted; rows of too few blocks have a
// warning of their own.
func (a *Analysis) unfit(err error, what string) {
	if !errors.Is(err, stats.ErrTooFew) {
		a.unfitted = append(a.unfitted, Warning{"not-fitted", fmt.Sprintf("no %s: %v; the rows and verdicts hold without it: use sizes or descriptor counts further apart for one", what, err)})
	}
}

// withoutSize is the row's label less its size.
func (r *Row) withoutSize() string {
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
		var pts []stats.CostPoint
		for _, r := range rows {
			for _, u := range r.Units {
				// The same least squares, with descriptors in the place of bytes.
				pts = append(pts, stats.CostPoint{Block: u.Key.Block, Bytes: int64(r.Descs), TimeNS: u.Value})
			}
		}
		label := fmt.Sprintf("%s %s of %s", rows[0].Provider, rows[0].opWord(), Size(rows[0].Bytes))
		m, err := stats.FitCost(pts, Level)
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

// Sizes is how many different sizes the model rests on.
func (m Model) Sizes() int { return sizes(m.Rows) }

func (a *Analysis) guides() {
	for j, y := range a.Models {
		for _, x := range a.Models[:j] {
			if a.rivals(x.Rows[0], y.Rows[0]) {
				a.guide(x, y)
			}
		}
	}
}

// rivals tells whether models of two providers answer which one to use: all else
// is the same.
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

func (a *Analysis) guide(x, y Model) {
	c, err := stats.FindCrossover(x.Cost, y.Cost, 0)
	if errors.Is(err, stats.ErrOption) {
		return // no sizes in common
	}
	g := stats.Guideline{}
	if err == nil {
		g, err = c.Guide(Relevant, 0)
	}
	if err != nil {
		a.unfit(err, "crossover of "+x.Label+" and "+y.Label)
		return
	}
	a.Guides = append(a.Guides, Guide{A: x, B: y, Crossover: c, Guideline: g})
}
