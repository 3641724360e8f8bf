package plot

import (
	"fmt"
	"strings"
	"unicode"
)

// advances are the widths of ASCII from the space on, in thousandths of the font
// size: the wider of DejaVu Sans and Liberation Sans, rounded up, as the fonts'
// own tables give them (fontTools). The page's other fonts are narrower.
var advances = [...]int{
	318, 401, 460, 838, 637, 951, 780, 275, 391, 391, 500, 838, 318, 361, 318, 337, 637, 637, 637, 637, 637, 637, 637, 637, 637, 637, 337, 337, 838, 838, 838, 557,
	1016, 685, 687, 723, 771, 667, 611, 778, 752, 295, 500, 667, 558, 863, 749, 788, 667, 788, 723, 667, 611, 732, 685, 989, 686, 667, 686, 391, 337, 391, 838, 557,
	500, 613, 635, 550, 635, 616, 353, 635, 634, 278, 278, 580, 278, 975, 634, 612, 635, 635, 412, 521, 393, 634, 592, 818, 592, 592, 525, 637, 337, 637, 838,
}

// fontSizes are those of the classes of text; page.css has the same.
var fontSizes = map[string]float64{"tick": 13, "label": 13, "note": 12.5, "row": 13.5, "value": 13.5}

// Width is how wide s is at most in text of a class, in units of the drawing.
func Width(class, s string) float64 {
	sum := 0
	for _, r := range s {
		switch {
		case r >= ' ' && int(r-' ') < len(advances):
			sum += advances[r-' ']
		case r == 'µ':
			sum += 637
		case r == '·':
			sum += 318
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		default:
			sum += 1050 // Latin letters are narrower, ideographs as wide as high
		}
	}
	return float64(sum) * fontSizes[class] / 1000
}

// fit shortens s in its middle until it is no wider than room: both of its ends
// tell it from its neighbours.
func fit(class, s string, room float64) string {
	if Width(class, s) <= room {
		return s
	}
	rs := []rune(s)
	if most := int(width) / 2; len(rs) > most { // no more than that has room, however narrow
		rs = append(rs[:most/2:most/2], rs[len(rs)-most/2:]...)
	}
	for n := len(rs) - 1; n > 0; n-- {
		head := (n + 1) / 2
		short := strings.TrimRight(string(rs[:head]), " ") + "…" + strings.TrimLeft(string(rs[len(rs)-(n-head):]), " ")
		if Width(class, short) <= room {
			return short
		}
	}
	return "…"
}

// box is where a text stands.
type box struct{ x1, y1, x2, y2 float64 }

func (b box) overlaps(o box) bool {
	return b.x1 < o.x2 && o.x1 < b.x2 && b.y1 < o.y2 && o.y1 < b.y2
}

// boxOf is the box of a text whose baseline is at y.
func boxOf(x, y float64, class, anchor, s string) box {
	w, size := Width(class, s), fontSizes[class]
	switch anchor {
	case "middle":
		x -= w / 2
	case "end":
		x -= w
	}
	return box{x, y - size*.8, x + w, y + size*.2}
}

// text draws s, whole.
func (d *drawing) text(x, y float64, class, anchor, s string) {
	d.boxes = append(d.boxes, boxOf(x, y, class, anchor, s))
	fmt.Fprintf(d, `<text x="%s" y="%s" class="%s" text-anchor="%s">%s</text>`, c(x), c(y), class, anchor, esc(s))
}

// textIn draws what of s has room; the whole is its title then.
func (d *drawing) textIn(x, y float64, class, anchor, s string, room float64) {
	short := fit(class, s, room)
	if short == s {
		d.text(x, y, class, anchor, s)
		return
	}
	d.boxes = append(d.boxes, boxOf(x, y, class, anchor, short))
	fmt.Fprintf(d, `<text x="%s" y="%s" class="%s" text-anchor="%s"><title>%s</title>%s</text>`, c(x), c(y), class, anchor, esc(s), esc(short))
}

// spot is a place for a text.
type spot struct {
	x, y   float64
	anchor string
}

// place draws s at the first of spots where it stands within the drawing and
// clear of other text, and tells whether there was one.
func (d *drawing) place(class, s string, spots ...spot) bool {
	for _, p := range spots {
		b := boxOf(p.x, p.y, class, p.anchor, s)
		free := b.x1 >= 0 && b.x2 <= width && b.y1 >= 0 && b.y2 <= d.height
		for _, o := range d.boxes {
			free = free && !b.overlaps(box{o.x1 - 4, o.y1, o.x2 + 4, o.y2})
		}
		if free {
			d.text(p.x, p.y, class, p.anchor, s)
			return true
		}
	}
	return false
}

// rowText writes the label of a row at the left and its value at the right, on
// one line, or on two where lines says so; what has no room is shortened.
func (d *drawing) rowText(y float64, label, value string, lines int) {
	const from, room = edge, width - right - edge
	if lines == 2 {
		d.textIn(from, y+12, "row", "start", label, room)
		d.textIn(width-right, y+28, "value", "end", value, room)
		return
	}
	d.textIn(from, y+12, "row", "start", label, room-Width("value", value)-rowGap)
	d.text(width-right, y+12, "value", "end", value)
}

const rowGap = 12

// rowLines is how many lines each row of labels and values takes.
func rowLines(n int, row func(i int) (label, value string)) int {
	for i := range n {
		label, value := row(i)
		if Width("row", label)+rowGap+Width("value", value) > width-right-edge {
			return 2
		}
	}
	return 1
}
