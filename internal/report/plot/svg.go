package plot

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
)

// The width of every figure and its margins, in units that are pixels at 480
// pixels of width. Text of 13 units stays readable on a phone of 390 pixels.
const (
	width       = 480.0
	left, right = 62.0, 14.0
	top, bottom = 12.0, 44.0
)

// Text is what a figure says in words.
type Text struct {
	ID, Title, Desc string
	X, Y            string // axis labels
}

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

// Level is a horizontal line with a label.
type Level struct {
	Y     float64
	Label string
}

type drawing struct {
	strings.Builder
	height float64
}

func esc(s string) string { return html.EscapeString(s) }

func begin(t Text, height float64) *drawing {
	d := &drawing{height: height}
	fmt.Fprintf(d, `<svg viewBox="0 0 %s %s" role="img" aria-labelledby="%s-t %[3]s-d"><title id="%[3]s-t">%[4]s</title><desc id="%[3]s-d">%[5]s</desc>`,
		c(width), c(height), esc(t.ID), esc(t.Title), esc(t.Desc))
	return d
}

func (d *drawing) end() template.HTML {
	d.WriteString("</svg>")
	return template.HTML(d.String()) // everything variable went through esc or c
}

func (d *drawing) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(d, `<text x="%s" y="%s" class="%s" text-anchor="%s">%s</text>`, c(x), c(y), class, anchor, esc(s))
}

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(d, `<path d="M%s %sL%s %s" class="%s"/>`, c(x1), c(y1), c(x2), c(y2), class)
}

// xAxis draws the ticks below and their grid lines.
func (d *drawing) xAxis(s Scale, ticks []Tick, label string) {
	base := d.height - bottom
	for _, t := range ticks {
		x := s.At(t.At)
		d.line(x, top, x, base, "grid")
		if t.Label != "" {
			d.text(x, base+17, "tick", "middle", t.Label)
		}
	}
	d.line(left, base, width-right, base, "axis")
	d.text((left+width-right)/2, d.height-6, "label", "middle", label)
}

func (d *drawing) yAxis(s Scale, ticks []Tick, label string) {
	for _, t := range ticks {
		y := s.At(t.At)
		d.line(left, y, width-right, y, "grid")
		if t.Label != "" {
			d.text(left-6, y+4.5, "tick", "end", t.Label)
		}
	}
	if label == "" {
		return
	}
	fmt.Fprintf(d, `<text class="label" text-anchor="middle" transform="translate(13 %s) rotate(-90)">%s</text>`, c((top+d.height-bottom)/2), esc(label))
}

// dots draws samples as one path: a dot is a line of no length with round caps.
func (d *drawing) dots(x, y Scale, ps [][2]float64, class string) {
	if len(ps) == 0 {
		return
	}
	fmt.Fprintf(d, `<path class="dot %s" d="`, class)
	for _, p := range ps {
		fmt.Fprintf(d, "M%s %sh0", c(x.At(p[0])), c(y.At(p[1])))
	}
	d.WriteString(`"/>`)
}

// marker draws the sign of a series, with a title when there is one.
func (d *drawing) marker(x, y float64, class int, title string) {
	const r = 4.2
	tip := ""
	if title != "" {
		tip = "<title>" + esc(title) + "</title>"
	}
	switch class % 4 {
	case 0:
		fmt.Fprintf(d, `<circle cx="%s" cy="%s" r="%v" class="mark s%d">%s</circle>`, c(x), c(y), r, class, tip)
	case 1:
		fmt.Fprintf(d, `<path d="M%s %sh%vv%vh-%vz" class="mark s%d">%s</path>`, c(x-r*.9), c(y-r*.9), c(r*1.8), c(r*1.8), c(r*1.8), class, tip)
	case 2:
		fmt.Fprintf(d, `<path d="M%s %sl%s %sh-%sz" class="mark s%d">%s</path>`, c(x), c(y-r*1.2), c(r*1.15), c(r*2), c(r*2.3), class, tip)
	default:
		fmt.Fprintf(d, `<path d="M%s %sl%s %sl-%s %sl-%s -%sz" class="mark s%d">%s</path>`, c(x), c(y-r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), class, tip)
	}
}

// Swatch is the sign of a series for a legend in HTML.
func Swatch(class int, dashed bool) template.HTML {
	d := &drawing{}
	d.WriteString(`<svg viewBox="0 0 26 14" class="swatch" aria-hidden="true">`)
	d.line(1, 7, 25, 7, lineClass(class, dashed))
	d.marker(13, 7, class, "")
	return d.end()
}

func lineClass(class int, dashed bool) string {
	s := fmt.Sprintf("line s%d", class)
	if dashed {
		s += " dashed"
	}
	return s
}

// Axis says how to draw an axis: its range, ticks, and whether it is
// logarithmic.
type Axis struct {
	Lo, Hi float64
	Log    bool
	Ticks  []Tick
}

// Curves draws series against a common x axis: samples as dots, estimates as
// markers with intervals, joined by lines; bands are stretches of the x axis.
func Curves(t Text, xa, ya Axis, series []Series, levels []Level, bands []Span) template.HTML {
	d := begin(t, 340)
	x := NewScale(xa.Lo, xa.Hi, left+8, width-right-8, xa.Log)
	y := NewScale(ya.Lo, ya.Hi, d.height-bottom, top, ya.Log)
	for _, b := range bands {
		from, to := x.At(b.From), x.At(b.To)
		fmt.Fprintf(d, `<rect x="%s" y="%s" width="%s" height="%s" class="band"/>`, c(from), c(top), c(math.Max(to-from, 1.5)), c(d.height-bottom-top))
		if from > width/2 {
			d.text(from-5, d.height-bottom-8, "note", "end", b.Label)
		} else {
			d.text(to+5, d.height-bottom-8, "note", "start", b.Label)
		}
	}
	d.xAxis(x, xa.Ticks, t.X)
	d.yAxis(y, ya.Ticks, t.Y)
	for _, l := range levels {
		at := y.At(l.Y)
		d.line(left, at, width-right, at, "level")
		d.text(width-right-4, at-5, "note", "end", l.Label)
	}
	for _, s := range series {
		fmt.Fprintf(d, `<path class="dot s%d" d="`, s.Class)
		for i, p := range s.Dots {
			fmt.Fprintf(d, "M%s %sh0", c(x.At(p[0])+spread(i)), c(y.At(p[1])))
		}
		d.WriteString(`"/>`)
	}
	for _, s := range series {
		if len(s.Points) > 1 {
			fmt.Fprintf(d, `<path class="%s" d="`, lineClass(s.Class, s.Dashed))
			for i, p := range s.Points {
				d.WriteString(map[bool]string{true: "M", false: "L"}[i == 0] + c(x.At(p.X)) + " " + c(y.At(p.Y)))
			}
			d.WriteString(`"/>`)
		}
		for _, p := range s.Points {
			if p.Hi > p.Lo {
				d.line(x.At(p.X), y.At(p.Lo), x.At(p.X), y.At(p.Hi), fmt.Sprintf("whisker s%d", s.Class))
			}
		}
		for _, p := range s.Points {
			d.marker(x.At(p.X), y.At(p.Y), s.Class, p.Label)
		}
	}
	return d.end()
}

// Span is a stretch of the x axis: a block of a sequence, an interval.
type Span struct {
	From, To float64
	Label    string
}

// Mark is a vertical line of a sequence; Class is "change" for what was found
// and "predicted" for what was foretold.
type Mark struct {
	At           float64
	Class, Label string
}

// Sequence draws one series in run order, with alternate blocks shaded and
// marks as vertical lines.
func Sequence(t Text, class int, ys []float64, blocks []Span, marks []Mark, levels []Level, ya Axis) template.HTML {
	d := begin(t, 190)
	base := d.height - bottom
	x := NewScale(-0.5, float64(len(ys))-0.5, left, width-right, false)
	y := NewScale(ya.Lo, ya.Hi, base, top, false)
	for i, b := range blocks {
		if i%2 == 1 {
			fmt.Fprintf(d, `<rect x="%s" y="%s" width="%s" height="%s" class="shade"/>`, c(x.At(b.From)), c(top), c(x.At(b.To)-x.At(b.From)), c(base-top))
		}
	}
	d.yAxis(y, ya.Ticks, "")
	d.line(left, base, width-right, base, "axis")
	for _, b := range blocks {
		if b.Label != "" {
			d.text((x.At(b.From)+x.At(b.To))/2, base+16, "tick", "middle", b.Label)
		}
	}
	d.text((left+width-right)/2, d.height-6, "label", "middle", t.X)
	for _, l := range levels {
		d.line(left, y.At(l.Y), width-right, y.At(l.Y), "level")
	}
	for i, m := range marks {
		at, y := x.At(m.At), top+11+float64(i%3)*13
		d.line(at, top, at, base, m.Class)
		if at > width*0.7 {
			d.text(at-4, y, "note", "end", m.Label)
		} else {
			d.text(at+4, y, "note", "start", m.Label)
		}
	}
	pts := make([][2]float64, len(ys))
	for i, v := range ys {
		pts[i] = [2]float64{float64(i), v}
	}
	d.dots(x, y, pts, fmt.Sprintf("big s%d", class))
	return d.end()
}

// Strip is one row of Strips: all values, and an estimate with its interval.
type Strip struct {
	Label        string
	Class        int
	Values       []float64
	Mid, Lo, Hi  float64
	Text         string
	Unmeasurable string // words in place of values
}

// Strips draws the distribution of each row as dots along a common x axis, the
// median as a tick and its interval as a bar.
func Strips(t Text, xa Axis, strips []Strip) template.HTML {
	const each = 46.0
	d := begin(t, top+each*float64(len(strips))+bottom)
	x := NewScale(xa.Lo, xa.Hi, 14, width-right, xa.Log)
	d.labelledX(x, xa.Ticks, t.X)
	for i, s := range strips {
		y := top + each*float64(i)
		d.text(14, y+12, "row", "start", s.Label)
		d.text(width-right, y+12, "value", "end", s.Text)
		if s.Unmeasurable != "" {
			d.text(14, y+30, "note", "start", s.Unmeasurable)
			continue
		}
		mid := y + 29
		fmt.Fprintf(d, `<path class="dot s%d" d="`, s.Class)
		for k, v := range s.Values {
			fmt.Fprintf(d, "M%s %sh0", c(x.At(v)), c(mid+spread(k)))
		}
		d.WriteString(`"/>`)
		if s.Hi > s.Lo {
			fmt.Fprintf(d, `<rect x="%s" y="%s" width="%s" height="20" class="ci s%d"/>`, c(x.At(s.Lo)), c(mid-10), c(x.At(s.Hi)-x.At(s.Lo)), s.Class)
		}
		d.line(x.At(s.Mid), mid-11, x.At(s.Mid), mid+11, fmt.Sprintf("median s%d", s.Class))
	}
	return d.end()
}

// spread moves the k-th dot aside by up to 7 units, so that dots at one place are
// all seen. A fixed pattern instead of chance keeps drawings reproducible.
func spread(k int) float64 { return math.Mod(float64(k)*0.618034, 1)*14 - 7 }

// labelledX is an x axis for figures whose rows carry their own labels.
func (d *drawing) labelledX(s Scale, ticks []Tick, label string) {
	base := d.height - bottom
	for _, t := range ticks {
		x := s.At(t.At)
		d.line(x, top, x, base, "grid")
		if t.Label != "" {
			anchor := "middle"
			if x > width-right-14 {
				anchor = "end"
			} else if x < 30 {
				anchor = "start"
			}
			d.text(x, base+17, "tick", anchor, t.Label)
		}
	}
	d.line(14, base, width-right, base, "axis")
	d.text(width/2, d.height-6, "label", "middle", label)
}

// Part is a stretch of a bar.
type Part struct {
	Value float64
	Class int
}

// Bar is a row of Bars: parts end to end, and an interval of their sum.
type Bar struct {
	Label, Text string
	Parts       []Part
	Lo, Hi      float64
}

// Bars draws horizontal bars from zero.
func Bars(t Text, xa Axis, bars []Bar) template.HTML {
	const each = 40.0
	d := begin(t, top+each*float64(len(bars))+bottom)
	x := NewScale(0, xa.Hi, 14, width-right, false)
	d.labelledX(x, xa.Ticks, t.X)
	for i, b := range bars {
		y := top + each*float64(i)
		d.text(14, y+12, "row", "start", b.Label)
		d.text(width-right, y+12, "value", "end", b.Text)
		sum := 0.0
		for _, p := range b.Parts {
			from := x.At(sum)
			sum += p.Value
			if w := x.At(sum) - from; w > 0 {
				fmt.Fprintf(d, `<rect x="%s" y="%s" width="%s" height="15" class="bar s%d"/>`, c(from), c(y+18), c(math.Max(w, 0.6)), p.Class)
			}
		}
		if b.Hi > b.Lo {
			d.line(x.At(b.Lo), y+25.5, x.At(b.Hi), y+25.5, "error")
			d.line(x.At(b.Lo), y+21, x.At(b.Lo), y+30, "error")
			d.line(x.At(b.Hi), y+21, x.At(b.Hi), y+30, "error")
		}
	}
	return d.end()
}

// Thin returns at most n of xs, evenly spaced, the extremes among them.
func Thin[T any](xs []T, n int, less func(a, b T) int) []T {
	if len(xs) <= n || n < 3 {
		return xs
	}
	keep := make([]bool, len(xs))
	for i := range n - 2 {
		keep[i*len(xs)/(n-2)] = true
	}
	lo, hi := 0, 0
	for i := range xs {
		if less(xs[i], xs[lo]) < 0 {
			lo = i
		}
		if less(xs[i], xs[hi]) > 0 {
			hi = i
		}
	}
	keep[lo], keep[hi] = true, true
	out := make([]T, 0, n)
	for i, k := range keep {
		if k {
			out = append(out, xs[i])
		}
	}
	return slices.Clip(out)
}

// Patch is the colour of a class for a legend of bars.
func Patch(class int) template.HTML {
	d := &drawing{}
	fmt.Fprintf(d, `<svg viewBox="0 0 14 14" class="patch" aria-hidden="true"><rect x="1" y="1" width="12" height="12" class="bar s%d"/>`, class)
	return d.end()
}
