package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/units"
)

// ordered are the rows as tables show them: by size when there are several,
// ceilings after what is held against them.
func ordered(a *analysis.Analysis) []*analysis.Row {
	rows := slices.Clone(a.Rows)
	slices.SortStableFunc(rows, func(x, y *analysis.Row) int {
		return cmp.Or(cmp.Compare(x.Bytes, y.Bytes), cmp.Compare(weight(x), weight(y)))
	})
	return rows
}

func weight(r *analysis.Row) int {
	if r.Ceiling {
		return 1
	}
	return 0
}

// factor is a column that names what a row is.
type factor struct {
	head string
	left bool
	cell func(r *analysis.Row) string
	// always shows the column even when all rows agree.
	always bool
	rank   int
}

func factors() []factor {
	return []factor{
		{"provider", true, func(r *analysis.Row) string { return r.Provider }, true, 0},
		{"op", true, func(r *analysis.Row) string { return r.Op }, true, 3},
		{"shape", true, func(r *analysis.Row) string { return r.Shape }, true, 4},
		{"size", false, func(r *analysis.Row) string { return analysis.Size(r.Bytes) }, false, 0},
		{"memory", true, func(r *analysis.Row) string { return analysis.Memory(r.Condition) }, false, 0},
		{"layout", true, func(r *analysis.Row) string { return word(r.Layout) }, false, 0},
		{"block", false, func(r *analysis.Row) string { return fmt.Sprint(r.Block) }, false, 0},
		{"descs", false, func(r *analysis.Row) string { return fmt.Sprint(r.Descs) }, false, 0},
		{"streams", false, func(r *analysis.Row) string { return fmt.Sprint(r.Transport.Streams) }, false, 0},
		{"depth", false, func(r *analysis.Row) string { return fmt.Sprint(r.Transport.Depth) }, false, 0},
		{"chunk", false, func(r *analysis.Row) string { return units.CompactBytes(int64(r.Transport.Chunk)) }, false, 0},
	}
}

func word(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// naming are the columns that say what a row is: those that all runs have and
// those that vary within this one.
func naming(rows []*analysis.Row) []table.Column {
	var out []table.Column
	for i, f := range factors() {
		constant := true
		perProvider := map[string]string{}
		for _, r := range rows {
			v := f.cell(r)
			if i >= 4 && r.Ceiling {
				continue // ceilings have settings of their own
			}
			if f.head == "descs" { // other shapes say how many by their name
				if first, ok := perProvider["descs"]; r.Shape == "contiguous" {
					constant = constant && (!ok || first == v)
					perProvider["descs"] = v
				}
				continue
			}
			if i >= 8 { // a setting counts as varied within one provider only
				if first, ok := perProvider[r.Provider]; ok && first != v {
					constant = false
				}
				perProvider[r.Provider] = v
				continue
			}
			if v != f.cell(rows[0]) {
				constant = false
			}
		}
		if constant && !f.always {
			continue
		}
		c := table.Column{Head: f.head, Left: f.left, Cell: func(i int) string { return f.cell(rows[i]) }}
		if constant {
			c.Rank = f.rank
		}
		if f.head == "shape" && !constant {
			c.Rank = 2
			c.Short = func(i int) string { return shortShape(rows[i].Shape) }
		}
		out = append(out, c)
	}
	return out
}

func shortShape(s string) string {
	switch s {
	case "fragmented":
		return "frag"
	case "contiguous":
		return "contig"
	}
	return s
}

// constants are the naming words that all rows share, for the line above a
// table that left them out.
func constants(rows []*analysis.Row) string {
	s := rows[0].Op
	for _, r := range rows {
		if r.Op != rows[0].Op {
			s = ""
		}
	}
	shape := rows[0].Shape
	for _, r := range rows {
		if r.Shape != shape {
			shape = ""
		}
	}
	mem := analysis.Memory(rows[0].Condition)
	for _, r := range rows {
		if analysis.Memory(r.Condition) != mem && !r.Ceiling {
			mem = ""
		}
	}
	var words []string
	for _, w := range []string{s, shape} {
		if w != "" {
			words = append(words, w)
		}
	}
	if mem != "" {
		words = append(words, mem+" memory")
	}
	if len(words) == 0 {
		return ""
	}
	return "all rows: " + list(words)
}
