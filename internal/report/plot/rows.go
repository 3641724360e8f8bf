package plot

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// Strip is one row of Strips: all values, and an estimate with its interval.
type Strip struct {
	Label       string
	Class       int
	Values      []float64
	Mid, Lo, Hi float64 // Lo = Hi = 0: no interval
	Text        string
}

// Strips draws the distribution of each row as dots along a common x axis, the
// median as a tick and its interval as a bar. An arrow at the edge is a value
// beyond the axis.
func Strips(t Text, xa Axis, strips []Strip) template.HTML {
	lines := rowLines(len(strips), func(i int) (string, string) { return strips[i].Label, strips[i].Text })
	each := 30 + 16*float64(lines)
	d := begin(t, top+each*float64(len(strips))+bottom)
	x := NewScale(xa.Lo, xa.Hi, edge, width-right, xa.Log)
	d.labelledX(x, xa.Ticks, t.X)
	for i, s := range strips {
		y := top + each*float64(i)
		d.rowText(y, s.Label, s.Text, lines)
		mid := y + 13 + 16*float64(lines)
		var within [][2]float64
		r := empty()
		for k, v := range s.Values {
			if out := xa.outside(v); out != 0 {
				d.arrow(x.At(v), mid+spread(k), float64(out), 0, s.Class, xa.words(v))
				continue
			}
			within, r = append(within, [2]float64{x.At(v), mid + spread(k)}), r.and(v, v)
		}
		tip := ""
		if len(within) > 0 && xa.Value != nil {
			tip = xa.words(r.Lo) + " to " + xa.words(r.Hi)
		}
		d.dots(within, fmt.Sprintf("s%d", s.Class), tip)
		words := s.Text
		if s.Hi > s.Lo {
			words = fmt.Sprintf("%s [%s, %s]", s.Text, xa.words(s.Lo), xa.words(s.Hi))
			d.rect(x.At(s.Lo), mid-10, x.At(s.Hi), mid+10, fmt.Sprintf("ci s%d", s.Class), words)
		}
		d.tipped(x.At(s.Mid), mid-11, x.At(s.Mid), mid+11, fmt.Sprintf("median s%d", s.Class), words)
	}
	return d.end()
}

// Part is a stretch of a bar. Its name is what a pointer on it is told, and makes
// it carry the letter of its class where that has room.
type Part struct {
	Value float64
	Class int
	Name  string
}

// Bar is a row of Bars: parts end to end, and an interval of their sum.
type Bar struct {
	Label, Text string
	Parts       []Part
	Lo, Hi      float64 // Lo = Hi = 0: no interval
}

// Bars draws horizontal bars from zero.
func Bars(t Text, xa Axis, bars []Bar) template.HTML {
	lines := rowLines(len(bars), func(i int) (string, string) { return bars[i].Label, bars[i].Text })
	each := 24 + 16*float64(lines)
	d := begin(t, top+each*float64(len(bars))+bottom)
	x := NewScale(0, xa.Hi, edge, width-right, false)
	d.labelledX(x, xa.Ticks, t.X)
	for i, b := range bars {
		y := top + each*float64(i)
		d.rowText(y, b.Label, b.Text, lines)
		y += 2 + 16*float64(lines)
		sum := 0.0
		for _, p := range b.Parts {
			from := x.At(sum)
			sum += p.Value
			to := x.At(sum)
			if to <= from {
				continue
			}
			tip := strings.TrimSpace(b.Label + " " + b.Text)
			if p.Name != "" {
				tip = strings.TrimSpace(p.Name + " " + xa.words(p.Value))
			}
			d.rect(from, y, to, y+15, fmt.Sprintf("bar s%d", p.Class), tip)
			if p.Name != "" && to-from >= 14 {
				fmt.Fprintf(d, `<text x="%s" y="%s" class="letter" text-anchor="middle">%s</text>`, c((from+to)/2), c(y+12), letter(p.Class))
			}
		}
		if b.Hi > b.Lo {
			d.interval(x, Axis{Hi: xa.Hi}, b.Lo, b.Hi, y+7.5, "error", fmt.Sprintf("[%s, %s]", xa.words(b.Lo), xa.words(b.Hi)))
		}
	}
	return d.end()
}

// interval draws a whisker along x; an end beyond the axis has an arrow in place
// of its cap.
func (d *drawing) interval(x Scale, a Axis, lo, hi, y float64, class, tip string) {
	from, to := x.At(lo), x.At(hi)
	d.tipped(from, y, to, y, class, tip)
	for _, e := range []struct{ at, v, out float64 }{{from, lo, -1}, {to, hi, 1}} {
		if a.outside(e.v) == int(e.out) {
			d.arrow(e.at, y, e.out, 0, 0, tip)
			continue
		}
		d.line(e.at, y-4.5, e.at, y+4.5, class)
	}
}

// Ratio is a row of Forest: a ratio with its interval.
type Ratio struct {
	Label, Text string
	Class       string  // what the row came to: "slower", "faster", "same" or "open"
	Mid, Lo, Hi float64 // Lo = Hi = 0: no interval
}

// Forest draws ratios below one another on a logarithmic axis around 1. The band
// is what makes no difference that matters; limit is a threshold, 0 for none.
// A row's sign tells what it came to, beside its colour: a triangle to the side
// that it lies on, a filled circle within the band, an open one where undecided.
func Forest(t Text, xa Axis, band Range, limit Level, rows []Ratio) template.HTML {
	lines := rowLines(len(rows), func(i int) (string, string) { return rows[i].Label, rows[i].Text })
	each := 16 + 16*float64(lines)
	lane := 0.0
	if limit.Y > 0 {
		lane = 16
	}
	d := begin(t, top+lane+each*float64(len(rows))+bottom)
	x := NewScale(xa.Lo, xa.Hi, edge, width-right, true)
	base := d.height - bottom
	if band.Hi > band.Lo {
		d.rect(x.At(band.Lo), top+lane, x.At(band.Hi), base, "band", "no difference that matters: "+xa.words(band.Lo)+" to "+xa.words(band.Hi))
	}
	d.xAxis(x, edge, width-right, top+lane, xa.Ticks, t.X)
	d.line(x.At(1), top+lane, x.At(1), base, "one")
	if limit.Y > 0 {
		at := x.At(limit.Y)
		d.tipped(at, top+lane, at, base, "limit", limit.Label)
		d.place("note", limit.Label, spot{at + 4, top + 10, "start"}, spot{at - 4, top + 10, "end"}, spot{width - right, top + 10, "end"})
	}
	for i, r := range rows {
		y := top + lane + each*float64(i)
		d.rowText(y, r.Label, r.Text, lines)
		y += 6 + 16*float64(lines)
		tip := r.Label + ": " + r.Text
		if r.Hi > r.Lo {
			d.interval(x, xa, r.Lo, r.Hi, y, "verdict "+r.Class, tip)
		}
		if out := xa.outside(r.Mid); out != 0 {
			continue // the interval's arrow points to it
		}
		d.sign(x.At(r.Mid), y, r.Class, tip)
	}
	return d.end()
}

// sign is the mark of a verdict.
func (d *drawing) sign(x, y float64, class, tip string) {
	const r = 4.6
	switch class {
	case "slower", "faster":
		to := math.Copysign(r, map[string]float64{"slower": 1, "faster": -1}[class])
		fmt.Fprintf(d, `<path d="M%s %sV%sL%s %sz" class="sign %s">%s</path>`, c(x-to), c(y-r*1.1), c(y+r*1.1), c(x+to*1.1), c(y), class, title(tip))
	default:
		fmt.Fprintf(d, `<circle cx="%s" cy="%s" r="%v" class="sign %s">%s</circle>`, c(x), c(y), r, class, title(tip))
	}
}
