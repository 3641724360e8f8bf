package table

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/units"
)

func TestLayout(t *testing.T) {
	cells := func(xs ...string) func(int) string { return func(i int) string { return xs[i] } }
	cols := []Column{
		{Head: "name", Left: true, Cell: cells("tcp", "tcp;ofi_rxm")},
		{Head: "op", Left: true, Rank: 3, Cell: cells("read", "read")},
		{Head: "shape", Left: true, Rank: 1, Cell: cells("fragmented", "merged"), Short: cells("frag", "merged")},
		{Head: "ms", Cell: cells("1.25", "µ")},
		{Head: "max", Rank: 2, Cell: cells("10", "200")},
	}
	for _, tt := range []struct {
		width int
		want  []string
	}{
		{0, []string{"name        op   shape        ms max", "tcp         read fragmented 1.25  10", "tcp;ofi_rxm read merged        µ 200"}},
		{33, []string{"name        op   shape    ms max", "tcp         read frag   1.25  10", "tcp;ofi_rxm read merged    µ 200"}},
		{30, []string{"name        op   shape    ms", "tcp         read frag   1.25", "tcp;ofi_rxm read merged    µ"}},
		{24, []string{"name        shape    ms", "tcp         frag   1.25", "tcp;ofi_rxm merged    µ"}},
		{3, []string{"name        shape    ms", "tcp         frag   1.25", "tcp;ofi_rxm merged    µ"}},
	} {
		if got := Layout(cols, 2, tt.width); !slices.Equal(got, tt.want) {
			t.Errorf("width %d:\n%s\nwant\n%s", tt.width, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

func TestGap(t *testing.T) {
	cell := func(i int) string { return []string{"a b", "c"}[i] }
	got := Layout([]Column{{Head: "x", Left: true, Cell: cell}, {Head: "y", Left: true, Gap: 3, Cell: cell, Rank: 1}}, 2, 9)
	if want := []string{"x     y", "a b   a b", "c     c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Layout([]Column{{Head: "x", Cell: cell}, {Head: "y", Gap: 3, Cell: cell, Rank: 1}}, 2, 8); got[0] != "  x" {
		t.Errorf("the gap is not part of the width: %q", got)
	}
}

func TestWrap(t *testing.T) {
	got := Wrap("first transfer took 600 ms of [1.27, 1.34], n = 10 and /a/very/long/path/that/does/not/fit", "# ", "#   ", 30)
	want := []string{"# first transfer took 600 ms", "#   of [1.27, 1.34], n = 10", "#   and", "#   /a/very/long/path/that/doe", "#   s/not/fit"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzWrap: no line is too long and no text is lost.
func FuzzWrap(f *testing.F) {
	f.Add("a bb ccc 600 ms", 10)
	f.Add("µµµµµµµµµµµµµµµµµµµµµµ 1 GB/s", 9)
	f.Fuzz(func(t *testing.T, s string, width int) {
		if width < 8 || width > 200 || !utf8.ValidString(s) || strings.ContainsAny(s, "\x1f") {
			return
		}
		joined := ""
		for _, l := range Wrap(s, "", "  ", width) {
			if n := utf8.RuneCountInString(l); n > width {
				t.Errorf("%d columns in %q", n, l)
			}
			joined += l
		}
		strip := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if strip(joined) != strip(units.Printable(s)) {
			t.Errorf("%q became %q", s, joined)
		}
	})
}

func TestOf(t *testing.T) {
	got := Layout(Of([][]string{{"a", "long"}, {"12", "3"}, {"4", "5"}}, 2), 2, 0)
	if want := []string{" a  long", "12     3", " 4     5"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
