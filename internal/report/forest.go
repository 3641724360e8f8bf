package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/plot"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
)

// ratioRow is a comparison as the forest plot shows it.
type ratioRow struct {
	label, n string
	verdict  stats.Verdict
	class    string // instead of what came says of a row without a difference
	word     string // beside the ratio
}

// came is what a comparison came to, for its sign: a ratio whose whole interval
// lies within the margin is "same", one without a verdict "open".
func (r ratioRow) came(margin float64) string {
	v := r.verdict
	switch {
	case v.Kind == stats.Different && v.Ratio > 1:
		return "slower"
	case v.Kind == stats.Different:
		return "faster"
	case r.class != "":
		return r.class
	case v.Interval != nil && v.Interval.Lo >= 1/(1+margin) && v.Interval.Hi <= 1+margin:
		return "same"
	}
	return "open"
}

// openRatios is how many rows a forest shows at once.
const openRatios = 24

// forest draws ratios of times with their intervals, the first of them at once and
// the rest, if there are more, to be folded; threshold is the slowdown that is
// accepted, 0 for none. Both are nil without a ratio.
func forest(rows []ratioRow, title, text, id string, threshold float64) (shown, folded *htmlFigure) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r ratioRow) bool { return !(r.verdict.Ratio > 0) || math.IsInf(r.verdict.Ratio, 0) })
	if len(rows) == 0 {
		return nil, nil
	}
	margin := cmp.Or(threshold, analysis.Relevant)
	ax := ratiosAxis(rows, margin)
	limitLine := plot.Level{}
	band := plot.Range{Lo: 1 / (1 + margin), Hi: 1 + margin}
	if threshold > 0 {
		limitLine = plot.Level{Y: 1 + threshold, Label: "threshold " + limit(threshold)}
	}
	draw := func(rows []ratioRow, id string) *htmlFigure {
		var out []plot.Ratio
		var words []string
		for _, r := range rows {
			v := r.verdict
			est, iv := ratioInterval(v.Ratio, v.Interval)
			p := plot.Ratio{Label: r.label, Text: strings.TrimSpace(est + " " + iv + " " + r.word), Class: r.came(margin), Mid: v.Ratio}
			if v.Interval != nil {
				p.Lo, p.Hi = v.Interval.Lo, v.Interval.Hi
			}
			out, words = append(out, p), append(words, r.label+" "+p.Text)
		}
		f := &htmlFigure{Title: title, Data: ratioTable(rows)}
		f.SVG = plot.Forest(plot.Text{ID: id, Title: title, Desc: "Ratios of times with their 95% intervals: " + list(words) + ".", X: "ratio of times"}, ax, band, limitLine, out)
		return f
	}
	shown = draw(rows[:min(len(rows), openRatios)], id)
	shown.Text = text + fmt.Sprintf(" A triangle is a difference that the test finds, a filled circle lies within %s (the grey band), an open circle is undecided. The axis is logarithmic.", limit(margin))
	if len(rows) > openRatios {
		folded = draw(rows[openRatios:], id+"m")
		folded.Title = fmt.Sprintf("%d more comparisons", len(rows)-openRatios)
	}
	return shown, folded
}

// ratiosAxis holds the ratios around 1; of intervals it holds what does not flatten
// the rest.
func ratiosAxis(rows []ratioRow, margin float64) plot.Axis {
	hi := math.Max(1.2, 1+1.5*margin)
	lo := 1 / hi
	var logs []float64
	for _, r := range rows {
		logs = append(logs, math.Log(r.verdict.Ratio))
	}
	reach := plot.Robust(logs)
	lo, hi = math.Min(lo, math.Exp(reach.Lo)/1.02), math.Max(hi, math.Exp(reach.Hi)*1.02)
	for _, r := range rows {
		if iv := r.verdict.Interval; iv != nil && iv.Lo > lo/1.5 && iv.Hi < hi*1.5 {
			lo, hi = math.Min(lo, iv.Lo), math.Max(hi, iv.Hi)
		}
	}
	lo, hi = lo/1.03, hi*1.03
	return plot.Axis{Lo: lo, Hi: hi, Log: true, Value: rcell, Ticks: ratioTicks(lo, hi)}
}

// ratioTicks are round ratios within a range, on either side of 1.
func ratioTicks(lo, hi float64) []plot.Tick {
	all := []float64{0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100}
	switch {
	case hi/lo < 1.4:
		all = []float64{0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2}
	case hi/lo < 2:
		all = []float64{0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6}
	case hi/lo < 6:
		all = []float64{0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5}
	}
	var out []plot.Tick
	for _, v := range all {
		if v >= lo && v <= hi {
			out = append(out, plot.Tick{At: v, Label: trimmed(v)})
		}
	}
	return out
}

func ratioTable(rows []ratioRow) *htmlTable {
	end := func(f func(iv *stats.Interval) float64) func(int) string {
		return func(i int) string {
			if rows[i].verdict.Interval == nil {
				return "-"
			}
			return rcell(f(rows[i].verdict.Interval))
		}
	}
	t := htmlTableOf("ratios of times", []table.Column{
		{Head: "comparison", Left: true, Cell: func(i int) string { return rows[i].label }},
		{Head: "ratio", Cell: func(i int) string { return rcell(rows[i].verdict.Ratio) }},
		{Head: "ci_lo", Cell: end(func(iv *stats.Interval) float64 { return iv.Lo })},
		{Head: "ci_hi", Cell: end(func(iv *stats.Interval) float64 { return iv.Hi })},
		{Head: "p", Cell: func(i int) string { return pcell(rows[i].verdict.PAdjusted) }},
		{Head: "n", Cell: func(i int) string { return rows[i].n }},
		{Head: "seen", Cell: func(i int) string { return effect(rows[i].verdict.MDE) }},
	}, len(rows), "seen: the smallest difference that would have been found 8 times in 10")
	return &t
}

// rawForest holds the pairs of a run and, below them, what fragmented costs.
func rawForest(a *analysis.Analysis, id string) (shown, folded *htmlFigure) {
	var rows []ratioRow
	for _, p := range a.Pairs {
		if p.Refused == "" {
			x, y := names(p)
			rows = append(rows, ratioRow{label: fmt.Sprintf("%s: %s / %s", about(p), y, x), n: fmt.Sprint(p.Verdict.NA), verdict: p.Verdict})
		}
	}
	for _, p := range a.Brackets {
		if p.Refused == "" {
			rows = append(rows, ratioRow{label: fmt.Sprintf("%s %s: fragmented / merged", p.A.Provider, strings.ToUpper(p.A.Op)), n: fmt.Sprint(p.Verdict.NA), verdict: p.Verdict})
		}
	}
	text := "Time of the first named over time of the second, with its 95% interval: right of 1 the first takes longer."
	if all := shared(rows); all != "" {
		for i := range rows {
			rows[i].label = strings.TrimPrefix(rows[i].label, all+" ")
		}
		text += " All rows: " + all + "."
	}
	return forest(rows, "Who is faster", text, id+"-f", 0)
}

// shared are the words that the labels of several rows begin with.
func shared(rows []ratioRow) string {
	if len(rows) < 2 {
		return ""
	}
	words := strings.Fields(rows[0].label)
	for _, r := range rows {
		ws := strings.Fields(r.label)
		n := 0
		for n < min(len(words), len(ws)-1) && words[n] == ws[n] {
			n++
		}
		words = words[:n]
	}
	return strings.Join(words, " ")
}

// ttftForest holds the arms of a run against the first.
func ttftForest(d *analysis.Requests, id string) (shown, folded *htmlFigure) {
	var rows []ratioRow
	for _, c := range d.Comparisons {
		rows = append(rows, ratioRow{label: fmt.Sprintf("%s / %s, %d tokens, %s", c.B.Arm, c.A.Arm, c.B.Tokens, c.B.Load), n: fmt.Sprint(c.Verdict.NA), verdict: c.Verdict})
	}
	return forest(rows, "Which arm is faster", "Time to first token of the first named over that of the second, with its 95% interval: right of 1 the first takes longer.", id+"-f", 0)
}
