package plot

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func at(ts []Tick) string {
	var out []string
	for _, t := range ts {
		out = append(out, t.Label)
	}
	return strings.Join(out, " ")
}

func plain(f float64) string { return strconv.FormatFloat(f, 'g', 7, 64) }

func TestTicks(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{at(Linear(0, 10, 5, plain)), "0 2 4 6 8 10"},
		{at(Linear(0.93, 1.11, 4, plain)), "0.95 1 1.05 1.1"},
		{at(Linear(-1, 1, 4, plain)), "-1 -0.5 0 0.5 1"},
		{at(Linear(5, 5, 4, plain)), ""},
		{at(Log(1, 1000, 10, 6, plain)), "1 10 100 1000"},
		{at(Log(4096, 1<<20, 4, 3, plain)), "4096  65536  1048576"},
		{at(Log(20, 80, 10, 4, plain)), "20 40 60 80"}, // no power within: round steps
		{at(Log(0, 80, 10, 4, plain)), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestScale(t *testing.T) {
	lin := NewScale(10, 20, 100, 200, false)
	log := NewScale(1, 100, 0, 200, true)
	for _, tt := range []struct{ got, want float64 }{
		{lin.At(10), 100}, {lin.At(15), 150}, {lin.At(25), 200}, {lin.At(-5), 100},
		{log.At(1), 0}, {log.At(10), 100}, {log.At(100), 200}, {log.At(0), 0},
		{NewScale(3, 3, 0, 10, false).At(3), 0}, {NewScale(0, 0, 0, 10, true).At(1), 0},
	} {
		if d := tt.got - tt.want; d > 1e-9 || d < -1e-9 {
			t.Errorf("got %v, want %v", tt.got, tt.want)
		}
	}
}

func TestThin(t *testing.T) {
	xs := make([]int, 10_000)
	for i := range xs {
		xs[i] = i % 100
	}
	xs[1234], xs[4321] = -7, 777
	got := Thin(xs, 50, cmp.Compare[int])
	if len(got) > 50 || len(got) < 45 || slices.Min(got) != -7 || slices.Max(got) != 777 {
		t.Errorf("%d values from %d to %d", len(got), slices.Min(got), slices.Max(got))
	}
	if got := Thin(xs[:50], 50, cmp.Compare[int]); len(got) != 50 {
		t.Errorf("a short series lost values: %d", len(got))
	}
}

// A figure must hold whatever it is told, escaped, and every sample.
func TestCurves(t *testing.T) {
	svg := string(Curves(Text{ID: "x", Title: `<a & "b">`, Desc: "the <description>"}, Axis{Lo: 1, Hi: 100, Log: true}, Axis{Lo: 0, Hi: 10},
		[]Series{{Class: 1, Points: []Point{{X: 1, Y: 5, Lo: 4, Hi: 6, Label: "<l>"}, {X: 100, Y: 5}}, Dots: [][2]float64{{1, 2}, {10, 3}, {100, 4}}}},
		[]Level{{Y: 9, Label: "<line>"}}, []Span{{From: 10, To: 20, Label: "<band>"}}))
	for _, want := range []string{"&lt;a &amp; &#34;b&#34;&gt;", "&lt;l&gt;", "&lt;line&gt;", "&lt;band&gt;", "&lt;description&gt;</desc>", `class="line s1"`, `class="whisker s1"`, `class="band"`} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in %s", want, svg)
		}
	}
	if n := strings.Count(svg, "h0"); n != 3 {
		t.Errorf("%d dots, want 3", n)
	}
}
