package report

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/plot"
)

// ladderHTML is the page of a TTFT run held against raw transfers.
func ladderHTML(b *bytes.Buffer, res *analysis.Ladder) error {
	p, err := newPage("xferbench: where the TTFT went")
	if err != nil {
		return err
	}
	rows := slices.Clone(res.Rows) // those that moved a cache first: they have the answer
	slices.SortStableFunc(rows, func(x, y analysis.LadderRow) int {
		return cmp.Compare(min(y.Bytes, 1), min(x.Bytes, 1))
	})
	for i, r := range rows {
		h := htmlRun{ID: fmt.Sprintf("w%d", i), Title: rowTitle(r) + ": first token after " + nanos(r.TTFT.Median), When: startOf(res.Requests.Record)}
		said := wireSentences(r)
		h.Answer, h.Summary = said[0], said[1:]
		if res.Requests.Simulated {
			h.Emulated = "SIMULATED: " + simulatedTTFT
		}
		if cols, n := rungColumns(r); n > 1 {
			h.Results = htmlTableOf("The ladder", cols, n, inOne(rungNotes, matchLines(r)))
		}
		if cols, n := partColumns(r); n > 0 {
			h.Tables = append(h.Tables, htmlTableOf("Parts of the TTFT", cols, n, partNotes(res.Requests)))
		}
		if f := waterfallFigure(r, h.ID+"-f"); f.SVG != "" {
			h.Lead = &f
		}
		if i == 0 {
			for _, l := range ladderHead(res) {
				title, text, _ := strings.Cut(l, ": ")
				h.Facts = append(h.Facts, htmlFact{title, text})
			}
			for _, l := range ladderWarnings(res) {
				h.Warnings = append(h.Warnings, htmlWarning{"warning", l})
			}
		}
		p.Runs = append(p.Runs, h)
	}
	return pageTemplate.Execute(b, p)
}

// inOne are lines one after another, without the last full stop.
func inOne(first string, more []string) string {
	return strings.Join(append([]string{first}, more...), ". ")
}

// waterfallFigure draws the steps from memory to the first token.
func waterfallFigure(r analysis.LadderRow, id string) htmlFigure {
	if len(r.Steps) == 0 {
		return htmlFigure{}
	}
	span := plot.Range{}
	var falls []plot.Fall
	var words []string
	for i, s := range r.Steps {
		f := plot.Fall{Label: stepName(s), Text: nanos(s.Ns), From: s.SumNs - s.Ns, To: s.SumNs, Class: min(i, 6)}
		if s.Kind == analysis.StepTotal {
			f.Class = 7
		}
		if s.CI != nil {
			f.Lo, f.Hi = f.From+s.CI.Lo, f.From+s.CI.Hi
		}
		for _, v := range []float64{f.From, f.To, f.Lo, f.Hi} {
			span.Lo, span.Hi = math.Min(span.Lo, v), math.Max(span.Hi, v)
		}
		falls, words = append(falls, f), append(words, f.Label+" "+f.Text)
	}
	cols, n := stepColumns(r)
	data := htmlTableOf("medians in ms", cols, n, stepNotes(r))
	text := inOne("What each level of the path adds to the one before, with its interval; an open bar leads back", causeLines(r)) + "."
	return htmlFigure{Title: "From memory to the first token", Text: text, Data: &data,
		SVG: plot.Waterfall(plot.Text{ID: id, Title: "From memory to the first token", Desc: "Waterfall of the time to first token: " + list(words) + ".", X: "time"},
			timeAxis(plot.Range{Lo: span.Lo, Hi: span.Hi * 1.02}), falls)}
}

// courseFigure draws the parts of a row's TTFT one after another, with NIXL's
// transfer inside the decode queue.
func courseFigure(r *analysis.RequestRow, id string) htmlFigure {
	if r.Split == nil || r.Split.Engine == 0 || r.Moved == nil {
		return htmlFigure{}
	}
	f := htmlFigure{Title: "The course of a request: " + ttftLabel(r), Text: "Medians of the parts, one after another. NIXL's transfer is inside the decode engine's queue."}
	sum := 0.0
	var falls []plot.Fall
	var words []string
	for i, p := range partNames {
		v := p.of(r.Split)
		if v == 0 {
			continue
		}
		fall := plot.Fall{Label: p.name, Text: nanos(v), From: sum, To: sum + v, Class: i}
		if p.name == queueName {
			fall.Inside = plot.Part{Value: r.Moved.Xfer, Class: nixlClass, Name: "NIXL transfer"}
			fall.Text += ", NIXL " + nanos(r.Moved.Xfer)
		}
		sum += v
		falls, words = append(falls, fall), append(words, fall.Label+" "+fall.Text)
	}
	f.SVG = plot.Waterfall(plot.Text{ID: id, Title: f.Title, Desc: "Waterfall of the parts of the time to first token: " + list(words) + ".", X: "time"},
		timeAxis(plot.Range{Hi: sum * 1.02}), falls)
	return f
}

// nixlClass is the colour of NIXL's transfer beside those of the parts.
const nixlClass = 7
