package report

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/plot"
	"github.com/xferbench/xferbench/internal/stats"
)

// compareHTML is the page of records of one kind.
func compareHTML(b *bytes.Buffer, c *compareDoc) error {
	sources := c.sources()
	h := htmlRun{ID: "c", Title: fmt.Sprintf("%s against %s", c.Runs.B.Record.Run.ID, c.Runs.A.Record.Run.ID), When: strings.Join(unique([]string{startOf(sources[0].Record), startOf(sources[len(sources)-1].Record)}), " to "), Answer: c.answer()}
	h.Lead, h.MoreLead = compareForest(c)
	if c.History != nil {
		h.Title = fmt.Sprintf("%d records", len(sources))
	}
	if c.Runs.A.Simulated() {
		h.Emulated = "SIMULATED: " + simulatedTTFT
	}
	for _, l := range undecidedLines(c) {
		h.Verdicts = append(h.Verdicts, htmlVerdict{"too-few", l})
	}
	for _, w := range compareWarnings(c) {
		h.Warnings = append(h.Warnings, htmlWarning{"warning", w})
	}
	cols, notes := compareColumns(c)
	h.Results = htmlTableOf("Results", cols, len(c.Runs.Rows), notes)
	for i, d := range c.Runs.Rows {
		switch {
		case d.Failed() || c.Gate != nil && (c.Gate.Rows[i].Standing == analysis.Slower || c.Gate.Rows[i].Standing == analysis.Missing):
			h.Results.Rows[i].Class = "failed"
		case d.Ceiling():
			h.Results.Rows[i].Class = "ceiling"
		}
	}
	if c.History != nil {
		h.Figures = append(h.Figures, historyFigure(c, "h"))
		cols, n, notes := historyColumns(c)
		h.Tables = append(h.Tables, htmlTableOf("History", cols, n, notes))
	} else if f := unitsFigure(c, "u"); f != nil {
		h.Figures = append(h.Figures, *f)
	}
	for _, l := range compareHead(c) {
		title, text, _ := strings.Cut(l, ": ")
		h.Facts = append(h.Facts, htmlFact{title, text})
	}
	p, err := newPage("xferbench: " + h.Title)
	if err != nil {
		return err
	}
	p.Runs = []htmlRun{h}
	return p.write(b)
}

// compareForest holds B against A, row by row, with the threshold.
func compareForest(c *compareDoc) (shown, folded *htmlFigure) {
	var rows []ratioRow
	threshold := 0.0
	for i, d := range c.Runs.Rows {
		if d.A == nil || d.B == nil || d.Refused != "" {
			continue
		}
		r := ratioRow{label: d.Label(), n: fmt.Sprintf("%d+%d", d.Verdict.NA, d.Verdict.NB), verdict: d.Verdict}
		if g := c.Gate; g != nil {
			threshold = g.Threshold
			if r.word = string(g.Rows[i].Standing); g.Rows[i].Standing == analysis.Within {
				r.class = "same"
			}
		}
		rows = append(rows, r)
	}
	text := "Time of B over time of A, with its 95% interval: right of 1 B takes longer."
	if c.History != nil {
		text = "Time in the newest record over time in the oldest, with its 95% interval: right of 1 the newest takes longer."
	}
	return forest(rows, "What changed", text, "c-f", threshold)
}

// unitsFigure shows the units of A and B, a pair of strips for each row that both
// have.
func unitsFigure(c *compareDoc, id string) *htmlFigure {
	var strips []plot.Strip
	var all [][]float64
	launches := 1
	for i, d := range c.Runs.Rows {
		if d.A == nil || d.B == nil || !d.A.HasSpeed() || !d.B.HasSpeed() {
			continue
		}
		launches = max(launches, d.Launches())
		for k, f := range []*analysis.Figures{d.A, d.B} {
			s := plot.Strip{Label: string("AB"[k]) + ": " + d.Label(), Class: i % 6, Mid: f.MedianNs / d.A.MedianNs, Text: fmt.Sprintf("%s, n %d", nanos(f.MedianNs), len(f.Units))}
			for _, v := range plot.Thin(stats.Values(f.Units), maxDots, compareFloats) {
				s.Values = append(s.Values, v/d.A.MedianNs)
			}
			if f.CI != nil {
				s.Lo, s.Hi = f.CI.Lo/d.A.MedianNs, f.CI.Hi/d.A.MedianNs
			}
			strips, all = append(strips, s), append(all, s.Values)
		}
	}
	if len(strips) == 0 {
		return nil
	}
	ax := ratioAxis(plot.Robust(all...).Margin(0.03))
	beyond := 0
	for _, vs := range all {
		for _, v := range vs {
			if v < ax.Lo || v > ax.Hi {
				beyond++
			}
		}
	}
	f := &htmlFigure{Title: "Every " + unitWord(launches), Text: joined("A dot is the median of one "+unitWord(launches)+", the bar the 95% interval of their median, over the median of A.", scaleWords(ax, "the axis"), beyondWords(beyond, "unit"))}
	f.SVG = plot.Strips(plot.Text{ID: id, Title: f.Title, Desc: "Medians of units of A and B; the medians stand in the results above.", X: "time over the median of A"}, ax, strips)
	return f
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// historyFigure draws each row's time over that in the oldest record.
func historyFigure(c *compareDoc, id string) htmlFigure {
	h := c.History
	n := len(h.Sources)
	var series []plot.Series
	var legend []htmlLegend
	var all []float64
	for _, r := range h.Rows {
		base := r.Cells[0].Figures
		if base == nil || !base.HasSpeed() {
			continue
		}
		i := len(series)
		s := plot.Series{Name: r.Label, Class: i % 6, Dashed: i >= 6, Points: []plot.Point{{X: 1, Y: 1, Label: r.Label + ": " + nanos(base.MedianNs)}}}
		for k, cell := range r.Cells[1:] {
			if cell.Delta == nil || cell.Delta.Refused != "" || !(cell.Delta.Verdict.Ratio > 0) {
				continue
			}
			v := cell.Delta.Verdict
			est, iv := ratioInterval(v.Ratio, v.Interval)
			p := plot.Point{X: float64(k + 2), Y: v.Ratio, Label: fmt.Sprintf("%s, record %d: %s, %s", r.Label, k+2, nanos(cell.Figures.MedianNs), strings.TrimSpace(est+" "+iv))}
			all = append(all, v.Ratio)
			if v.Interval != nil {
				p.Lo, p.Hi = v.Interval.Lo, v.Interval.Hi
				all = append(all, p.Lo, p.Hi)
			}
			s.Points = append(s.Points, p)
		}
		series, legend = append(series, s), append(legend, htmlLegend{plot.Swatch(s.Class, s.Dashed), s.Name})
	}
	var levels []plot.Level
	lo, hi := 1/(1+analysis.Relevant), 1+analysis.Relevant
	if c.Gate != nil {
		hi = math.Max(hi, 1+c.Gate.Threshold)
		levels = []plot.Level{{Y: 1 + c.Gate.Threshold, Label: "threshold " + limit(c.Gate.Threshold)}}
	}
	r := plot.Robust(all)
	ax := ratioAxis(plot.Range{Lo: math.Min(lo, r.Lo), Hi: math.Max(hi, r.Hi), Log: r.Log}.Margin(0.04))
	xa := plot.Axis{Lo: 1, Hi: float64(n)}
	for k, s := range h.Sources {
		xa.Ticks = append(xa.Ticks, plot.Tick{At: float64(k + 1), Label: strconv.Itoa(k+1) + ": " + startOf(s.Record)[len("2006-"):len("2006-01-02")]})
	}
	f := htmlFigure{Title: "From record to record", Text: joined("Time over that in the oldest record, with its 95% interval, in the order of time.", scaleWords(ax, "the axis")), Legend: legend}
	f.SVG = plot.Curves(plot.Text{ID: id, Title: f.Title, Desc: "Ratios of times to the oldest record for " + list(seriesNames(series)) + "; the values stand in the table of the history.", X: "record", Y: "ratio"}, xa, ax, series, levels, nil)
	return f
}
