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
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/units"
)

// maxDots is how many samples of a row are drawn; a record may hold millions.
const maxDots = 600

// classes give each provider its colour: 0 to 5 for transports, 6 and 7 for
// ceilings.
func classes(a *analysis.Analysis) map[string]int {
	out := map[string]int{}
	n := 0
	for _, r := range a.Rows {
		if _, ok := out[r.Provider]; ok {
			continue
		}
		switch {
		case r.Ceiling && r.API == "memcpy":
			out[r.Provider] = 7
		case r.Ceiling:
			out[r.Provider] = 6
		default:
			out[r.Provider] = n % 6
			n++
		}
	}
	return out
}

func speedy(rows []*analysis.Row) []*analysis.Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r *analysis.Row) bool { return !r.HasSpeed() })
}

func figures(a *analysis.Analysis, id string) []htmlFigure {
	rows := speedy(ordered(a))
	if len(rows) == 0 {
		return nil
	}
	if len(a.Pieces) > 0 && sizes(rows) < manySizes {
		return []htmlFigure{timeByDescs(a, id)}
	}
	if sizes(rows) >= manySizes {
		out := []htmlFigure{timeBySize(a, rows, id), rateBySize(a, rows, id)}
		shown := transports(rows)
		if len(shown) == 0 {
			shown = rows
		}
		for i, p := range unique(providersOf(shown)) {
			own := slices.DeleteFunc(slices.Clone(shown), func(r *analysis.Row) bool { return r.Provider != p })
			out = append(out, relative(a, own, p, fmt.Sprintf("%s-v%d", id, i))...)
		}
		return out
	}
	var out []htmlFigure
	bySize := map[uint64][]*analysis.Row{}
	var order []uint64
	for _, r := range rows {
		if bySize[r.Bytes] == nil {
			order = append(order, r.Bytes)
		}
		bySize[r.Bytes] = append(bySize[r.Bytes], r)
	}
	for i, n := range order {
		out = append(out, ladder(a, bySize[n], fmt.Sprintf("%s-l%d", id, i)))
	}
	for i, n := range order {
		if rs := transports(bySize[n]); len(rs) > 0 {
			out = append(out, distribution(a, rs, fmt.Sprintf("%s-d%d", id, i))...)
		}
	}
	return out
}

func transports(rows []*analysis.Row) []*analysis.Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r *analysis.Row) bool { return r.Ceiling })
}

// ladder holds the medians of the same bytes side by side, from zero.
func ladder(a *analysis.Analysis, rows []*analysis.Row, id string) htmlFigure {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(x, y *analysis.Row) int { return cmp.Compare(x.MedianNs, y.MedianNs) })
	cl := classes(a)
	var bars []plot.Bar
	top := rows[len(rows)-1].MedianNs
	var words []string
	for _, r := range rows {
		b := plot.Bar{Label: r.Label, Text: nanos(r.MedianNs) + " · " + units.FormatGBps(r.Rate), Parts: []plot.Part{{Value: r.MedianNs, Class: cl[r.Provider]}}}
		if r.CI != nil {
			b.Lo, b.Hi = r.CI.Lo, r.CI.Hi
		}
		bars = append(bars, b)
		words = append(words, r.Label+" "+nanos(r.MedianNs))
	}
	for _, b := range bars { // an interval may not push the bars into a corner
		top = math.Max(top, math.Min(b.Hi, 1.5*rows[len(rows)-1].MedianNs))
	}
	size := units.FormatMB(int64(rows[0].Bytes))
	title := "The ladder: " + size + " over each transport"
	f := htmlFigure{Title: title, Text: "Median time from zero, with its 95% interval.", Data: dataTable(rows)}
	if len(transports(rows)) < len(rows) {
		f.Text += " Grey rungs are the ceilings of this host: a copy in memory, plain TCP."
	}
	f.SVG = plot.Bars(plot.Text{ID: id, Title: title, Desc: "Median times, shortest first: " + list(words) + ".", X: "time"}, timeAxis(plot.Range{Hi: top * 1.02}), bars)
	return f
}

func thin(r *analysis.Row) []analysis.Transfer {
	return plot.Thin(r.Samples, maxDots, func(x, y analysis.Transfer) int { return cmp.Compare(x.TotalNs, y.TotalNs) })
}

// distribution shows every sample of rows of one size, and how they accumulate.
func distribution(a *analysis.Analysis, rows []*analysis.Row, id string) []htmlFigure {
	title := "Every transfer of " + units.FormatMB(int64(rows[0].Bytes))
	return spreads(a, rows, spreadOf{
		id: id, title: title, x: "time", about: "Distribution of transfer times for ",
		unit: func(*analysis.Row) float64 { return 1 }, axis: timeAxis, text: "The axis does not start at zero.",
		words: func(r *analysis.Row) string { return fmt.Sprintf("median %s, n %d", nanos(r.MedianNs), r.N) },
	})
}

// relative shows the distributions of a sweep, each against its own median.
func relative(a *analysis.Analysis, rows []*analysis.Row, provider, id string) []htmlFigure {
	return spreads(a, rows, spreadOf{
		id: id, title: "Every transfer over " + provider + ", relative to its row's median", x: "time over median", about: "Spread of transfer times around the median for ",
		unit: func(r *analysis.Row) float64 { return r.MedianNs }, axis: ratioAxis,
		words: func(r *analysis.Row) string { return fmt.Sprintf("%s, n %d", nanos(r.MedianNs), r.N) },
	})
}

// spreadOf says how to draw the samples of rows: over a unit of each row's own.
type spreadOf struct {
	id, title, x, about, text string
	unit                      func(*analysis.Row) float64
	axis                      func(plot.Range) plot.Axis
	words                     func(*analysis.Row) string
}

func spreads(a *analysis.Analysis, rows []*analysis.Row, o spreadOf) []htmlFigure {
	cl := classes(a)
	all := make([][]float64, len(rows))
	for i, r := range rows {
		for _, v := range thin(r) {
			all[i] = append(all[i], float64(v.TotalNs)/o.unit(r))
		}
	}
	ax := o.axis(plot.Robust(all...).Margin(0.03))
	var strips []plot.Strip
	var steps []plot.Steps
	var legend []htmlLegend
	beyond := 0
	for i, r := range rows {
		u := o.unit(r)
		s := plot.Strip{Label: r.Label, Class: cl[r.Provider], Mid: r.MedianNs / u, Text: o.words(r), Values: all[i]}
		if r.CI != nil {
			s.Lo, s.Hi = r.CI.Lo/u, r.CI.Hi/u
		}
		if n := outside(r, u, ax); n > 0 {
			beyond += n
			s.Text += fmt.Sprintf(", %s beyond", units.FormatCount(int64(n)))
		}
		strips = append(strips, s)
		st := plot.Steps{Class: i % 6, Dashed: i >= 6, Values: all[i], Label: r.Label}
		steps, legend = append(steps, st), append(legend, htmlLegend{plot.Swatch(st.Class, st.Dashed), r.Label})
	}
	text := joined("A dot is one transfer, the bar the 95% interval of the median.", o.text, scaleWords(ax, "the axis"), beyondWords(beyond, "transfer"))
	f := htmlFigure{Title: o.title, Text: text, Data: spreadTable(rows)}
	f.SVG = plot.Strips(plot.Text{ID: o.id, Title: o.title, Desc: o.about + list(labels(rows)) + ". Minimum, median and maximum stand in the table below.", X: o.x}, ax, strips)
	e := htmlFigure{Title: "The same, cumulative", Text: joined("Which share of a row's transfers took at most that long.", scaleWords(ax, "the axis")), Legend: legend}
	e.SVG = plot.ECDF(plot.Text{ID: o.id + "e", Title: o.title + ", cumulative", Desc: "Empirical distribution functions of " + list(labels(rows)) + ".", X: o.x}, ax, steps)
	return []htmlFigure{f, e}
}

// outside counts the samples of a row that lie beyond an axis.
func outside(r *analysis.Row, unit float64, ax plot.Axis) int {
	n := 0
	for i := range r.Samples {
		if v := float64(r.Samples[i].TotalNs) / unit; v < ax.Lo || v > ax.Hi {
			n++
		}
	}
	return n
}

func labels(rows []*analysis.Row) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.Label)
	}
	return out
}

func spreadTable(rows []*analysis.Row) *htmlTable {
	s := timeScale(rows)
	cols := append(naming(rows),
		table.Column{Head: "n", Cell: func(i int) string { return fmt.Sprint(rows[i].N) }},
		table.Column{Head: "min", Cell: func(i int) string { return s.time(rows[i].MinNs) }},
		table.Column{Head: "median", Cell: func(i int) string { return s.time(rows[i].MedianNs) }},
		table.Column{Head: "max", Cell: func(i int) string { return s.time(rows[i].MaxNs) }},
		table.Column{Head: "steady state", Left: true, Cell: func(i int) string { return rows[i].Steady.Class.String() }},
	)
	t := htmlTableOf("times in "+s.name, cols, len(rows), "")
	return &t
}

// curves sorts rows into series: what differs in size only.
func curves(a *analysis.Analysis, rows []*analysis.Row, y func(r *analysis.Row, ns float64) float64, label func(r *analysis.Row) string, dots bool) ([]plot.Series, []htmlLegend) {
	cl := classes(a)
	at := map[string]int{}
	var out []plot.Series
	var legend []htmlLegend
	first := map[string]string{}
	for _, r := range rows {
		name := strings.Join(slices.DeleteFunc(strings.Fields(r.Label), func(w string) bool { return w == analysis.Size(r.Bytes) }), " ")
		i, ok := at[name]
		if !ok {
			i = len(out)
			at[name] = i
			variant := r.Op + r.Shape
			if first[r.Provider] == "" {
				first[r.Provider] = variant
			}
			out = append(out, plot.Series{Name: name, Class: cl[r.Provider], Dashed: r.Ceiling || first[r.Provider] != variant})
			legend = append(legend, htmlLegend{plot.Swatch(out[i].Class, out[i].Dashed), name})
		}
		p := plot.Point{X: float64(r.Bytes), Y: y(r, r.MedianNs), Label: label(r) + ciWords(r)}
		if r.CI != nil {
			p.Lo, p.Hi = y(r, r.CI.Lo), y(r, r.CI.Hi)
			if p.Lo > p.Hi {
				p.Lo, p.Hi = p.Hi, p.Lo
			}
		}
		out[i].Points = append(out[i].Points, p)
		if dots {
			for _, s := range thin(r) {
				out[i].Dots = append(out[i].Dots, [2]float64{float64(r.Bytes), y(r, float64(s.TotalNs))})
			}
		}
	}
	for i := range out {
		slices.SortStableFunc(out[i].Points, func(p, q plot.Point) int { return cmp.Compare(p.X, q.X) })
	}
	return out, legend
}

// sizeAxis is logarithmic, in powers of two when all sizes are multiples of 1 KiB.
func sizeAxis(rows []*analysis.Row) plot.Axis {
	lo, hi := math.Inf(1), 0.0
	binary := true
	for _, r := range rows {
		lo, hi = math.Min(lo, float64(r.Bytes)), math.Max(hi, float64(r.Bytes))
		binary = binary && r.Bytes%1024 == 0
	}
	if binary {
		return plot.Axis{Lo: lo, Hi: hi, Log: true, Ticks: plot.Log(lo, hi, 4, 5, tickBytes)}
	}
	return plot.Axis{Lo: lo, Hi: hi, Log: true, Ticks: plot.Log(lo, hi, 10, 6, tickBytes)}
}

func timeBySize(a *analysis.Analysis, rows []*analysis.Row, id string) htmlFigure {
	series, legend := curves(a, rows, func(_ *analysis.Row, ns float64) float64 { return ns },
		func(r *analysis.Row) string { return r.Label + ": " + nanos(r.MedianNs) }, true)
	ya := logTimes(rows)
	beyond := 0
	for _, r := range rows {
		beyond += outside(r, 1, ya)
	}
	var bands []plot.Span
	for _, g := range a.Guides {
		for _, c := range g.Crossings {
			if l := c.Lines; l != nil && len(a.Guides) == 1 {
				bands = append(bands, plot.Span{From: l.Interval.Lo, To: l.Interval.Hi, Label: "cross at " + shortBytes(int64(l.Bytes))})
			}
		}
	}
	title := "Time against size"
	f := htmlFigure{Title: title, Legend: legend, Data: dataTable(rows),
		Text: joined("Medians with 95% intervals; every transfer as a dot, spread sideways to be seen. Both axes are logarithmic.", beyondWords(beyond, "transfer"))}
	f.SVG = plot.Curves(plot.Text{ID: id + "-t", Title: title, Desc: "Median transfer time by size for " + list(seriesNames(series)) + "; the values stand in the table below.", X: "bytes", Y: "time"},
		sizeAxis(rows), ya, series, nil, bands)
	return f
}

func seriesNames(series []plot.Series) []string {
	var out []string
	for _, s := range series {
		out = append(out, s.Name)
	}
	return out
}

// timeByDescs draws the time of the same bytes against the number of descriptors
// that they are cut into.
func timeByDescs(a *analysis.Analysis, id string) htmlFigure {
	cl := classes(a)
	var series []plot.Series
	var legend []htmlLegend
	var all []*analysis.Row
	xlo, xhi, beyond := math.Inf(1), 0.0, 0
	first := map[string]uint64{}
	for _, m := range a.Pieces {
		p := m.Rows[0].Provider
		if first[p] == 0 {
			first[p] = m.Bytes
		}
		s := plot.Series{Name: m.Label, Class: cl[p], Dashed: first[p] != m.Bytes}
		for _, r := range m.Rows {
			x := math.Max(1, float64(r.Descs))
			pt := plot.Point{X: x, Y: r.MedianNs, Label: r.Label + ": " + nanos(r.MedianNs) + ciWords(r)}
			if r.CI != nil {
				pt.Lo, pt.Hi = r.CI.Lo, r.CI.Hi
			}
			s.Points = append(s.Points, pt)
			for _, v := range thin(r) {
				s.Dots = append(s.Dots, [2]float64{x, float64(v.TotalNs)})
			}
			xlo, xhi = math.Min(xlo, x), math.Max(xhi, x)
		}
		all = append(all, m.Rows...)
		series, legend = append(series, s), append(legend, htmlLegend{plot.Swatch(s.Class, s.Dashed), s.Name})
	}
	ya := logTimes(all)
	for _, r := range all {
		beyond += outside(r, 1, ya)
	}
	title := "Time against descriptors"
	f := htmlFigure{Title: title, Legend: legend, Data: dataTable(all),
		Text: joined("The same bytes cut into more pieces: medians with 95% intervals, every transfer as a dot. Both axes are logarithmic.", beyondWords(beyond, "transfer"))}
	f.SVG = plot.Curves(plot.Text{ID: id + "-n", Title: title, Desc: "Median transfer time by number of descriptors for " + list(seriesNames(series)) + "; the values stand in the table below.", X: "descriptors", Y: "time"},
		plot.Axis{Lo: xlo, Hi: xhi, Log: true, Ticks: plot.Log(xlo, xhi, 10, 6, trimmed)}, ya, series, nil, nil)
	return f
}

// withoutMemcpy leaves copies in memory out where they would flatten all else,
// and says how fast they are.
func withoutMemcpy(rows []*analysis.Row) ([]*analysis.Row, string) {
	copies, others := 0.0, 0.0
	for _, r := range rows {
		rate := float64(r.Bytes) / r.MedianNs
		if r.API == "memcpy" {
			copies = math.Max(copies, rate)
		} else {
			others = math.Max(others, rate)
		}
	}
	if others == 0 || copies < 3*others {
		return rows, ""
	}
	rows = slices.DeleteFunc(slices.Clone(rows), func(r *analysis.Row) bool { return r.API == "memcpy" })
	return rows, fmt.Sprintf(" A copy in memory, up to %s, is beyond this axis.", units.FormatGBps(copies*1e9))
}

func rateBySize(a *analysis.Analysis, rows []*analysis.Row, id string) htmlFigure {
	rows, beyond := withoutMemcpy(rows)
	series, legend := curves(a, rows, func(r *analysis.Row, ns float64) float64 { return float64(r.Bytes) / ns },
		func(r *analysis.Row) string {
			return r.Label + ": " + units.FormatGBps(float64(r.Bytes)/r.MedianNs*1e9) + ", " + nanos(r.MedianNs)
		}, false)
	hi := 0.0
	var levels []plot.Level
	for _, r := range rows {
		rate := float64(r.Bytes) / r.MedianNs
		hi = math.Max(hi, rate)
		if r.CI != nil {
			hi = math.Max(hi, math.Min(float64(r.Bytes)/r.CI.Lo, 1.5*rate))
		}
		if b := r.Bound; b != nil && b.Kind == "line" {
			if l := (plot.Level{Y: b.Rate / 1e9, Label: "line rate " + units.FormatGBps(b.Rate)}); !slices.Contains(levels, l) {
				levels = append(levels, l)
				hi = math.Max(hi, l.Y)
			}
		}
	}
	title := "Throughput against size"
	f := htmlFigure{Title: title, Text: "Bytes over median time with its 95% interval, and the ceilings." + beyond, Legend: legend, Data: dataTable(rows)}
	f.SVG = plot.Curves(plot.Text{ID: id + "-r", Title: title, Desc: "Throughput by size for " + list(seriesNames(series)) + "; the values stand in the table below.", X: "bytes", Y: "GB/s"},
		sizeAxis(rows), plot.Axis{Lo: 0, Hi: hi * 1.12, Ticks: plot.Linear(0, hi*1.12, 6, trimmed)}, series, levels, nil)
	return f
}

// coldFigure stacks the one-time costs of each provider.
func coldFigure(a *analysis.Analysis, id string) *htmlFigure {
	parts := []string{"open", "register", "connect", "first transfer"}
	var bars []plot.Bar
	var cold []record.Cold
	hi := 0.0
	var words []string
	for _, c := range a.Record.Colds {
		if c.Simulated {
			continue
		}
		b := plot.Bar{Label: c.Provider}
		sum := 0.0
		for i, ns := range []int64{c.OpenNs, c.RegisterNs, c.ConnectNs, c.FirstNs} {
			b.Parts = append(b.Parts, plot.Part{Value: float64(ns), Class: i, Name: parts[i]})
			sum += float64(ns)
		}
		b.Text = nanos(sum)
		hi = math.Max(hi, sum)
		bars, cold = append(bars, b), append(cold, c)
		words = append(words, c.Provider+" "+nanos(sum))
	}
	if len(bars) == 0 || hi == 0 {
		return nil
	}
	f := &htmlFigure{Title: "Cold costs", Text: "What a transport costs once, before the first transfer has landed. No other figure holds it."}
	for i, p := range parts {
		f.Legend = append(f.Legend, htmlLegend{plot.Patch(i), p})
	}
	cell := func(of func(c record.Cold) int64) func(int) string {
		return func(i int) string { return nanos(float64(of(cold[i]))) }
	}
	t := htmlTableOf("One-time costs", []table.Column{
		{Head: "provider", Left: true, Cell: func(i int) string { return cold[i].Provider }},
		{Head: "open", Cell: cell(func(c record.Cold) int64 { return c.OpenNs })},
		{Head: "register", Cell: cell(func(c record.Cold) int64 { return c.RegisterNs })},
		{Head: "registered", Cell: func(i int) string { return shortBytes(int64(cold[i].RegisterBytes)) }},
		{Head: "connect", Cell: cell(func(c record.Cold) int64 { return c.ConnectNs })},
		{Head: "first transfer", Cell: cell(func(c record.Cold) int64 { return c.FirstNs })},
		{Head: "first bytes", Cell: func(i int) string { return shortBytes(int64(cold[i].FirstBytes)) }},
		{Head: "peer open", Cell: cell(func(c record.Cold) int64 { return c.PeerOpenNs })},
		{Head: "peer register", Cell: cell(func(c record.Cold) int64 { return c.PeerRegisterNs })},
		{Head: "allocate", Cell: cell(func(c record.Cold) int64 { return c.MemoryNs })},
	}, len(cold), "")
	f.Data = &t
	f.SVG = plot.Bars(plot.Text{ID: id + "-c", Title: "Cold costs by provider", Desc: "Open, register, connect and first transfer, end to end: " + list(words) + ".", X: "time"},
		timeAxis(plot.Range{Hi: hi * 1.02}), bars)
	return f
}
