package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/plot"
	"github.com/xferbench/xferbench/internal/units"
)

// ttftHTML is the article of a TTFT run.
func ttftHTML(d *analysis.Requests, id string) (htmlRun, error) {
	run := d.Record.Run
	fs := ttftFacts(d)
	h := htmlRun{ID: id, Title: "ttft run " + run.ID, When: fs[0].text, Argv: strings.Join(run.Argv, " "),
		SequenceNote: "Each dot is one request, one at a time, in the order in which they ran; the line is the median. All axes of times span the same ratio to their series' median. A dashed line is where the engine's block pool is predicted to wrap around, a full one a change that was found."}
	h.Lead, h.MoreLead = ttftForest(d, id)
	for _, v := range ttftVerdicts(d) {
		h.Verdicts = append(h.Verdicts, htmlVerdict{v.outcome, v.sentence()})
	}
	if d.Simulated {
		h.Emulated = "SIMULATED: " + simulatedTTFT
	}
	h.Status = incomplete(d.Record, d.Live)
	if len(h.Verdicts) > 0 {
		h.Method = ttftMethod(d)
	}
	for _, r := range d.Rows {
		if r.TTFT == nil {
			continue
		}
		s := ttftLabel(r) + ": first token after " + nanos(r.TTFT.Median)
		if r.TTFT.CI != nil {
			s += fmt.Sprintf(" [%s, %s]", nanos(r.TTFT.CI.Lo), nanos(r.TTFT.CI.Hi))
		}
		if m := r.Moved; m != nil {
			s += fmt.Sprintf(", of which the transfer of %s takes %s", units.FormatMB(int64(m.Bytes)), nanos(m.Xfer))
		}
		h.Summary = append(h.Summary, s+".")
	}
	h.Answer = "No row of this record carries a figure."
	switch {
	case len(d.Comparisons) == 1 && len(h.Verdicts) == 1:
		h.Answer, h.Verdicts = h.Verdicts[0].Text+".", nil
	case len(h.Summary) > 0:
		h.Answer, h.Summary = h.Summary[0], h.Summary[1:]
	}
	for _, w := range ttftWarnings(d) {
		h.Warnings = append(h.Warnings, htmlWarning{"warning", w})
	}
	if t := mainTable(d); t.rows > 0 {
		h.Results = htmlTableOf(t.title, t.cols, t.rows, t.notes)
	}
	if t := movedTable(d); t.rows > 0 {
		p := htmlTableOf(t.title, t.cols, t.rows, t.notes)
		h.Path = &p
	}
	if f := partsFigure(d, id); f.SVG != "" {
		h.Figures = append(h.Figures, f)
	}
	for i, r := range d.Rows {
		if f := courseFigure(r, fmt.Sprintf("%s-c%d", id, i)); f.SVG != "" {
			h.Figures = append(h.Figures, f)
		}
	}
	h.Figures = append(h.Figures, spreadFigures(d, id)...)
	ttfts, descs, err := requestSequences(d, id)
	if err != nil {
		return h, err
	}
	h.Sequences, h.Folded = inRunOrder(ttfts)
	shown, folded := inRunOrder(descs)
	h.Sequences, h.Folded = append(h.Sequences, shown...), append(h.Folded, folded...)
	for _, f := range fs[1:] {
		h.Facts = append(h.Facts, htmlFact{f.title, f.text})
	}
	h.Details = provenance(d.Record, nil)
	return h, nil
}

func partsFigure(d *analysis.Requests, id string) htmlFigure {
	rows := splitRows(d)
	if len(rows) == 0 {
		return htmlFigure{}
	}
	f := htmlFigure{Title: "Where the TTFT went", Text: "Medians of the parts of a request, end to end."}
	hi := 0.0
	var bars []plot.Bar
	var words []string
	used := map[int]bool{}
	for _, r := range rows {
		b := plot.Bar{Label: ttftLabel(r)}
		sum := 0.0
		for i, p := range partNames {
			v := p.of(r.Split)
			b.Parts = append(b.Parts, plot.Part{Value: v, Class: i, Name: p.name})
			used[i] = used[i] || v > 0
			sum += v
		}
		b.Text = nanos(sum)
		hi = math.Max(hi, sum)
		bars, words = append(bars, b), append(words, b.Label+" "+b.Text)
	}
	for i, p := range partNames {
		if used[i] {
			f.Legend = append(f.Legend, htmlLegend{plot.Patch(i), p.name})
		}
	}
	if hi == 0 {
		return htmlFigure{}
	}
	st := splitTable(d)
	t := htmlTableOf("medians in ms", st.cols, st.rows, "")
	f.Data = &t
	f.SVG = plot.Bars(plot.Text{ID: id + "-p", Title: f.Title, Desc: "Stacked parts of the time to first token: " + list(words) + ".", X: "time"},
		timeAxis(plot.Range{Hi: hi * 1.02}), bars)
	return f
}

// spreadFigures show every request, and how they accumulate.
func spreadFigures(d *analysis.Requests, id string) []htmlFigure {
	rows := slices.DeleteFunc(slices.Clone(d.Rows), func(r *analysis.RequestRow) bool { return r.TTFT == nil })
	if len(rows) == 0 {
		return nil
	}
	all := make([][]float64, len(rows))
	for i, r := range rows {
		for _, l := range plot.Thin(r.Requests, maxDots, func(a, b record.Request) int { return cmp.Compare(a.TTFTNs, b.TTFTNs) }) {
			all[i] = append(all[i], float64(l.TTFTNs))
		}
	}
	ax := timeAxis(plot.Robust(all...).Margin(0.03))
	beyond := 0
	var strips []plot.Strip
	var steps []plot.Steps
	var legend []htmlLegend
	var words []string
	for i, r := range rows {
		s := plot.Strip{Label: ttftLabel(r), Class: i % 6, Mid: r.TTFT.Median, Text: fmt.Sprintf("median %s, n %d", nanos(r.TTFT.Median), r.N()), Values: all[i]}
		if r.TTFT.CI != nil {
			s.Lo, s.Hi = r.TTFT.CI.Lo, r.TTFT.CI.Hi
		}
		n := 0
		for _, l := range r.Requests {
			if v := float64(l.TTFTNs); v < ax.Lo || v > ax.Hi {
				n++
			}
		}
		if n > 0 {
			beyond += n
			s.Text += fmt.Sprintf(", %s beyond", units.FormatCount(int64(n)))
		}
		st := plot.Steps{Class: i % 6, Dashed: i >= 6, Values: all[i], Label: s.Label}
		strips, words = append(strips, s), append(words, s.Label)
		steps, legend = append(steps, st), append(legend, htmlLegend{plot.Swatch(st.Class, st.Dashed), s.Label})
	}
	f := htmlFigure{Title: "Every request", Text: joined("A dot is one request, the bar the 95% interval of the median. The axis does not start at zero.", scaleWords(ax, "the axis"), beyondWords(beyond, "request"))}
	mt := mainTable(d)
	t := htmlTableOf("times in ms", mt.cols, mt.rows, "")
	f.Data = &t
	f.SVG = plot.Strips(plot.Text{ID: id + "-e", Title: f.Title, Desc: "Distribution of the time to first token for " + list(words) + ".", X: "time to first token"}, ax, strips)
	e := htmlFigure{Title: "The same, cumulative", Text: joined("Which share of a row's requests had their first token by then.", scaleWords(ax, "the axis")), Legend: legend}
	e.SVG = plot.ECDF(plot.Text{ID: id + "-ee", Title: "Every request, cumulative", Desc: "Empirical distribution functions of " + list(words) + ".", X: "time to first token"}, ax, steps)
	return []htmlFigure{f, e}
}
