package report

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/testenv/browser"
)

// days are five records of one set-up.
var days = []string{"compare/day1", "compare/day2", "compare/day3", "compare/day4", "compare/day5"}

// savePage puts a report of records into a file.
func savePage(t *testing.T, paths ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, render(t, "html", paths...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// saveComparison puts the page of a comparison into a file.
func saveComparison(t *testing.T, threshold float64, names ...string) string {
	t.Helper()
	names = slices.Clone(names)
	for i, n := range names {
		names[i] = filepath.Join(recordsDir, n+".jsonl")
	}
	var b bytes.Buffer
	if err := Compare(&b, names, CompareOptions{Format: "html", Threshold: threshold}); err != nil && !errors.Is(err, ErrThreshold) {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "compare.html")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPageInBrowser has a browser lay pages out and run their script.
func TestPageInBrowser(t *testing.T) {
	tab := browser.Open(t)
	sweep, two := savePage(t, "sweep.jsonl"), savePage(t, "two-providers.jsonl", "failed-check.jsonl", "ttft.jsonl")
	for _, page := range []string{sweep, two, saveComparison(t, 0.05, "two-providers", "another-day"), saveComparison(t, 0.05, days...), saveComparison(t, 0, "two-providers", "ttft")} {
		for _, width := range []int{390, 800, 1400} {
			tab.View(width, 900, browser.Light)
			tab.Load(page)
			overflow(t, tab, width)
		}
		textsInBrowser(t, tab)
		onPaper(t, tab)
	}
	tab.View(390, 900, browser.Dark)
	tab.Load(sweep)
	hints(t, tab)
	sorting(t, tab)
	toggles(t, tab)
	if len(tab.Complaints) > 0 {
		t.Errorf("the pages complain: %s", strings.Join(tab.Complaints, "\n"))
	}
	tab.View(390, 900, browser.Light)
	tab.Call("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	tab.Load(sweep)
	var without struct {
		Buttons, Rows int
		Hint          string
	}
	tab.Eval(`({Buttons: document.querySelectorAll("button").length, Rows: document.querySelectorAll("tbody tr").length,
		Hint: getComputedStyle(document.querySelector(".hint")).display})`, &without)
	if without.Buttons != 0 || without.Rows < 24 || without.Hint != "block" {
		t.Errorf("without a script: %+v", without)
	}
}

// overflow holds that nothing but a table that scrolls is wider than the page.
func overflow(t *testing.T, tab *browser.Tab, width int) {
	t.Helper()
	var is int
	if tab.Eval("document.documentElement.scrollWidth", &is); is > width {
		t.Errorf("at %d pixels the page is %d wide", width, is)
	}
}

// textsInBrowser holds the texts of figures, as the browser's own font has them,
// within their figures and apart.
func textsInBrowser(t *testing.T, tab *browser.Tab) {
	t.Helper()
	var wrong []string
	tab.Eval(`(() => {
		for (const d of document.querySelectorAll("details")) d.open = true;
		const wrong = [];
		for (const svg of document.querySelectorAll("svg[role=img]")) {
			const all = svg.getBoundingClientRect(), seen = [];
			for (const text of svg.querySelectorAll("text:not(.letter)")) {
				const b = text.getBoundingClientRect(), deep = b.height * 0.2;
				if (b.left < all.left - 1 || b.right > all.right + 1) wrong.push("outside: " + text.textContent);
				for (const o of seen)
					if (b.left < o.right - 1 && o.left < b.right - 1 && b.top < o.bottom - deep && o.top < b.bottom - deep) wrong.push("over another: " + text.textContent);
				seen.push(b);
			}
		}
		return wrong;
	})()`, &wrong)
	if len(wrong) > 0 {
		t.Errorf("texts of figures: %q", wrong)
	}
}

// onPaper holds that a printer gets all that is folded, and no table wider than a
// sheet of A4 on its side.
func onPaper(t *testing.T, tab *browser.Tab) {
	t.Helper()
	const sheet = 1032 // 297 mm less two margins of 12 mm
	tab.View(sheet, 700, browser.Print)
	tab.Eval(`for (const d of document.querySelectorAll("details")) d.open = false`, nil)
	var wrong []string
	tab.Eval(`[...document.querySelectorAll("table")].filter((e) => {
		const b = e.getBoundingClientRect();
		return !e.checkVisibility() || b.right > innerWidth;
	}).map((e) => e.caption.textContent)`, &wrong)
	if len(wrong) > 0 {
		t.Errorf("tables that are folded or cut off on paper: %q", wrong)
	}
}

func hints(t *testing.T, tab *browser.Tab) {
	t.Helper()
	var got []string
	for _, width := range []int{390, 1400} {
		tab.View(width, 900, browser.Dark)
		var s string
		tab.Eval(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(getComputedStyle(document.querySelector("section > .hint")).display))))`, &s)
		got = append(got, s)
	}
	if want := []string{"block", "none"}; !slices.Equal(got, want) {
		t.Errorf("the hint at columns out of sight at 390 and 1400 pixels: %q, want %q", got, want)
	}
}

// sorting presses the head of the column of sizes, whose cells have units, and
// reads the column.
func sorting(t *testing.T, tab *browser.Tab) {
	t.Helper()
	up := strings.Fields("4KiB 4KiB 4KiB 16KiB 16KiB 16KiB 64KiB 64KiB 64KiB 256KiB 256KiB 256KiB 1MiB 1MiB 1MiB 4MiB 4MiB 4MiB 16MiB 16MiB 16MiB 64MiB 64MiB 64MiB")
	down := slices.Clone(up)
	slices.Reverse(down)
	for _, want := range []struct {
		how   string
		sizes []string
	}{{"ascending", up}, {"descending", down}, {"", up}} {
		var got struct {
			How   string
			Sizes []string
		}
		tab.Eval(`(() => {
			const table = document.querySelector("section > .scroll > table"), heads = [...table.tHead.rows[0].cells];
			const n = heads.findIndex((h) => h.textContent === "size");
			heads[n].querySelector("button").click();
			return {How: heads[n].getAttribute("aria-sort") ?? "", Sizes: [...table.tBodies[0].rows].map((r) => r.cells[n].textContent)};
		})()`, &got)
		if got.How != want.how {
			t.Errorf("the head is sorted %q, want %q", got.How, want.how)
		}
		if d := cmp.Diff(want.sizes, got.Sizes); d != "" {
			t.Errorf("sorted %q (-want +got):\n%s", want.how, d)
		}
	}
	// A row without a value stays last, whichever way.
	for range 2 {
		var last string
		tab.Eval(`(() => {
			const table = document.querySelector("section > .scroll > table"), heads = [...table.tHead.rows[0].cells];
			const n = heads.findIndex((h) => h.textContent === "%line");
			heads[n].querySelector("button").click();
			return [...table.tBodies[0].rows].at(-1).cells[n].textContent;
		})()`, &last)
		if last != "-" {
			t.Errorf("the last row has %q, want none", last)
		}
	}
}

func toggles(t *testing.T, tab *browser.Tab) {
	t.Helper()
	var got []string
	tab.Eval(`(() => {
		const figure = [...document.querySelectorAll("figure")].find((f) => f.querySelector(".legend button"));
		const button = figure.querySelector(".legend button"), group = figure.querySelector("g[data-series]");
		const state = () => button.getAttribute("aria-pressed") + " " + getComputedStyle(group).display;
		const out = [state()];
		for (let i = 0; i < 2; i++) { button.click(); out.push(state()); }
		return out;
	})()`, &got)
	if want := []string{"true inline", "false none", "true inline"}; !slices.Equal(got, want) {
		t.Errorf("an entry of the legend: %q, want %q", got, want)
	}
}

// TestSortedCells has the script sort cells of each kind that tables hold.
func TestSortedCells(t *testing.T) {
	tab := browser.Open(t)
	js, err := os.ReadFile("page.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, sorted := range []string{
		"4KiB 16KiB 64KiB 1MiB 64MiB 1GiB", "999 B|1.5 kB|439 MB|1.2 GB", "850 ns|12.3 µs|1.2 ms|3 s", "<0.001 0.0020 0.047 1.0", "2x40 8x3.0 10x4", "6+6 10+10",
		"-3.4 0 136", "40l 52s 69s", "2% 5.5% 12%", "1,024 13,384 438,566,912", "2026-01-01 2026-01-02 2026-02-01", "fragmented merged", "9.5e+06 1.2e+07", "1 2 -",
	} {
		cells := strings.Fields(sorted)
		if strings.Contains(sorted, "|") {
			cells = strings.Split(sorted, "|")
		}
		var rows string
		for _, c := range slices.Backward(cells) {
			rows += "<tr><td>" + html.EscapeString(c) + "</td></tr>"
		}
		page := filepath.Join(t.TempDir(), "page.html")
		if err := os.WriteFile(page, fmt.Appendf(nil, "<!DOCTYPE html><meta charset=utf-8><script>%s</script><table><thead><tr><th>head</th></tr></thead><tbody>%s</tbody></table>", js, rows), 0o600); err != nil {
			t.Fatal(err)
		}
		tab.Load(page)
		var got []string
		tab.Eval(`(document.querySelector("button").click(), [...document.querySelectorAll("td")].map((c) => c.textContent))`, &got)
		if !slices.Equal(got, cells) {
			t.Errorf("sorted %q, want %q", got, cells)
		}
	}
}
