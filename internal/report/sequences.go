package report

import (
	"fmt"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/plot"
	"github.com/xferbench/xferbench/internal/stats"
)

// openSequences is how many figures in run order are shown at once; of more, those
// that are not quiet.
const openSequences = 6

// quiet tells whether a class says of a series that nothing happened.
func quiet(c stats.Class) bool { return c == stats.Flat || c == stats.Unclassified }

// inOrder is a series in run order, to be drawn on an axis that spans the same
// ratio to the median as that of its neighbours.
type inOrder struct {
	id, title, text, desc string
	x, what               string // the x axis, and what a value is one of: "transfer"
	class                 int
	values                []float64
	blocks                []plot.Span
	marks                 []plot.Mark
	mid                   float64
	quiet                 bool // nothing that its class tells of
	axis                  func(plot.Range) plot.Axis
}

// inRunOrder draws series on axes of one span, and tells apart which figures are
// shown and which are folded away.
func inRunOrder(all []inOrder) (shown, folded []htmlFigure) {
	ratios := make([][]float64, len(all))
	for i, s := range all {
		for _, p := range s.points() {
			ratios[i] = append(ratios[i], p[1]/s.mid)
		}
	}
	span := plot.Robust(ratios...).Margin(0.06)
	for _, s := range all {
		f := s.figure(span)
		if len(all) > openSequences && s.quiet {
			folded = append(folded, f)
		} else {
			shown = append(shown, f)
		}
	}
	return shown, folded
}

// points are at most maxDots of the values, with their places.
func (s inOrder) points() [][2]float64 {
	out := make([][2]float64, len(s.values))
	for i, v := range s.values {
		out[i] = [2]float64{float64(i), v}
	}
	return plot.Thin(out, maxDots, func(a, b [2]float64) int {
		switch {
		case a[1] < b[1]:
			return -1
		case a[1] > b[1]:
			return 1
		}
		return 0
	})
}

func (s inOrder) figure(span plot.Range) htmlFigure {
	ax := s.axis(span.Times(s.mid))
	beyond := 0
	for _, v := range s.values {
		if v < ax.Lo || v > ax.Hi {
			beyond++
		}
	}
	f := htmlFigure{Title: s.title, Text: joined(s.text+".", scaleWords(ax, "the axis"), beyondWords(beyond, s.what))}
	f.SVG = plot.Sequence(plot.Text{ID: s.id, Title: s.title + " in run order", Desc: s.desc, X: s.x}, s.class, s.points(), s.blocks, s.marks,
		[]plot.Level{{Y: s.mid, Label: "median " + ax.Value(s.mid)}}, ax)
	return f
}

// sequences are the rows of raw transfers in run order.
func sequences(a *analysis.Analysis, id string) []inOrder {
	cl := classes(a)
	var out []inOrder
	for i, r := range speedy(ordered(a)) {
		s := inOrder{id: fmt.Sprintf("%s-s%d", id, i), title: r.Label, text: fmt.Sprintf("%s, %d transfers", r.Steady.Class, r.N), x: "block, in run order", what: "transfer",
			class: cl[r.Provider], values: make([]float64, len(r.Samples)), mid: r.MedianNs, quiet: quiet(r.Steady.Class), axis: timeAxis}
		for k := range r.Samples {
			s.values[k] = float64(r.Samples[k].TotalNs)
			if k == 0 || r.Samples[k].Block != r.Samples[k-1].Block || r.Samples[k].Launch != r.Samples[k-1].Launch {
				s.blocks = append(s.blocks, plot.Span{From: float64(k) - 0.5, Label: fmt.Sprint(len(s.blocks) + 1)})
			}
			s.blocks[len(s.blocks)-1].To = float64(k) + 0.5
		}
		words := "no change point"
		for _, t := range r.Steady.Transitions {
			words = fmt.Sprintf("a change at transfer %d, from %s to %s", t.Iteration+1, nanos(t.Before), nanos(t.After))
			s.marks = append(s.marks, plot.Mark{At: float64(t.Iteration) - 0.5, Class: "change", Label: fmt.Sprintf("change at %d", t.Iteration+1)})
		}
		if e := r.Steady.Longest(); e.End > 0 {
			words = fmt.Sprintf("%d slow transfers from %d to %d", e.End-e.Start, e.Start+1, e.End)
		}
		s.desc = fmt.Sprintf("%d transfers in %d blocks: %s, %s; from %s to %s.", r.N, r.Blocks, r.Steady.Class, words, nanos(r.MinNs), nanos(r.MaxNs))
		out = append(out, s)
	}
	return out
}

// requestSequences are the requests of each series in order, and the descriptors
// where NIXL counted them.
func requestSequences(d *analysis.Requests, id string) (ttfts, descs []inOrder, err error) {
	for i, s := range d.Series {
		ttft, err := sequenceOf(s, analysis.ComponentTTFT, func(l record.Request) (float64, bool) { return float64(l.TTFTNs), true })
		if err != nil {
			return nil, nil, err
		}
		desc, err := sequenceOf(s, analysis.ComponentDescriptors, func(l record.Request) (float64, bool) {
			n := analysis.Descriptors(l)
			return float64(n), n > 0
		})
		if err != nil {
			return nil, nil, err
		}
		if ttft != nil {
			ttft.id, ttft.class, ttft.axis, ttft.title = fmt.Sprintf("%s-q%dt", id, i), i%6, timeAxis, seriesName(s)+": TTFT"
			ttfts = append(ttfts, *ttft)
		}
		if desc != nil {
			desc.id, desc.class, desc.axis, desc.title = fmt.Sprintf("%s-q%dd", id, i), i%6, countAxis, seriesName(s)+": descriptors"
			descs = append(descs, *desc)
		}
	}
	return ttfts, descs, nil
}

// sequenceOf are the values of the requests that have one, in the blocks that they
// lie in; nil of fewer than two.
func sequenceOf(s analysis.Series, component string, of func(l record.Request) (float64, bool)) (*inOrder, error) {
	class := s.Class(component)
	out := inOrder{x: "block, in run order", what: "request", quiet: quiet(class)}
	var at []int // each request's place in the arm
	last := ""
	for _, l := range s.Requests {
		v, ok := of(l)
		if !ok {
			continue
		}
		k := float64(len(at))
		if name := blockName(l); name != last {
			out.blocks, last = append(out.blocks, plot.Span{From: k - 0.5, Label: name}), name
		}
		out.blocks[len(out.blocks)-1].To = k + 0.5
		out.values, at = append(out.values, v), append(at, l.Sequence)
	}
	if len(at) < 2 {
		return nil, nil
	}
	var err error
	if out.mid, err = stats.Median(out.values); err != nil {
		return nil, err
	}
	value := trimmed
	if component == analysis.ComponentTTFT {
		value = nanos
	}
	out.marks = sequenceMarks(s, component, at)
	out.text = fmt.Sprintf("%s, %d requests", class, len(at))
	out.desc = fmt.Sprintf("%d requests, %s; median %s.", len(at), class, value(out.mid))
	return &out, nil
}

// blockName is the block of a request as a figure labels it; "w" is warm-up.
func blockName(l record.Request) string {
	if l.Phase != record.PhaseMeasure {
		return "w"
	}
	return fmt.Sprint(l.Block + 1)
}

// sequenceMarks are the changes that were found and the wrap of the block pool that
// was predicted, over requests at these places of the arm.
func sequenceMarks(s analysis.Series, component string, at []int) []plot.Mark {
	index := func(sequence int) float64 {
		k := 0
		for k < len(at) && at[k] < sequence {
			k++
		}
		return float64(k) - 0.5
	}
	var out []plot.Mark
	for _, ch := range s.Changes {
		if ch.Component == component {
			out = append(out, plot.Mark{At: index(ch.Sequence), Class: "change", Label: fmt.Sprintf("change at %d", ch.Sequence+1)})
		}
	}
	if s.Lap != nil && s.Lap.Sequence <= at[len(at)-1] {
		out = append(out, plot.Mark{At: index(s.Lap.Sequence), Class: "predicted", Label: fmt.Sprintf("pool wraps at %d", s.Lap.Sequence+1)})
	}
	return out
}
