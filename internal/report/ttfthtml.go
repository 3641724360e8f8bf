package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/plot"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// ttftHTML is the article of a TTFT run.
func ttftHTML(d *analysis.Requests, id string) (htmlRun, error) {
	run := d.Record.Run
	fs := ttftFacts(d)
	h := htmlRun{ID: id, Title: "ttft run " + run.ID, When: fs[0].text, Argv: strings.Join(run.Argv, " "),
		SequenceNote: "Each dot is one request, one at a time, in the order in which they ran; the line is the median. A dashed line is where the engine's block pool is predicted to wrap around, a full one a change that was found."}
	for _, v := range ttftVerdicts(d) {
		h.Verdicts = append(h.Verdicts, htmlVerdict{v.outcome, v.sentence()})
	}
	if d.Simulated {
		h.Emulated = "SIMULATED: " + simulatedTTFT
	}
	switch end := d.Record.End; {
	case end == nil && d.Live:
	case end == nil:
		h.Status = "This run was cut off."
	case end.Status != record.StatusOK:
		h.Status = "This run is not complete: " + end.Status + "."
	}
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
		h.Summary = append(h.Summary, s)
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
	h.Figures = slices.DeleteFunc([]htmlFigure{partsFigure(d, id), spreadFigure(d, id)}, func(f htmlFigure) bool { return f.SVG == "" })
	var err error
	if h.Sequences, err = requestSequences(d, id); err != nil {
		return h, err
	}
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
			b.Parts = append(b.Parts, plot.Part{Value: v, Class: i})
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
		plot.Axis{Hi: hi * 1.02, Ticks: plot.Linear(0, hi*1.02, 5, tickTime)}, bars)
	return f
}

func spreadFigure(d *analysis.Requests, id string) htmlFigure {
	lo, hi := math.Inf(1), 0.0
	var strips []plot.Strip
	var words []string
	for i, r := range d.Rows {
		if r.TTFT == nil {
			continue
		}
		s := plot.Strip{Label: ttftLabel(r), Class: i % 6, Mid: r.TTFT.Median, Text: fmt.Sprintf("median %s, n %d", nanos(r.TTFT.Median), r.N())}
		for _, l := range plot.Thin(r.Requests, maxDots, func(a, b record.Request) int { return int(a.TTFTNs - b.TTFTNs) }) {
			s.Values = append(s.Values, float64(l.TTFTNs))
		}
		for _, l := range r.Requests {
			lo, hi = math.Min(lo, float64(l.TTFTNs)), math.Max(hi, float64(l.TTFTNs))
		}
		if r.TTFT.CI != nil {
			s.Lo, s.Hi = r.TTFT.CI.Lo, r.TTFT.CI.Hi
		}
		strips, words = append(strips, s), append(words, s.Label)
	}
	if len(strips) == 0 {
		return htmlFigure{}
	}
	lo, hi = bounds(lo, hi, 0.03)
	f := htmlFigure{Title: "Every request", Text: "A dot is one request, the bar the 95% interval of the median. The axis does not start at zero."}
	mt := mainTable(d)
	t := htmlTableOf("times in ms", mt.cols, mt.rows, "")
	f.Data = &t
	f.SVG = plot.Strips(plot.Text{ID: id + "-e", Title: f.Title, Desc: "Distribution of the time to first token for " + list(words) + ".", X: "time to first token"},
		plot.Axis{Lo: lo, Hi: hi, Ticks: plot.Linear(lo, hi, 5, tickTime)}, strips)
	return f
}

// blockName is the block of a request as a figure labels it; "w" is warm-up.
func blockName(l record.Request) string {
	if l.Phase != record.PhaseMeasure {
		return "w"
	}
	return fmt.Sprint(l.Block + 1)
}

// sequenced are the values of requests that are drawn in the order of the run.
var sequenced = []sequence{
	{analysis.ComponentTTFT, "TTFT", func(l record.Request) (float64, bool) { return float64(l.TTFTNs), true }, tickTime},
	{analysis.ComponentDescriptors, "descriptors", func(l record.Request) (float64, bool) {
		n := analysis.Descriptors(l)
		return float64(n), n > 0
	}, trimmed},
}

type sequence struct {
	component, y string
	of           func(l record.Request) (float64, bool) // false: not known
	label        func(float64) string
}

// requestSequences draw the requests of each series in order, and the descriptors
// where NIXL counted them.
func requestSequences(d *analysis.Requests, id string) ([]htmlFigure, error) {
	var out []htmlFigure
	for i, s := range d.Series {
		for _, q := range sequenced {
			ys, at, blocks := q.values(s)
			if len(ys) < 2 {
				continue
			}
			f, err := q.figure(s, ys, blocks, q.marks(s, at), fmt.Sprintf("%s-q%d%s", id, i, q.component), i%6)
			if err != nil {
				return nil, err
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// values are those of the requests that have one, with each request's place in the
// arm and the blocks that they lie in.
func (q sequence) values(s analysis.Series) (ys []float64, at []int, blocks []plot.Span) {
	last := ""
	for _, l := range s.Requests {
		v, ok := q.of(l)
		if !ok {
			continue
		}
		k := float64(len(ys))
		if name := blockName(l); name != last {
			blocks, last = append(blocks, plot.Span{From: k - 0.5, Label: name}), name
		}
		blocks[len(blocks)-1].To = k + 0.5
		ys, at = append(ys, v), append(at, l.Sequence)
	}
	every := (len(blocks)-1)/12 + 1
	for k := range blocks {
		if k%every > 0 {
			blocks[k].Label = ""
		}
	}
	return ys, at, blocks
}

// marks are the changes that were found and the wrap of the block pool that was
// predicted, over requests at these places of the arm.
func (q sequence) marks(s analysis.Series, at []int) []plot.Mark {
	index := func(sequence int) float64 {
		k, _ := slices.BinarySearch(at, sequence)
		return float64(k) - 0.5
	}
	var out []plot.Mark
	for _, ch := range s.Changes {
		if ch.Component == q.component {
			out = append(out, plot.Mark{At: index(ch.Sequence), Class: "change", Label: fmt.Sprintf("change at %d", ch.Sequence+1)})
		}
	}
	if s.Lap != nil && s.Lap.Sequence <= at[len(at)-1] {
		out = append(out, plot.Mark{At: index(s.Lap.Sequence), Class: "predicted", Label: fmt.Sprintf("pool wraps at %d", s.Lap.Sequence+1)})
	}
	return out
}

func (q sequence) figure(s analysis.Series, ys []float64, blocks []plot.Span, marks []plot.Mark, id string, class int) (htmlFigure, error) {
	mid, err := stats.Median(ys)
	if err != nil {
		return htmlFigure{}, err
	}
	lo, hi := bounds(slices.Min(ys), slices.Max(ys), 0.06)
	title := seriesName(s) + ": " + q.y
	n := len(ys)
	ys, blocks, marks = squeeze(ys, blocks, marks)
	f := htmlFigure{Title: title, Text: fmt.Sprintf("%s, %d requests", s.Class(q.component), n)}
	f.SVG = plot.Sequence(plot.Text{ID: id, Title: title + " in run order",
		Desc: fmt.Sprintf("%d requests, %s; median %s.", n, s.Class(q.component), q.label(mid)), X: "block, in run order"},
		class, ys, blocks, marks, []plot.Level{{Y: mid}}, plot.Axis{Lo: lo, Hi: hi, Ticks: plot.Linear(lo, hi, 4, q.label)})
	return f, nil
}
