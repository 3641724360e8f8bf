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
	edge, right = 14.0, 14.0
	top, bottom = 12.0, 44.0
)

// Text is what a figure says in words.
type Text struct {
	ID, Title, Desc string
	X, Y            string // axis labels
}

// Axis says how to draw an axis: its range, its ticks, and how to write a value
// of it for a pointer that rests on a mark.
type Axis struct {
	Lo, Hi float64
	Log    bool
	Ticks  []Tick
	Value  func(float64) string // nil: no words
}

func (a Axis) words(v float64) string {
	if a.Value == nil {
		return ""
	}
	return a.Value(v)
}

// Level is a line across a figure, with a label.
type Level struct {
	Y     float64
	Label string
}

// Span is a stretch of the x axis: a block of a sequence, an interval.
type Span struct {
	From, To float64
	Label    string
}

type drawing struct {
	strings.Builder
	height float64
	boxes  []box // of the texts so far
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

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(d, `<path d="M%s %sL%s %s" class="%s"/>`, c(x1), c(y1), c(x2), c(y2), class)
}

// tipped is a line with a title.
func (d *drawing) tipped(x1, y1, x2, y2 float64, class, tip string) {
	fmt.Fprintf(d, `<path d="M%s %sL%s %s" class="%s">%s</path>`, c(x1), c(y1), c(x2), c(y2), class, title(tip))
}

// rect draws a box of whatever direction, at least a sliver wide.
func (d *drawing) rect(x1, y1, x2, y2 float64, class, tip string) {
	fmt.Fprintf(d, `<rect x="%s" y="%s" width="%s" height="%s" class="%s"`, c(math.Min(x1, x2)), c(y1), c(math.Max(math.Abs(x2-x1), 0.6)), c(y2-y1), class)
	if tip == "" {
		d.WriteString("/>")
		return
	}
	d.WriteString(">" + title(tip) + "</rect>")
}

func title(tip string) string {
	if tip == "" {
		return ""
	}
	return "<title>" + esc(tip) + "</title>"
}

// series opens the group of the n-th series; the page's script hides and shows it.
func (d *drawing) series(n int) { fmt.Fprintf(d, `<g data-series="%d">`, n) }

func (d *drawing) endSeries() { d.WriteString("</g>") }

// frame is the plotting area of a figure with two axes.
type frame struct {
	x1, y1, x2, y2 float64
	x, y           Scale
}

// frame makes room for the labels of the y axis, and above for lanes of notes.
func (d *drawing) frame(xa, ya Axis, label string, inset float64, lanes int) frame {
	room := 0.0
	for _, t := range ya.Ticks {
		room = math.Max(room, Width("tick", t.Label))
	}
	f := frame{x1: room + 10, y1: top + 15*float64(lanes), x2: width - right, y2: d.height - bottom}
	if label != "" {
		f.x1 += 18
	}
	f.x = NewScale(xa.Lo, xa.Hi, f.x1+inset, f.x2-inset, xa.Log)
	f.y = NewScale(ya.Lo, ya.Hi, f.y2, f.y1, ya.Log)
	return f
}

// yAxis draws the ticks at the left and their grid lines.
func (d *drawing) yAxis(f frame, ticks []Tick, label string) {
	for _, t := range ticks {
		y := f.y.At(t.At)
		d.line(f.x1, y, f.x2, y, "grid")
		if t.Label != "" {
			d.text(f.x1-6, y+4.5, "tick", "end", t.Label)
		}
	}
	if label != "" {
		fmt.Fprintf(d, `<text class="label" text-anchor="middle" transform="translate(13 %s) rotate(-90)">%s</text>`, c((f.y1+f.y2)/2), esc(label))
	}
}

// xAxis draws the ticks below and their grid lines from y down; labels that would
// touch are left out.
func (d *drawing) xAxis(s Scale, from, to, y float64, ticks []Tick, label string) {
	base := d.height - bottom
	for _, t := range ticks {
		x := s.At(t.At)
		d.line(x, y, x, base, "grid")
		if w := Width("tick", t.Label) / 2; t.Label != "" {
			d.place("tick", t.Label, spot{math.Min(math.Max(x, w), width-w), base + 17, "middle"})
		}
	}
	d.line(from, base, to, base, "axis")
	d.textIn((from+to)/2, d.height-6, "label", "middle", label, width)
}

// labelledX is an x axis for figures whose rows carry their own labels.
func (d *drawing) labelledX(s Scale, ticks []Tick, label string) {
	d.xAxis(s, edge, width-right, top, ticks, label)
}

// dots draws samples as one path: a dot is a line of no length with round caps.
func (d *drawing) dots(ps [][2]float64, class, tip string) {
	if len(ps) == 0 {
		return
	}
	fmt.Fprintf(d, `<path class="dot %s" d="`, class)
	for _, p := range ps {
		fmt.Fprintf(d, "M%s %sh0", c(p[0]), c(p[1]))
	}
	d.WriteString(`">` + title(tip) + `</path>`)
}

// arrow marks a value beyond the axis: it points out over the edge that it
// stands at, towards (dx, dy).
func (d *drawing) arrow(x, y, dx, dy float64, class int, tip string) {
	const r = 5.0
	fmt.Fprintf(d, `<path d="M%s %sL%s %sL%s %sz" class="beyond s%d">%s</path>`, c(x), c(y), c(x-dx*r*1.6-dy*r), c(y-dy*r*1.6-dx*r), c(x-dx*r*1.6+dy*r), c(y-dy*r*1.6+dx*r), class, title(tip))
}

// outside is -1 below the axis, 1 above it, 0 within.
func (a Axis) outside(v float64) int {
	switch {
	case v < a.Lo:
		return -1
	case v > a.Hi:
		return 1
	}
	return 0
}

// marker draws the sign of a series, with a title when there is one.
func (d *drawing) marker(x, y float64, class int, tip string) {
	const r = 4.2
	switch class % 4 {
	case 0:
		fmt.Fprintf(d, `<circle cx="%s" cy="%s" r="%v" class="mark s%d">%s</circle>`, c(x), c(y), r, class, title(tip))
	case 1:
		fmt.Fprintf(d, `<path d="M%s %sh%vv%vh-%vz" class="mark s%d">%s</path>`, c(x-r*.9), c(y-r*.9), c(r*1.8), c(r*1.8), c(r*1.8), class, title(tip))
	case 2:
		fmt.Fprintf(d, `<path d="M%s %sl%s %sh-%sz" class="mark s%d">%s</path>`, c(x), c(y-r*1.2), c(r*1.15), c(r*2), c(r*2.3), class, title(tip))
	default:
		fmt.Fprintf(d, `<path d="M%s %sl%s %sl-%s %sl-%s -%sz" class="mark s%d">%s</path>`, c(x), c(y-r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), c(r*1.3), class, title(tip))
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

// Patch is the colour of a class for a legend of bars, with the letter that its
// parts carry.
func Patch(class int) template.HTML {
	d := &drawing{}
	fmt.Fprintf(d, `<svg viewBox="0 0 16 16" class="patch" aria-hidden="true"><rect x="0.5" y="0.5" width="15" height="15" class="bar s%d"/>`, class)
	fmt.Fprintf(d, `<text x="8" y="12.5" class="letter" text-anchor="middle">%s</text>`, letter(class))
	return d.end()
}

// letter tells the parts of a bar apart for who cannot tell colours apart.
func letter(class int) string { return string(rune('a' + class)) }

func lineClass(class int, dashed bool) string {
	s := fmt.Sprintf("line s%d", class)
	if dashed {
		s += " dashed"
	}
	return s
}

// spread moves the k-th dot aside by up to 7 units, so that dots at one place are
// all seen. A fixed pattern instead of chance keeps drawings reproducible.
func spread(k int) float64 { return math.Mod(float64(k)*0.618034, 1)*14 - 7 }

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
