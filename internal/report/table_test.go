package report

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/units"
)

func TestLayout(t *testing.T) {
	cells := func(xs ...string) func(int) string { return func(i int) string { return xs[i] } }
	cols := []column{
		{head: "name", left: true, cell: cells("tcp", "tcp;ofi_rxm")},
		{head: "op", left: true, rank: 3, cell: cells("read", "read")},
		{head: "shape", left: true, rank: 1, cell: cells("fragmented", "merged"), short: cells("frag", "merged")},
		{head: "ms", cell: cells("1.25", "µ")},
		{head: "max", rank: 2, cell: cells("10", "200")},
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
		if got := layout(cols, 2, tt.width); !slices.Equal(got, tt.want) {
			t.Errorf("width %d:\n%s\nwant\n%s", tt.width, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

func TestWrap(t *testing.T) {
	got := wrap("first transfer took 600 ms of [1.27, 1.34], n = 10 and /a/very/long/path/that/does/not/fit", "# ", "#   ", 30)
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
		for _, l := range wrap(s, "", "  ", width) {
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

func TestNumbers(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{percent(0.0569), "5.7"}, {percent(0.69), "69"}, {percent(1.234), "123"}, {percent(0.0999), "10"},
		{pvalue(2.0 / 1024), "p = 0.0020"}, {pvalue(1e-5), "p < 0.001"}, {pcell(1e-5), "<0.001"}, {rcell(0.98166), "0.982"}, {limit(0.05), "5%"}, {limit(0.025), "2.5%"},
		{shortBytes(999), "999 B"}, {shortBytes(44_444), "44.4 kB"}, {shortBytes(999_600), "1.00 MB"}, {shortBytes(67_108_864), "67.1 MB"},
		{list([]string{"a", "b", "c"}), "a, b and c"}, {list(nil), ""},
		{scale{"ms", 1e6}.time(438_566_912), "438.6"}, {tickTime(2.5e6), "2.5 ms"}, {tickTime(0), "0"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
