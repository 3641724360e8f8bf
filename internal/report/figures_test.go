package report

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/plot"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

type drawn struct {
	x1, y1, x2, y2 float64
	text           string
}

var (
	svgs  = regexp.MustCompile(`(?s)<svg viewBox="0 0 (\S+) (\S+)" role="img" aria-labelledby="(\S+)-t.*?</svg>`)
	texts = regexp.MustCompile(`<text x="([^"]+)" y="([^"]+)" class="(\w+)" text-anchor="(\w+)">(?:<title>[^<]*</title>)?([^<]*)</text>`)
)

// textBoxes are where the texts of a figure stand, in the widest of the fonts.
func textBoxes(t *testing.T, svg string) []drawn {
	t.Helper()
	var out []drawn
	for _, m := range texts.FindAllStringSubmatch(svg, -1) {
		if m[3] == "letter" {
			continue // stands in a part of a bar that has room for it
		}
		x, y := number64(t, m[1]), number64(t, m[2])
		s := html.UnescapeString(m[5])
		w := plot.Width(m[3], s)
		switch m[4] {
		case "middle":
			x -= w / 2
		case "end":
			x -= w
		}
		out = append(out, drawn{x, y - 10, x + w, y + 2, s})
	}
	return out
}

func number64(t *testing.T, s string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fits holds that all texts of a page's figures stand within them and clear of
// each other.
func fits(t *testing.T, page string) {
	t.Helper()
	all := svgs.FindAllStringSubmatch(page, -1)
	if len(all) == 0 {
		t.Error("the page has no figure")
	}
	for _, m := range all {
		w, h := number64(t, m[1]), number64(t, m[2])
		boxes := textBoxes(t, m[0])
		for i, b := range boxes {
			if b.x1 < -0.1 || b.x2 > w+0.1 || b.y1 < 0 || b.y2 > h {
				t.Errorf("%s: %q stands at (%.1f, %.1f) to (%.1f, %.1f), outside of %v × %v", m[3], b.text, b.x1, b.y1, b.x2, b.y2, w, h)
			}
			for _, o := range boxes[:i] {
				if b.x1 < o.x2 && o.x1 < b.x2 && b.y1 < o.y2 && o.y1 < b.y2 {
					t.Errorf("%s: %q runs over %q", m[3], b.text, o.text)
				}
			}
		}
	}
}

// pageOf is the HTML of an analysis.
func pageOf(t *testing.T, a *analysis.Analysis) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, []Document{{Record: a.Record, Raw: a}}, "html", Options{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFiguresFit(t *testing.T) {
	for _, path := range records(t) {
		t.Run(base(path), func(t *testing.T) { fits(t, string(render(t, "html", filepath.Base(path)))) })
	}
	for name, paths := range map[string][]string{"comparison": {"two-providers", "another-day"}, "history": days, "waterfall": {"two-providers", "ttft"}} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(saveComparison(t, 0, paths...))
			if err != nil {
				t.Fatal(err)
			}
			fits(t, string(b))
		})
	}
	t.Run("long labels", func(t *testing.T) {
		a := analyse(t, filepath.Join(recordsDir, "two-providers.jsonl"))
		for i, r := range a.Rows {
			r.Label = strings.Repeat("WWWW-", 20) + fmt.Sprint(i)
			r.Provider += strings.Repeat("漢字", 30)
		}
		fits(t, pageOf(t, a))
	})
	t.Run("ttft with a wrap of the pool", func(t *testing.T) {
		d, err := NewDocument(synth.MakeLap([]string{"libfabric-efa", "efa"}, 10, 60, "closed", 1))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Write(&b, []Document{d}, "html", Options{}); err != nil {
			t.Fatal(err)
		}
		fits(t, b.String())
	})
	// The labels that lost their first digit: four digits and a unit.
	t.Run("four digits", func(t *testing.T) {
		a := analyse(t, filepath.Join(recordsDir, "two-providers.jsonl"))
		scaled(t, a, func(i int, _ record.Sample) int64 { return 1_225_000 + int64(i%7)*150 })
		p := pageOf(t, a)
		if !strings.Contains(p, ">1.225 ms</text>") {
			t.Error("no figure has a tick of four digits")
		}
		fits(t, p)
	})
}

// scaled gives each sample of a record a time of its own and analyses it anew.
func scaled(t *testing.T, a *analysis.Analysis, f func(i int, s record.Sample) int64) {
	t.Helper()
	var samples record.Samples
	i := 0
	for s := range a.Record.Samples.All() {
		s.TotalNs = f(i, s)
		samples.Add(s)
		i++
	}
	a.Record.Samples = samples
	b, err := analysis.Of(a.Record)
	if err != nil {
		t.Fatal(err)
	}
	*a = *b
}

// One transfer that took a hundred times as long must not flatten what the others
// look like: it is marked at the edge, and counted.
func TestOutlier(t *testing.T) {
	for _, name := range []string{"two-providers", "sweep"} {
		a := analyse(t, filepath.Join(recordsDir, name+".jsonl"))
		victim := a.Rows[0].ID
		done := false
		scaled(t, a, func(_ int, s record.Sample) int64 {
			if !done && s.Condition == victim && s.Phase == "measure" && s.Block == 3 {
				done = true
				return s.TotalNs * 100
			}
			return s.TotalNs
		})
		p := pageOf(t, a)
		for _, id := range []string{map[string]string{"two-providers": "r0-d0", "sweep": "r0-v0"}[name], "r0-s0"} {
			m := regexp.MustCompile(`(?s)aria-labelledby="` + id + `-t .*?</svg>`).FindString(p)
			// Beside it a transfer of another row that is far from its fellows may lie out there.
			if n := strings.Count(m, `class="beyond`); n < 1 || n > 2 {
				t.Errorf("%s: %s marks %d outliers, want 1 or 2", name, id, n)
			}
			lo, hi := math.Inf(1), 0.0
			axis := regexp.MustCompile(`<path class="dot [^"]*" d="([^"]*)"`).FindAllStringSubmatch(m, -1)
			for _, path := range axis {
				for _, xy := range regexp.MustCompile(`M(\S+) (\S+?)h0`).FindAllStringSubmatch(path[1], -1) {
					v := number64(t, xy[1])
					if strings.HasPrefix(id, "r0-s") {
						v = number64(t, xy[2])
					}
					lo, hi = math.Min(lo, v), math.Max(hi, v)
				}
			}
			if want := map[bool]float64{true: 40, false: 250}[strings.HasPrefix(id, "r0-s")]; hi-lo < want {
				t.Errorf("%s: the dots of %s lie within %.0f units of the axis, want %v", name, id, hi-lo, want)
			}
		}
		if n := len(regexp.MustCompile(`(?:One transfer lies|2 transfers lie) beyond the axis`).FindAllString(p, -1)); n < 2 {
			t.Errorf("%s: %d figures say that a transfer is beyond the axis", name, n)
		}
	}
}

// Figures in run order have axes of one span, so that they can be held against
// each other.
func TestSharedAxes(t *testing.T) {
	series := []inOrder{
		{id: "a", values: []float64{90, 100, 110}, mid: 100, axis: timeAxis},
		{id: "b", values: []float64{980, 1000, 1020}, mid: 1000, axis: timeAxis},
	}
	shown, folded := inRunOrder(series)
	if len(shown) != 2 || len(folded) != 0 {
		t.Fatalf("%d shown, %d folded", len(shown), len(folded))
	}
	// 0.9 to 1.1 and a margin of 6 %: the second's dots take a fifth of the first's.
	ys := func(svg string) (lo, hi float64) {
		lo = math.Inf(1)
		for _, m := range regexp.MustCompile(`M\S+ (\S+?)h0`).FindAllStringSubmatch(svg, -1) {
			lo, hi = math.Min(lo, number64(t, m[1])), math.Max(hi, number64(t, m[1]))
		}
		return lo, hi
	}
	alo, ahi := ys(string(shown[0].SVG))
	blo, bhi := ys(string(shown[1].SVG))
	if r := (bhi - blo) / (ahi - alo); r < 0.19 || r > 0.21 {
		t.Errorf("the spans of dots relate as %.3f, want 0.2", r)
	}
	for range 5 {
		series = append(series, inOrder{id: "c", values: []float64{1, 1}, mid: 1, axis: timeAxis, quiet: true})
	}
	if shown, folded = inRunOrder(series); len(shown) != 2 || len(folded) != 5 {
		t.Errorf("%d shown and %d folded, want 2 and 5", len(shown), len(folded))
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		lo, hi float64
		want   string
	}{
		{0, 378e6, "0|100 ms|200 ms|300 ms"},
		{1.2248e6, 1.2262e6, "1.225 ms|1.2255 ms|1.226 ms"},
		{0.9e6, 1.3e6, "0.9 ms|1 ms|1.1 ms|1.2 ms|1.3 ms"},
		{3, 47, "10 ns|20 ns|30 ns|40 ns"},
		{0, 2.6e9, "0|1 s|2 s"},
	} {
		var got []string
		for _, k := range timeAxis(plot.Range{Lo: tt.lo, Hi: tt.hi}).Ticks {
			got = append(got, k.Label)
		}
		if s := strings.Join(got, "|"); s != tt.want {
			t.Errorf("%v to %v: %s, want %s", tt.lo, tt.hi, s, tt.want)
		}
	}
}

// A forest of many comparisons shows the first and folds the rest, on one axis.
func TestForestFolds(t *testing.T) {
	var rows []ratioRow
	for i := range openRatios + 3 {
		rows = append(rows, ratioRow{label: fmt.Sprint("row ", i), verdict: stats.Verdict{Ratio: 1.01}})
	}
	shown, folded := forest(rows, "title", "text", "id", 0)
	if shown == nil || folded == nil || folded.Title != "3 more comparisons" || strings.Count(string(shown.SVG), "<circle") != openRatios || strings.Count(string(folded.SVG), "<circle") != 3 {
		t.Errorf("%+v\n%+v", shown, folded)
	}
	if shown, folded = forest([]ratioRow{{verdict: stats.Verdict{Ratio: math.NaN()}}}, "title", "text", "id", 0); shown != nil || folded != nil {
		t.Error("a forest of nothing")
	}
}
