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
	Rows  []*Row // in order of size
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

// models fits the cost models and guidelines of a sweep.
func (a *Analysis) models() error {
	for _, rows := range a.grouped(func(r *Row) series { return a.seriesOf(r, false) }) {
		if distinct(rows) < minSizes || distinct(rows) < len(rows) {
			continue
		}
		if err := a.fit(rows, false); err != nil {
			return err
		}
	}
	if err := a.guides(); err != nil {
		return err
	}
	for _, rows := range a.grouped(func(r *Row) series { return a.seriesOf(r, true) }) {
		if rows[0].Ceiling || !descsVary(rows) {
			continue
		}
		// Three coefficients: fewer than four cells would always fit.
		if distinct(rows) >= 2 && len(rows) > 3 {
			if err := a.fit(rows, true); err != nil {
				return err
			}
		}
	}
	return a.pieces()
}

func (a *Analysis) fit(rows []*Row, descriptors bool) error {
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
	m, err := stats.FitCost(pts, Level)
	if errors.Is(err, stats.ErrTooFew) {
		return nil
	}
	label := rows[0].withoutSize()
	if descriptors {
		label = rows[0].Provider + " " + rows[0].opWord() + ", all descriptor counts"
	}
	if err != nil {
		return fmt.Errorf("cost model of %s: %w", label, err)
	}
	a.Models = append(a.Models, Model{Label: label, Rows: rows, Cost: m})
	return nil
}

// withoutSize is the row's label less its size.
func (r *Row) withoutSize() string {
	return strings.Join(slices.DeleteFunc(strings.Fields(r.Label), func(w string) bool { return w == Size(r.Bytes) }), " ")
}

// descsVary tells whether some size was cut into different numbers of
// descriptors.
func descsVary(rows []*Row) bool {
	first := map[uint64]int{}
	for _, r := range rows {
		if d, ok := first[r.Bytes]; ok && d != r.Descs {
			return true
		}
		first[r.Bytes] = r.Descs
	}
	return false
}

// pieces fits the time of a descriptor where the same contiguous bytes were cut
// into three numbers of them or more.
func (a *Analysis) pieces() error {
	for _, rows := range a.grouped(func(r *Row) series {
		s := a.seriesOf(r, true)
		s.shape, s.Bytes = r.Shape, r.Bytes
		return s
	}) {
		counts := map[int]bool{}
		for _, r := range rows {
			counts[r.Descs] = true
		}
		if rows[0].Shape != "contiguous" || len(counts) < minSizes || len(counts) < len(rows) {
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
		m, err := stats.FitCost(pts, Level)
		if errors.Is(err, stats.ErrTooFew) {
			continue
		}
		label := fmt.Sprintf("%s %s of %s", rows[0].Provider, rows[0].opWord(), Size(rows[0].Bytes))
		if err != nil {
			return fmt.Errorf("descriptor cost of %s: %w", label, err)
		}
		p := PieceModel{Label: label, Bytes: rows[0].Bytes, Rows: rows, BaseNs: m.AlphaNS, NsPerDesc: m.NSPerByte, NsPerDescCI: m.NSPerByteCI}
		if m.WorstResidual > 0.1 {
			p.Warnings = append(p.Warnings, Warning{"not-a-line", fmt.Sprintf("%s: with %d descriptors the times are %.0f %% off the line base + descriptors: several costs meet here, such as pipelining or splitting", label, m.WorstBytes, m.WorstResidual*100)})
		}
		a.Pieces = append(a.Pieces, p)
	}
	return nil
}

func distinct(rows []*Row) int {
	seen := map[uint64]bool{}
	for _, r := range rows {
		seen[r.Bytes] = true
	}
	return len(seen)
}

func (a *Analysis) guides() error {
	for j, y := range a.Models {
		for _, x := range a.Models[:j] {
			p, q := x.Rows[0], y.Rows[0]
			pp, pq := payloadOf(p), payloadOf(q)
			pp.Bytes, pq.Bytes = 0, 0
			if p.Ceiling || q.Ceiling || pp != pq || p.Shape != q.Shape || p.Shape == "contiguous" && p.Descs != q.Descs || p.Provider == q.Provider ||
				(a.varied(p) || a.varied(q)) && settingOf(p) != settingOf(q) {
				continue
			}
			c, err := stats.FindCrossover(x.Cost, y.Cost, 0)
			if errors.Is(err, stats.ErrTooFew) || errors.Is(err, stats.ErrOption) {
				continue // no blocks or no sizes in common
			}
			if err != nil {
				return fmt.Errorf("crossover of %s and %s: %w", x.Label, y.Label, err)
			}
			g, err := c.Guide(Relevant, 0)
			if err != nil {
				return fmt.Errorf("guideline of %s and %s: %w", x.Label, y.Label, err)
			}
			a.Guides = append(a.Guides, Guide{A: x, B: y, Crossover: c, Guideline: g})
		}
	}
	return nil
}
