package report

import (
	"fmt"
	"slices"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// figure makes a column's cells from rows that may carry a speed.
func figure(rows []*analysis.Row, f func(r *analysis.Row) string) func(int) string {
	return func(i int) string {
		if !rows[i].HasSpeed() {
			return "-"
		}
		return f(rows[i])
	}
}

// speedColumns are the columns of the main table and what its words mean. The
// wide table has all that is known of a row.
func speedColumns(rows []*analysis.Row, wide bool) ([]table.Column, string) {
	t := timeScale(rows)
	val := func(f func(r *analysis.Row) string) func(int) string { return figure(rows, f) }
	ci := func(f func(iv *stats.Interval) float64) func(int) string {
		return val(func(r *analysis.Row) string {
			if r.CI == nil {
				return "-"
			}
			return t.time(f(r.CI))
		})
	}
	p95 := table.Column{Head: "p95", Rank: 5, Cell: val(func(r *analysis.Row) string { return t.time(r.P95.Value) })}
	longest := table.Column{Head: "max", Rank: 5, Cell: val(func(r *analysis.Row) string { return t.time(r.MaxNs) })}
	cols := append(naming(rows),
		table.Column{Head: "n", Cell: func(i int) string { return count(rows[i]) }},
		table.Column{Head: "median", Cell: val(func(r *analysis.Row) string { return t.time(r.MedianNs) })},
		table.Column{Head: "ci_lo", Cell: ci(func(iv *stats.Interval) float64 { return iv.Lo })},
		table.Column{Head: "ci_hi", Cell: ci(func(iv *stats.Interval) float64 { return iv.Hi })},
	)
	if wide {
		cols = append(cols, table.Column{Head: "min", Cell: val(func(r *analysis.Row) string { return t.time(r.MinNs) })})
	}
	if allP95(rows) {
		cols = append(cols, p95)
	}
	if wide || !allP95(rows) {
		cols = append(cols, longest)
	}
	cols = append(cols,
		table.Column{Head: "GB/s", Cell: val(func(r *analysis.Row) string { return units.Digits(r.Rate/1e9, 3) })},
		table.Column{Head: "Gbit/s", Rank: 6, Cell: val(func(r *analysis.Row) string { return units.Digits(r.Rate*8/1e9, 3) })},
	)
	bound, legend := boundColumn(rows)
	if bound.Head != "" {
		cols = append(cols, bound)
	}
	if wide {
		cols = append(cols, costColumns(rows)...)
	}
	cols = append(cols, table.Column{Head: "check", Left: true, Cell: func(i int) string { return rows[i].Check() }})
	if slices.ContainsFunc(rows, emulatedRMA) {
		cols = append(cols, table.Column{Head: "rma", Left: true, Cell: func(i int) string {
			if emulatedRMA(rows[i]) {
				return "emulated"
			}
			return "-"
		}})
	}
	launches := 1
	for _, r := range rows {
		launches = max(launches, r.Launches)
	}
	notes := fmt.Sprintf("times in %s; n: %s x transfers; ci: 95%% interval of the median", t.name, unitWords(launches))
	if legend != "" {
		notes += "; " + legend
	}
	if c := constants(rows); c != "" {
		notes += "; " + c
	}
	return cols, notes
}

// emulatedRMA tells whether the provider makes this row's operation of messages.
func emulatedRMA(r *analysis.Row) bool { return slices.Contains(r.Transport.Emulated, r.Op) }

func count(r *analysis.Row) string {
	switch {
	case r.Launches > 1:
		return fmt.Sprintf("%dx%d", r.Launches, r.N/r.Launches)
	case r.Iters > 0:
		return fmt.Sprintf("%dx%d", r.Blocks, r.Iters)
	}
	return fmt.Sprintf("%d/%d", r.N, r.Blocks)
}

// allP95 tells whether every row has enough samples for a p95.
func allP95(rows []*analysis.Row) bool {
	return !slices.ContainsFunc(rows, func(r *analysis.Row) bool { return r.Valid() && r.P95.Guarded })
}

// boundColumn is the share of the ceiling; its head says which when all rows
// have the same kind.
func boundColumn(rows []*analysis.Row) (table.Column, string) {
	var kinds []string
	for _, r := range rows {
		if r.Bound != nil {
			kinds = append(kinds, r.Bound.Kind)
		}
	}
	kinds = unique(kinds)
	if len(kinds) == 0 {
		return table.Column{}, ""
	}
	c := table.Column{Head: "%" + kinds[0], Cell: func(i int) string {
		b := rows[i].Bound
		if b == nil {
			return "-"
		}
		s := percent(b.Share)
		if len(kinds) > 1 {
			s += b.Kind[:1]
		}
		return s
	}}
	words := map[string]string{"socket": "%socket: of plain TCP in this run", "line": "%line: of the NICs' link speed"}
	if len(kinds) > 1 {
		c.Head = "%max"
		return c, "%max: s of plain TCP in this run, l of the NICs' link speed"
	}
	return c, words[kinds[0]]
}

// costColumns are post time, descriptors and CPU.
func costColumns(rows []*analysis.Row) []table.Column {
	val := func(f func(r *analysis.Row) string) func(int) string { return figure(rows, f) }
	cpu := func(f float64) string {
		if f == 0 {
			return "-"
		}
		return units.Digits(f, 3)
	}
	var cols []table.Column
	if !slices.ContainsFunc(naming(rows), func(c table.Column) bool { return c.Head == "descs" }) {
		cols = append(cols, table.Column{Head: "descs", Cell: func(i int) string { return fmt.Sprint(rows[i].Descs) }})
	}
	return append(cols, []table.Column{
		{Head: "post_us", Cell: val(func(r *analysis.Row) string { return posted(r, r.PostNs/1e3) })},
		{Head: "ns/desc", Cell: val(func(r *analysis.Row) string { return posted(r, r.PostPerDesc) })},
		{Head: "cpu_s/GB", Cell: val(func(r *analysis.Row) string { return cpu(r.CPUPerByte) })},
		{Head: "peer_s/GB", Cell: val(func(r *analysis.Row) string { return cpu(r.PeerCPUPerByte) })},
		{Head: "eagain", Rank: 5, Cell: func(i int) string { return fmt.Sprint(r0(rows[i].EAgain, rows[i].N)) }},
	}...)
}

// sizes is how many different sizes rows have.
func sizes(rows []*analysis.Row) int {
	var all []uint64
	for _, r := range rows {
		all = append(all, r.Bytes)
	}
	return len(unique(all))
}

// posted writes a figure of posting; a copy in memory posts nothing.
func posted(r *analysis.Row, f float64) string {
	if r.API == "memcpy" {
		return "-"
	}
	return units.Digits(f, 3)
}

// r0 is a mean per transfer, rounded.
func r0(sum uint64, n int) uint64 {
	if n == 0 {
		return 0
	}
	return (sum + uint64(n)/2) / uint64(n)
}

// costTable is what does not fit beside the speeds in 80 columns.
func costTable(rows []*analysis.Row) ([]table.Column, string) {
	t := timeScale(rows)
	cols := append(naming(rows), table.Column{Head: "min", Cell: figure(rows, func(r *analysis.Row) string { return t.time(r.MinNs) })})
	return append(cols, costColumns(rows)...),
		fmt.Sprintf("min in %s; post: time until all is posted; CPU of initiator and peer; eagain: refused posts a transfer", t.name)
}

// pairColumns are a row a pair: what is compared, and the ratio of the second's
// time to the first's.
func pairColumns(pairs []analysis.Pair) ([]table.Column, string) {
	var rows []*analysis.Row
	for _, v := range pairs {
		rows = append(rows, v.A)
	}
	val := func(f func(v analysis.Pair) string) func(int) string {
		return func(i int) string {
			if pairs[i].Refused != "" {
				return "-"
			}
			return f(pairs[i])
		}
	}
	end := func(f func(iv *stats.Interval) float64) func(int) string {
		return val(func(v analysis.Pair) string {
			if v.Verdict.Interval == nil {
				return "-"
			}
			return rcell(f(v.Verdict.Interval))
		})
	}
	cols := append(naming(rows),
		table.Column{Head: "than", Left: true, Cell: func(i int) string { return pairs[i].B.Provider }},
		table.Column{Head: "ratio", Cell: val(func(v analysis.Pair) string { return rcell(v.Verdict.Ratio) })},
		table.Column{Head: "ci_lo", Cell: end(func(iv *stats.Interval) float64 { return iv.Lo })},
		table.Column{Head: "ci_hi", Cell: end(func(iv *stats.Interval) float64 { return iv.Hi })},
		table.Column{Head: "p", Cell: val(func(v analysis.Pair) string { return pcell(v.Verdict.PAdjusted) })},
		table.Column{Head: "n", Cell: val(func(v analysis.Pair) string { return fmt.Sprint(v.Verdict.NA) })},
		table.Column{Head: "seen", Cell: val(func(v analysis.Pair) string { return effect(v.Verdict.MDE) })},
		table.Column{Head: "verdict", Left: true, Cell: func(i int) string {
			switch v := pairs[i]; v.Outcome() {
			case "different":
				if v.Verdict.Ratio > 1 {
					return "faster"
				}
				return "slower"
			default:
				return brief(v.Outcome())
			}
		}},
	)
	return cols, "verdict on the first provider; ratio: time of the second over time of the first; seen: the smallest difference that would have been found 8 times in 10"
}

// counted are the rows whose path was watched; memcpy has none.
func counted(rows []*analysis.Row) []*analysis.Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r *analysis.Row) bool {
		return r.Path == nil || r.Path.PayloadBytes == 0 || r.API == "memcpy"
	})
}

// pathColumns hold the payload against what the NICs counted.
func pathColumns(rows []*analysis.Row) ([]table.Column, string) {
	top := func(f func(q *analysis.Path) string) func(int) string {
		return func(i int) string {
			if len(rows[i].Path.Counters) == 0 {
				return "-"
			}
			return f(rows[i].Path)
		}
	}
	cols := append(naming(rows),
		table.Column{Head: "payload_B", Cell: func(i int) string { return fmt.Sprint(rows[i].Path.PayloadBytes) }},
		table.Column{Head: "counted_B", Cell: top(func(q *analysis.Path) string { return fmt.Sprint(q.Counters[0].Delta) })},
		table.Column{Head: "ratio", Cell: func(i int) string {
			if rows[i].Emulated {
				return "simulated"
			}
			return top(func(q *analysis.Path) string { return units.Digits(q.Ratio, 4) })(i)
		}},
		table.Column{Head: "counter", Left: true, Cell: top(func(q *analysis.Path) string { return q.Counters[0].Device + ":" + q.Counters[0].Name })},
	)
	return cols, "the NIC counter that moved most, beside the payload: near 1 the bytes took that NIC, headers add to it"
}
