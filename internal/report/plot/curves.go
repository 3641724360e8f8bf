package plot

import (
	"fmt"
	"html/template"
	"math"
	"slices"
)

// Series is a line with markers; Class picks its colour and marker.
type Series struct {
	Name   string
	Class  int
	Dashed bool
	Points []Point
	// Dots are single samples (x, y).
	Dots [][2]float64
}

// Point is an estimate with its interval; Lo = Hi = 0 for none.
type Point struct {
	X, Y, Lo, Hi float64
	Label        string // shown by a pointer that rests on it
}

// Curves draws series against a common x axis: samples as dots, estimates as
// markers with intervals, joined by lines; bands are stretches of the x axis. An
// arrow at the edge is a sample beyond the y axis.
func Curves(t Text, xa, ya Axis, series []Series, levels []Level, bands []Span) template.HTML {
	d := begin(t, 340)
	f := d.frame(xa, ya, t.Y, 8, min(len(bands), 1))
	for _, b := range bands {
		from, to := f.x.At(b.From), f.x.At(b.To)
		d.rect(from, f.y1, math.Max(to, from+1.5), f.y2, "band", b.Label)
		mid, w := (from+to)/2, Width("note", b.Label)/2
		d.place("note", b.Label, spot{math.Min(math.Max(mid, f.x1+w), f.x2-w), f.y1 - 4, "middle"})
	}
	d.xAxis(f.x, f.x1, f.x2, f.y1, xa.Ticks, t.X)
	d.yAxis(f, ya.Ticks, t.Y)
	for _, l := range levels {
		at := f.y.At(l.Y)
		d.line(f.x1, at, f.x2, at, "level")
		d.place("note", l.Label, spot{f.x2 - 4, at - 5, "end"}, spot{f.x1 + 4, at - 5, "start"}, spot{f.x2 - 4, at + 14, "end"})
	}
	for n, s := range series {
		d.series(n)
		d.curve(f, ya, s)
		d.endSeries()
	}
	return d.end()
}

func (d *drawing) curve(f frame, ya Axis, s Series) {
	var within [][2]float64
	for i, p := range s.Dots {
		x := f.x.At(p[0]) + spread(i)
		if out := ya.outside(p[1]); out != 0 {
			d.arrow(x, f.y.At(p[1]), 0, -float64(out), s.Class, ya.words(p[1]))
			continue
		}
		within = append(within, [2]float64{x, f.y.At(p[1])})
	}
	d.dots(within, fmt.Sprintf("s%d", s.Class), "")
	if len(s.Points) > 1 {
		fmt.Fprintf(d, `<path class="%s" d="`, lineClass(s.Class, s.Dashed))
		for i, p := range s.Points {
			d.WriteString(map[bool]string{true: "M", false: "L"}[i == 0] + c(f.x.At(p.X)) + " " + c(f.y.At(p.Y)))
		}
		d.WriteString(`"/>`)
	}
	for _, p := range s.Points {
		if p.Hi > p.Lo {
			d.tipped(f.x.At(p.X), f.y.At(p.Lo), f.x.At(p.X), f.y.At(p.Hi), fmt.Sprintf("whisker s%d", s.Class), p.Label)
		}
	}
	for _, p := range s.Points {
		d.marker(f.x.At(p.X), f.y.At(p.Y), s.Class, p.Label)
	}
}

// Mark is a vertical line of a sequence; Class is "change" for what was found
// and "predicted" for what was foretold.
type Mark struct {
	At           float64
	Class, Label string
}

// maxShades is how many blocks are told apart by their shade.
const maxShades = 120

// Sequence draws one series of points (place, value) in run order, with alternate
// blocks shaded and marks as vertical lines. A pointer on a dot is told its block
// and the range there; an arrow at the edge is a value beyond the axis.
func Sequence(t Text, class int, pts [][2]float64, blocks []Span, marks []Mark, levels []Level, ya Axis) template.HTML {
	lanes := min(len(marks), 2)
	d := begin(t, 190+15*float64(lanes))
	n := 1.0
	for _, b := range blocks {
		n = math.Max(n, b.To+0.5)
	}
	f := d.frame(Axis{Lo: -0.5, Hi: n - 0.5}, ya, "", 0, lanes)
	every := labelEvery(f, blocks)
	for i, b := range blocks {
		x1, x2 := f.x.At(b.From), f.x.At(b.To)
		if i%2 == 1 && len(blocks) <= maxShades {
			d.rect(x1, f.y1, x2, f.y2, "shade", "")
		}
		if b.Label != "" && i%every == 0 {
			d.place("tick", b.Label, spot{(x1 + x2) / 2, f.y2 + 16, "middle"})
		}
	}
	d.yAxis(f, ya.Ticks, "")
	d.line(f.x1, f.y2, f.x2, f.y2, "axis")
	d.textIn((f.x1+f.x2)/2, d.height-6, "label", "middle", t.X, f.x2-f.x1)
	for _, l := range levels {
		d.tipped(f.x1, f.y.At(l.Y), f.x2, f.y.At(l.Y), "level", l.Label)
	}
	for _, m := range marks {
		at := f.x.At(m.At)
		d.tipped(at, f.y1, at, f.y2, m.Class, m.Label)
		var spots []spot
		for lane := range lanes {
			y := f.y1 - 4 - 15*float64(lane)
			spots = append(spots, spot{at - 2, y, "start"}, spot{at + 2, y, "end"})
		}
		d.place("note", m.Label, spots...)
	}
	d.blockDots(f, ya, class, pts, blocks)
	return d.end()
}

// labelEvery is each how-manieth block has room for its label.
func labelEvery(f frame, blocks []Span) int {
	room, widest := 0.0, 0.0
	for _, b := range blocks {
		widest = math.Max(widest, Width("tick", b.Label)+9)
	}
	if len(blocks) > 0 {
		room = (f.x2 - f.x1) / float64(len(blocks))
	}
	if room <= 0 {
		return 1
	}
	return max(1, int(math.Ceil(widest/room)))
}

// blockDots draws the dots of each block as one path with a title.
func (d *drawing) blockDots(f frame, ya Axis, class int, pts [][2]float64, blocks []Span) {
	at := 0
	for i, b := range blocks {
		var within [][2]float64
		r := empty()
		for ; at < len(pts) && (pts[at][0] <= b.To || i == len(blocks)-1); at++ {
			p := pts[at]
			if out := ya.outside(p[1]); out != 0 {
				d.arrow(f.x.At(p[0]), f.y.At(p[1]), 0, -float64(out), class, ya.words(p[1]))
				continue
			}
			within, r = append(within, [2]float64{f.x.At(p[0]), f.y.At(p[1])}), r.and(p[1], p[1])
		}
		tip := ""
		if w := ya.words(r.Lo); len(within) > 0 && w != "" {
			tip = fmt.Sprintf("block %s: %s", b.Label, w)
			if hi := ya.words(r.Hi); hi != w {
				tip += " to " + hi
			}
		}
		d.dots(within, fmt.Sprintf("big s%d", class), tip)
	}
}

// Steps is one distribution of ECDF.
type Steps struct {
	Class  int
	Dashed bool
	Values []float64
	Label  string // shown by a pointer that rests on it
}

// ECDF draws which share of each row's values is at most x.
func ECDF(t Text, xa Axis, rows []Steps) template.HTML {
	d := begin(t, 280)
	percent := func(v float64) string { return fmt.Sprintf("%g%%", v*100) }
	ya := Axis{Hi: 1, Ticks: Linear(0, 1, 4, percent)}
	f := d.frame(xa, ya, "", 0, 0)
	d.xAxis(f.x, f.x1, f.x2, f.y1, xa.Ticks, t.X)
	d.yAxis(f, ya.Ticks, "")
	for n, r := range rows {
		vs := slices.Sorted(slices.Values(r.Values))
		if len(vs) == 0 {
			continue
		}
		d.series(n)
		fmt.Fprintf(d, `<path class="%s" d="M%s %s`, lineClass(r.Class, r.Dashed), c(f.x1), c(f.y2))
		for i, v := range vs {
			fmt.Fprintf(d, "H%sV%s", c(f.x.At(v)), c(f.y.At(float64(i+1)/float64(len(vs)))))
		}
		if xa.outside(vs[len(vs)-1]) == 0 {
			fmt.Fprintf(d, "H%s", c(f.x2))
		}
		d.WriteString(`">` + title(r.Label) + `</path>`)
		d.endSeries()
	}
	return d.end()
}
