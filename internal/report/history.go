package report

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/table"
)

// sparkline draws the medians of a row, "·" where a record has none. Its height is
// the row's range of medians on a logarithmic scale, and at least 10 %, so that
// noise does not look like a change.
func sparkline(r analysis.HistoryRow) string {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, c := range r.Cells {
		if f := c.Figures; f != nil && f.HasSpeed() {
			lo, hi = math.Min(lo, math.Log(f.MedianNs)), math.Max(hi, math.Log(f.MedianNs))
		}
	}
	if least := math.Log(1.1); hi-lo < least {
		mid := (lo + hi) / 2
		lo, hi = mid-least/2, mid+least/2
	}
	out := make([]rune, len(r.Cells))
	bars := []rune("▁▂▃▄▅▆▇█")
	for i, c := range r.Cells {
		out[i] = '·'
		if f := c.Figures; f != nil && f.HasSpeed() {
			at := (math.Log(f.MedianNs) - lo) / (hi - lo)
			out[i] = bars[min(int(at*float64(len(bars))), len(bars)-1)]
		}
	}
	return string(out)
}

// newest is the end of a line of signs that is too long for a table of 80 columns.
func newest(line string) string {
	const most = 8
	if rs := []rune(line); len(rs) > most {
		return "…" + string(rs[len(rs)-most+1:])
	}
	return line
}

// historyColumns are a line for each row and record, in the order of time.
func historyColumns(c *compareDoc) (cols []table.Column, n int, notes string) {
	h := c.History
	type line struct {
		row, record int
		cell        analysis.HistoryCell
	}
	var lines []line
	var figures []*analysis.Figures
	var named []*analysis.Delta // what names each line
	launches := 1
	for i, r := range h.Rows {
		var some *analysis.Figures
		for _, x := range r.Cells {
			if some == nil {
				some = x.Figures
			}
		}
		for k, x := range r.Cells {
			lines = append(lines, line{i, k, x})
			named = append(named, &analysis.Delta{A: some})
			if x.Figures != nil {
				figures, launches = append(figures, x.Figures), max(launches, x.Figures.Launches)
			}
		}
	}
	t := deltaScale(figures)
	cols = append(deltaNaming(named),
		table.Column{Head: "record", Cell: func(i int) string { return strconv.Itoa(lines[i].record + 1) }},
		table.Column{Head: "start", Left: true, Rank: 1, Cell: func(i int) string {
			return startOf(h.Sources[lines[i].record].Record)[:len("2006-01-02")]
		}},
		table.Column{Head: "median", Cell: func(i int) string { return speedOr(lines[i].cell.Figures, t) }})
	for _, col := range verdictColumns(func(i int) *analysis.Delta { return lines[i].cell.Delta }, false) {
		if col.Head == "B/A" {
			col.Head = "ratio"
		}
		cols = append(cols, col)
	}
	cols = append(cols,
		table.Column{Head: "n", Cell: func(i int) string {
			if f := lines[i].cell.Figures; f != nil {
				return strconv.Itoa(len(f.Units))
			}
			return "-"
		}},
		table.Column{Head: "verdict", Left: true, Cell: func(i int) string {
			switch x := lines[i]; {
			case x.cell.Figures == nil:
				return "gone"
			case x.cell.Figures.Failed > 0:
				return "FAILED"
			case x.record == 0:
				return "base"
			case x.cell.Delta == nil:
				return "new"
			default:
				return brief(change(x.cell.Delta))
			}
		}})
	return cols, len(lines), fmt.Sprintf("records in the order of time, 1 the oldest; medians in %s; ratio: time over that of record 1; n: %s", t.name, unitWords(launches))
}

func historyText(p *page, c *compareDoc) {
	cols, n, notes := historyColumns(c)
	p.line("")
	each := len(c.History.Sources)
	for i, l := range table.Layout(cols, n, p.width()) {
		switch {
		case i == 0:
			p.line(l, p.bold)
		case (i-1)/each%2 == 1:
			p.line(l, p.faint) // neighbours are told apart
		default:
			p.line(l)
		}
	}
	p.comment(notes)
}

func historyMarkdown(b *bytes.Buffer, c *compareDoc) {
	cols, n, notes := historyColumns(c)
	b.WriteString("\n## History\n\n")
	markdownTable(b, cols, n, nil, 0)
	fmt.Fprintf(b, "\n%s.\n", escape(notes))
}
