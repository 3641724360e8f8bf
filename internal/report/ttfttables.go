package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// ttftCell is a time in ms with four significant digits, but none below 100 ns.
func ttftCell(ns float64) string {
	if v := math.Abs(ns / 1e6); v > 0 && v < 0.1 {
		return strconv.FormatFloat(ns/1e6, 'f', 4, 64)
	}
	return units.Digits(ns/1e6, 4)
}

// filled leaves out the columns in which no row has anything.
func filled(cols []table.Column, n int) []table.Column {
	return slices.DeleteFunc(cols, func(c table.Column) bool {
		for i := range n {
			if s := c.Cell(i); s != "" && s != "-" {
				return false
			}
		}
		return n > 0
	})
}

// ttftNaming are the columns that say which row it is.
func ttftNaming(rows []*analysis.RequestRow, path bool) []table.Column {
	cols := []table.Column{{Head: "arm", Left: true, Cell: func(i int) string { return rows[i].Arm }}}
	if path {
		cols = append(cols, table.Column{Head: "path", Left: true, Cell: func(i int) string { return word(rows[i].Path) }})
	}
	return append(cols, table.Column{Head: "load", Left: true, Cell: func(i int) string { return word(rows[i].Load) }},
		table.Column{Head: "tokens", Cell: func(i int) string { return strconv.Itoa(rows[i].Tokens) }})
}

// mainTable has a row for each condition.
func mainTable(d *analysis.Requests) ttftTable {
	rows := d.Rows
	offline := slices.ContainsFunc(rows, func(r *analysis.RequestRow) bool { return r.Makespan != nil })
	cell := func(f func(r *analysis.RequestRow) string) func(int) string {
		return func(i int) string {
			if rows[i].TTFT == nil {
				return "-"
			}
			return f(rows[i])
		}
	}
	ci := func(end func(*stats.Interval) float64) func(int) string {
		return cell(func(r *analysis.RequestRow) string {
			if r.TTFT.CI == nil {
				return "-"
			}
			return ttftCell(end(r.TTFT.CI))
		})
	}
	quantile := func(q func(r *analysis.RequestRow) *stats.QuantileResult) func(int) string {
		return cell(func(r *analysis.RequestRow) string {
			if v := q(r); v != nil && !v.Guarded {
				return ttftCell(v.Value)
			}
			return "-"
		})
	}
	cols := append(ttftNaming(rows, true),
		table.Column{Head: "n", Cell: func(i int) string {
			t := rows[i].TTFT
			if t == nil {
				return "0x0"
			}
			return fmt.Sprintf("%dx%s", t.N, units.Digits(float64(rows[i].N())/float64(t.N), 2))
		}},
		table.Column{Head: "invalid", Cell: func(i int) string { return strconv.Itoa(rows[i].Invalid) }},
		table.Column{Head: "ttft", Cell: cell(func(r *analysis.RequestRow) string { return ttftCell(r.TTFT.Median) })},
		table.Column{Head: "ci_lo", Cell: ci(func(iv *stats.Interval) float64 { return iv.Lo })},
		table.Column{Head: "ci_hi", Cell: ci(func(iv *stats.Interval) float64 { return iv.Hi })},
		table.Column{Head: "p95", Cell: quantile(func(r *analysis.RequestRow) *stats.QuantileResult { return r.P95 })},
		table.Column{Head: "p99", Cell: quantile(func(r *analysis.RequestRow) *stats.QuantileResult { return r.P99 })},
		table.Column{Head: "max", Rank: 2, Cell: cell(func(r *analysis.RequestRow) string { return ttftCell(r.MaxNs) })})
	unit := unitWord(launches(d))
	notes := "times in ms; n: " + unitWords(launches(d)) + " x valid requests of a " + unit + "; ttft: median of " + unit + " medians, ci: its 95% interval; p95 and p99 over all requests, from 100 and 500 on"
	if offline {
		// A batch's makespan says more than its requests' own ends.
		cols = append(cols, table.Column{Head: "makespan", Cell: cell(func(r *analysis.RequestRow) string {
			if r.Makespan == nil {
				return "-"
			}
			return ttftCell(r.Makespan.Median)
		})}, table.Column{Head: "tok/s", Cell: cell(func(r *analysis.RequestRow) string {
			if r.Makespan == nil {
				return "-"
			}
			return units.Digits(r.Throughput, 3)
		})})
		notes += "; makespan: of a block's requests, sent at once, median"
	} else {
		cols = append(cols, table.Column{Head: "itl", Rank: 4, Cell: cell(func(r *analysis.RequestRow) string { return ttftCell(r.ITL) })},
			table.Column{Head: "e2e", Rank: 3, Cell: cell(func(r *analysis.RequestRow) string { return ttftCell(r.E2E) })})
		notes += "; itl, e2e: medians"
	}
	if d.Simulated {
		mark := func(word string) func(int) string {
			return func(i int) string { return map[bool]string{true: word}[rows[i].Condition.Simulated] }
		}
		cols = append(cols, table.Column{Head: "", Left: true, Cell: mark("simulated"), Short: mark("sim"), Rank: 1})
	}
	return ttftTable{"Time to first token", notes, filled(cols, len(rows)), len(rows)}
}

// partNames are the parts of a split in the order of time.
var partNames = []struct {
	head, name string
	of         func(s *analysis.SplitMedians) float64
}{
	{"wait", "wait", func(s *analysis.SplitMedians) float64 { return s.Wait }},
	{"prefill", "prefill", func(s *analysis.SplitMedians) float64 { return s.Prefill }},
	{"handover", "hand-over", func(s *analysis.SplitMedians) float64 { return s.HandOver }},
	{"dec_queue", queueName, func(s *analysis.SplitMedians) float64 { return s.DecodeQueue }},
	{"one_token", "one token", func(s *analysis.SplitMedians) float64 { return s.OneToken }},
	{"network", "network", func(s *analysis.SplitMedians) float64 { return s.Network }},
}

// queueName is the part that NIXL's transfer is in.
const queueName = "decode queue"

// splitRows are the rows whose TTFT is known in parts.
func splitRows(d *analysis.Requests) []*analysis.RequestRow {
	return slices.DeleteFunc(slices.Clone(d.Rows), func(r *analysis.RequestRow) bool { return r.Split == nil })
}

// splitTable says where the TTFT went.
func splitTable(d *analysis.Requests) ttftTable {
	rows := splitRows(d)
	cols := ttftNaming(rows, false)
	for k, p := range partNames {
		cols = append(cols, table.Column{Head: p.head, Cell: func(i int) string {
			if k == 0 && !strings.HasSuffix(rows[i].Load, "/s") {
				return "-" // a closed loop has no wait
			}
			return ttftCell(p.of(rows[i].Split))
		}})
	}
	legs := false
	cols = append(cols, table.Column{Head: "by", Cell: func(i int) string {
		if rows[i].Split.Engine == 0 {
			return "legs"
		}
		return "engines"
	}})
	for _, r := range rows {
		legs = legs || r.Split.Engine == 0
	}
	notes := "where the TTFT went, medians in ms; dec_queue: the decode engine's queue, which holds handshake and transfer; one_token: its forward pass over the last prompt token; network: HTTP and the API servers"
	if legs {
		notes += "; by legs: with several requests in flight, prefill and dec_queue are whole legs with their HTTP, by this side's clock"
	}
	return ttftTable{"Where the TTFT went", notes, filled(cols, len(rows)), len(rows)}
}

// movedTable is what NIXL counted.
func movedTable(d *analysis.Requests) ttftTable {
	rows := slices.DeleteFunc(slices.Clone(d.Rows), func(r *analysis.RequestRow) bool { return r.Moved == nil })
	cell := func(f func(m *analysis.MovedMedians) string) func(int) string {
		return func(i int) string { return f(rows[i].Moved) }
	}
	cols := append(ttftNaming(rows, false),
		table.Column{Head: "transfers", Cell: cell(func(m *analysis.MovedMedians) string { return strconv.FormatInt(m.Transfers, 10) })},
		table.Column{Head: "bytes", Cell: cell(func(m *analysis.MovedMedians) string { return strconv.FormatFloat(m.Bytes, 'f', 0, 64) })},
		table.Column{Head: "descs", Cell: cell(func(m *analysis.MovedMedians) string {
			switch {
			case m.MaxDesc == 0:
				return "-"
			case m.MaxDesc == m.MinDesc:
				return strconv.FormatInt(m.MinDesc, 10)
			}
			return fmt.Sprintf("%d-%d", m.MinDesc, m.MaxDesc)
		})},
		table.Column{Head: "xfer", Cell: cell(func(m *analysis.MovedMedians) string { return ttftCell(m.Xfer) })},
		table.Column{Head: "post", Cell: cell(func(m *analysis.MovedMedians) string { return ttftCell(m.Post) })},
		table.Column{Head: "%ttft", Cell: cell(func(m *analysis.MovedMedians) string { return units.Digits(100*m.Share, 2) })})
	notes := "what NIXL counted for a transfer: bytes, and descriptors after merging; xfer and post: medians in ms; %ttft: xfer of ttft"
	if slices.ContainsFunc(rows, func(r *analysis.RequestRow) bool { return len(r.Rules) > 0 }) {
		cols = append(cols, table.Column{Head: "held_to", Left: true, Rank: 1, Cell: func(i int) string { return rules(rows[i]) }})
		notes += "; held_to: what bytes a request needs, by the blocks that the prefill engine listed or the model's geometry; by tokens: unknown"
	}
	return ttftTable{"What NIXL counted", notes, filled(cols, len(rows)), len(rows)}
}

// rules are what the bytes of a row's requests were held to.
func rules(r *analysis.RequestRow) string {
	return strings.Join(slices.Sorted(maps.Keys(r.Rules)), "/")
}

// reasons are why requests do not count, with their numbers: "http-error 3, no-usage 1".
func reasons(of map[record.Reason]int) []string {
	var out []string
	for r, n := range of {
		out = append(out, fmt.Sprintf("%s %d", r, n))
	}
	slices.Sort(out)
	return out
}

// details are the words of the first request of each reason:
// "http-error: 500 Internal Server Error: …".
func details(of map[record.Reason]string) []string {
	var out []string
	for _, r := range slices.Sorted(maps.Keys(of)) {
		if d := oneLine(of[r]); d != "" {
			out = append(out, fmt.Sprintf("%s: %.*s", r, maxDetail, d))
		}
	}
	return out
}
