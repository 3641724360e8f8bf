package plot

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"regexp"
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

// TestWidth holds widths against what fontTools reads from DejaVu Sans: 60.79 and
// 175.25 units. Rounding each letter up may add a twentieth.
func TestWidth(t *testing.T) {
	for _, tt := range []struct {
		class, s string
		least    float64
	}{
		{"tick", "1.225 ms", 60.79}, {"row", "ucx:tcp READ fragmented", 175.25}, {"tick", "10 µs", 13 * (0.636*2 + 0.318 + 0.636 + 0.521)}, {"row", "漢字", 27}, {"row", "", 0},
	} {
		if w := Width(tt.class, tt.s); w < tt.least || w > tt.least*1.06 {
			t.Errorf("%q is %.2f wide, want %.2f or a little more", tt.s, w, tt.least)
		}
	}
	// The sizes are those of the style sheet.
	css, err := os.ReadFile("../page.css")
	if err != nil {
		t.Fatal(err)
	}
	for class, size := range fontSizes {
		if rule := fmt.Sprintf("svg .%s { font-size: %vpx;", class, size); !strings.Contains(string(css), rule) {
			t.Errorf("page.css has no %q", rule)
		}
	}
}

func TestFit(t *testing.T) {
	for _, tt := range []struct {
		s    string
		room float64
		want string
	}{
		{"tcp READ", 100, "tcp READ"}, {"aaaaaaaaaa", 0, "…"}, {"abcdefghij", 60, "abc…hij"}, {"one two", 50, "on…o"}, {"", 0, ""},
		{strings.Repeat("very long ", 1_000_000), 60, "ver…ng "},
	} {
		got := fit("row", tt.s, tt.room) // of what a record may hold, the cost is that of the room
		if got != tt.want || got != "…" && Width("row", got) > tt.room {
			t.Errorf("fit(%q, %v) = %q, want %q", tt.s, tt.room, got, tt.want)
		}
	}
}

// TestRobust has ranges worked out by hand.
func TestRobust(t *testing.T) {
	steady := []float64{100, 101, 102, 103, 104, 105, 106, 107, 108, 109}
	for name, tt := range map[string]struct {
		rows [][]float64
		want Range
	}{
		"no outlier": {[][]float64{steady}, Range{Lo: 100, Hi: 109}},
		// Quartiles 102 and 108 of eleven values: fences at 84 and 126.
		"one outlier":          {[][]float64{append([]float64{9000}, steady...)}, Range{Lo: 100, Hi: 109}},
		"one that is near":     {[][]float64{append([]float64{115}, steady...)}, Range{Lo: 100, Hi: 115}},
		"two of twelve":        {[][]float64{append([]float64{9000, 9100}, steady...)}, Range{Lo: 100, Hi: 9100, Log: true}}, // a second level, no outlier
		"of few, one":          {[][]float64{{1, 2, 3, 2, 500}}, Range{Lo: 1, Hi: 3}},
		"a coarse clock":       {[][]float64{{5, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 900}}, Range{Lo: 5, Hi: 6}},
		"decades":              {[][]float64{{1, 1.1, 1.2, 1.1}, {1000, 1100, 1200, 1100}}, Range{Lo: 1, Hi: 1200, Log: true}},
		"below":                {[][]float64{append([]float64{-900}, steady...)}, Range{Lo: 100, Hi: 109}},
		"nothing":              {nil, Range{Hi: 1}},
		"not a number":         {[][]float64{{math.NaN(), 1, 2}}, Range{Lo: 1, Hi: 2}},
		"all the same":         {[][]float64{{7, 7, 7, 7}}, Range{Lo: 7, Hi: 7}},
		"three are not enough": {[][]float64{{1, 2, 30}}, Range{Lo: 1, Hi: 30}},
	} {
		if got := Robust(tt.rows...); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
	if got := (Range{Lo: 100, Hi: 200}).Margin(0.1); got != (Range{Lo: 90, Hi: 210}) {
		t.Errorf("a margin of a tenth: %+v", got)
	}
}

// TestECDF has the steps of four values on an axis of 100 units a value.
func TestECDF(t *testing.T) {
	svg := string(ECDF(Text{ID: "e"}, Axis{Lo: 0, Hi: 4}, []Steps{{Values: []float64{3, 1, 2, 2}, Label: "row"}}))
	m := regexp.MustCompile(`class="line s0" d="M(\S+) (\S+)H(\S+)V(\S+)H(\S+)V(\S+)H(\S+)V(\S+)H(\S+)V(\S+)H(\S+)"><title>row`).FindStringSubmatch(svg)
	if m == nil {
		t.Fatal(svg)
	}
	var v []float64
	for _, s := range m[1:] {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		v = append(v, f)
	}
	left, base, right := v[0], v[1], v[10]
	unit, high := (right-left)/4, (base - v[9])
	for i, x := range []float64{1, 2, 2, 3} {
		if math.Abs(v[2+2*i]-left-x*unit) > 0.1 || math.Abs(base-v[3+2*i]-high*float64(i+1)/4) > 0.1 {
			t.Errorf("step %d at (%v, %v)", i, v[2+2*i], v[3+2*i])
		}
	}
}

// TestForest tells what rows came to by their signs, and says the rest in titles.
func TestForest(t *testing.T) {
	svg := string(Forest(Text{ID: "f"}, Axis{Lo: 0.5, Hi: 2, Log: true, Value: plain}, Range{Lo: 0.95, Hi: 1.05}, Level{Y: 1.1, Label: "threshold 10%"}, []Ratio{
		{Label: "one", Text: "1.30 [1.20, 1.40]", Class: "slower", Mid: 1.3, Lo: 1.2, Hi: 1.4},
		{Label: "two", Text: "0.70 [0.60, 0.80]", Class: "faster", Mid: 0.7, Lo: 0.6, Hi: 0.8},
		{Label: "three", Text: "1.00 [0.99, 1.01]", Class: "same", Mid: 1, Lo: 0.99, Hi: 1.01},
		{Label: "four", Text: "1.50 [0.90, 9.00]", Class: "open", Mid: 1.5, Lo: 0.9, Hi: 9},
	}))
	for want, n := range map[string]int{
		`class="sign slower"`: 1, `class="sign faster"`: 1, `<circle`: 2, `class="beyond`: 1, `>threshold 10%</text>`: 1, `class="band"`: 1,
		`<title>one: 1.30 [1.20, 1.40]</title>`: 2, // on the interval and on the sign
	} {
		if got := strings.Count(svg, want); got != n {
			t.Errorf("%d of %q, want %d", got, want, n)
		}
	}
}

// A label and a value that do not fit one line take two, whole.
func TestRowsOfTwoLines(t *testing.T) {
	label := strings.Repeat("label ", 9)
	svg := string(Bars(Text{ID: "b"}, Axis{Hi: 10, Value: plain}, []Bar{{Label: label, Text: "a value of some length", Parts: []Part{{Value: 5, Name: "part"}}}}))
	if !strings.Contains(svg, ">"+label+"</text>") || !strings.Contains(svg, ">a value of some length</text>") || !strings.Contains(svg, "<title>part 5</title>") {
		t.Error(svg)
	}
}

// Each fall begins where the one before ends, a bar that leads back is open, and
// what is inside a bar stays in it.
func TestWaterfall(t *testing.T) {
	svg := string(Waterfall(Text{ID: "w"}, Axis{Hi: 100, Value: plain}, []Fall{
		{Label: "memory", Text: "60", To: 60, Lo: 55, Hi: 65},
		{Label: "<raw>", Text: "-20", From: 60, To: 40, Class: 2},
		{Label: "queue", Text: "50", From: 40, To: 90, Class: 3, Inside: Part{Value: 80, Class: 7, Name: "NIXL"}},
		{Label: "all", Text: "90", To: 90}}))
	for want, n := range map[string]int{`class="bar s`: 4, `class="back s2"`: 1, `class="join"`: 2, `class="error"`: 3, "&lt;raw&gt; -20</title>": 1, "NIXL 80</title>": 1, "60 [55, 65]</title>": 1} {
		if got := strings.Count(svg, want); got != n {
			t.Errorf("%d of %q, want %d in %s", got, want, n, svg)
		}
	}
	// The axis is 452 units from 14 on: 40 is at 194.8, and 50 more are 226, whatever is inside.
	if n := strings.Count(svg, `x="194.8"`); n != 3 || strings.Count(svg, `width="226"`) != 2 {
		t.Errorf("%d bars from 40 on in %s", n, svg)
	}
}
