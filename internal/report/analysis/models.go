package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

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
	Cost  stats.CostModel
}

// Guide is the advice on two providers over sizes.
type Guide struct {
	A, B      Model
	Crossover stats.Crossover
	Guideline stats.Guideline
}

// line is what the rows of a model share besides the provider.
type line struct {
	payload
	setting
	shape string
}

// models fits the cost models and guidelines of a sweep over sizes.
func (a *Analysis) models() error {
	type series struct {
		provider string
		line
	}
	at := map[series][]*Row{}
	var order []series
	for _, r := range a.Rows {
		if !r.HasSpeed() || r.Launches > 1 {
			continue
		}
		s := series{r.Provider, line{payload: payloadOf(r), shape: r.Shape}}
		s.Bytes = 0
		if a.varied(r) {
			s.setting = settingOf(r)
		}
		if at[s] == nil {
			order = append(order, s)
		}
		at[s] = append(at[s], r)
	}
	for _, s := range order {
		rows := slices.Clone(at[s])
		slices.SortStableFunc(rows, func(x, y *Row) int { return cmp.Compare(x.Bytes, y.Bytes) })
		if distinct(rows) < minSizes || distinct(rows) < len(rows) {
			continue
		}
		var pts []stats.CostPoint
		for _, r := range rows {
			for _, u := range r.Units {
				pts = append(pts, stats.CostPoint{Block: u.Key.Block, Bytes: int64(r.Bytes), TimeNS: u.Value})
			}
		}
		m, err := stats.FitCost(pts, Level)
		if errors.Is(err, stats.ErrTooFew) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cost model of %s: %w", s.provider, err)
		}
		label := fmt.Sprintf("%s %s %s", s.provider, rows[0].opWord(), s.shape)
		a.Models = append(a.Models, Model{Label: label, Rows: rows, Cost: m})
	}
	return a.guides()
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
			if p.Ceiling || q.Ceiling || pp != pq || p.Shape != q.Shape || p.Provider == q.Provider ||
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
