package analysis

import (
	"cmp"
	"fmt"
	"slices"
)

// History is what more than two records of one kind say in the order of time.
type History struct {
	// Sources are the records, the oldest first.
	Sources []*Source
	// Rows are those of the oldest, then those that a later record is the first to
	// have.
	Rows []HistoryRow
	// Last holds the newest record against the oldest.
	Last *Runs
}

// HistoryRow is one row over the records; Cells are parallel to Sources.
type HistoryRow struct {
	Label string
	Cells []HistoryCell
}

// HistoryCell is what one record has of a row.
type HistoryCell struct {
	// Figures are nil where the record does not have the row.
	Figures *Figures
	// Delta holds the cell against the oldest record; nil in the oldest one, and where
	// that does not have the row.
	Delta *Delta
}

// NewHistory compares each record with the oldest of them, of which there must be
// two at least. Records that began at the same time stay in the order given.
func NewHistory(sources []*Source) (*History, error) {
	if len(sources) < 2 {
		return nil, fmt.Errorf("a history of %d records: want two at least", len(sources))
	}
	h := &History{Sources: slices.Clone(sources)}
	slices.SortStableFunc(h.Sources, func(a, b *Source) int {
		return cmp.Compare(a.Record.Run.StartUnixNs, b.Record.Run.StartUnixNs)
	})
	first := h.Sources[0]
	at := map[*Figures]int{} // of the rows of the oldest
	for i, f := range first.Rows {
		h.Rows = append(h.Rows, HistoryRow{Label: f.Label, Cells: make([]HistoryCell, len(h.Sources))})
		h.Rows[i].Cells[0].Figures, at[f] = f, i
	}
	for k, s := range h.Sources[1:] {
		r, err := Compare(first, s)
		if err != nil {
			return nil, err
		}
		h.Last = r
		var late []*Figures
		for _, d := range r.Rows {
			switch {
			case d.A == nil:
				late = append(late, d.B)
			case d.B != nil:
				h.Rows[at[d.A]].Cells[k+1] = HistoryCell{Figures: d.B, Delta: d}
			}
		}
		h.late(k+1, late)
	}
	return h, nil
}

// late takes up the rows of record k that the oldest does not have: beside those of
// an earlier record with the same label and size, or as new ones.
func (h *History) late(k int, rows []*Figures) {
	for _, f := range rows {
		i := slices.IndexFunc(h.Rows, func(r HistoryRow) bool {
			return r.Cells[0].Figures == nil && r.Label == f.Label && r.Cells[k].Figures == nil && r.Bytes() == f.Condition.Bytes
		})
		if i < 0 {
			i = len(h.Rows)
			h.Rows = append(h.Rows, HistoryRow{Label: f.Label, Cells: make([]HistoryCell, len(h.Sources))})
		}
		h.Rows[i].Cells[k].Figures = f
	}
}

// Bytes are the row's payload.
func (r HistoryRow) Bytes() uint64 {
	for _, c := range r.Cells {
		if c.Figures != nil {
			return c.Figures.Condition.Bytes
		}
	}
	return 0
}

// Row is the one that a row of Last is the ends of.
func (h *History) Row(d *Delta) *HistoryRow {
	newest := len(h.Sources) - 1
	for i := range h.Rows {
		if cells := h.Rows[i].Cells; d.A != nil && cells[0].Figures == d.A || d.A == nil && cells[newest].Figures == d.B {
			return &h.Rows[i]
		}
	}
	return &HistoryRow{Label: d.Label(), Cells: make([]HistoryCell, len(h.Sources))}
}
