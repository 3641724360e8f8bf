package plot

import (
	"fmt"
	"html/template"
	"math"
)

// Fall is a row of Waterfall: a bar from one value to another, which may lead back.
type Fall struct {
	Label, Text string
	From, To    float64
	Lo, Hi      float64 // of To; Lo = Hi = 0: no interval
	Class       int
	// Inside is a part of the bar, from its begin on, and is drawn within it; without a
	// name there is none.
	Inside Part
}

// Waterfall draws falls below one another on a common axis, each joined to the next
// one where it ends. A bar that leads back is open.
func Waterfall(t Text, xa Axis, falls []Fall) template.HTML {
	lines := rowLines(len(falls), func(i int) (string, string) { return falls[i].Label, falls[i].Text })
	each := 24 + 16*float64(lines)
	d := begin(t, top+each*float64(len(falls))+bottom)
	x := NewScale(xa.Lo, xa.Hi, edge, width-right, false)
	d.labelledX(x, xa.Ticks, t.X)
	for i, f := range falls {
		y := top + each*float64(i)
		d.rowText(y, f.Label, f.Text, lines)
		y += 2 + 16*float64(lines)
		class := fmt.Sprintf("bar s%d", f.Class)
		if f.To < f.From {
			class = fmt.Sprintf("back s%d", f.Class)
		}
		d.rect(x.At(f.From), y, x.At(f.To), y+15, class, f.Label+" "+f.Text)
		if in := f.Inside; in.Name != "" {
			to := math.Min(f.From+in.Value, math.Max(f.From, f.To))
			d.rect(x.At(f.From), y+4, x.At(to), y+11, fmt.Sprintf("bar s%d", in.Class), in.Name+" "+xa.words(in.Value))
		}
		if i+1 < len(falls) && falls[i+1].From == f.To {
			d.line(x.At(f.To), y+15, x.At(f.To), y+each, "join")
		}
		if f.Hi > f.Lo {
			d.interval(x, xa, f.Lo, f.Hi, y+7.5, "error", fmt.Sprintf("%s [%s, %s]", f.Text, xa.words(f.Lo-f.From), xa.words(f.Hi-f.From)))
		}
	}
	return d.end()
}
