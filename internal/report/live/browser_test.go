package live

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv/browser"
)

// In a browser the next report takes the place of the old one: the same scroll
// position, the same open details, the new rows, and no complaint.
func TestInBrowser(t *testing.T) {
	all := lines(t)
	path := filepath.Join(t.TempDir(), "run.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(texts(all[:len(all)/2]), "")), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, path, 0, time.Minute)
	until(t, s, func(s state) bool { return s.Text == "running" })
	tab := browser.Open(t)
	tab.View(800, 600, browser.Light)
	tab.Visit(s.url)
	// come is true once the page's state begins with words and a whole report is in it.
	come := func(words string) string {
		return `new Promise(function (done) {
			const look = setInterval(function () {
				const f = document.querySelector("iframe");
				const d = f && f.contentDocument;
				if (document.readyState === "complete" && d && d.readyState === "complete" && d.querySelector("details") &&
					document.querySelectorAll("iframe").length === 1 && document.getElementById("state").textContent.startsWith("` + words + `")) {
					clearInterval(look);
					done(true);
				}
			}, 20);
		})`
	}
	var ok bool
	tab.Eval(come("running"), &ok)
	var before struct{ Text string }
	tab.Eval(`(function () {
		const f = document.querySelector("iframe");
		f.contentDocument.querySelector("details").open = true;
		f.contentWindow.scrollTo(0, 300);
		f.contentWindow.old = true;
		return {Text: f.contentDocument.body.textContent};
	})()`, &before)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(texts(all[len(all)/2:]), "")); err != nil {
		t.Fatal(err)
	}
	tab.Eval(come("finished: ok"), &ok)
	var after struct {
		Text, Title string
		Scroll      float64
		Open, Old   bool
	}
	tab.Eval(`new Promise(function (done) {
		const look = setInterval(function () {
			const f = document.querySelector("iframe");
			const old = f.contentWindow.old === true;
			if (!old && document.querySelectorAll("iframe").length === 1) {
				clearInterval(look);
				done({Text: f.contentDocument.body.textContent, Title: document.title, Scroll: f.contentWindow.scrollY,
					Open: f.contentDocument.querySelector("details").open, Old: old});
			}
		}, 20);
	})`, &after)
	if after.Text == before.Text || !after.Open || after.Scroll != 300 || after.Title != "xferbench: finished: ok" {
		t.Errorf("the report changed: %v; open %v, scrolled to %v, title %q", after.Text != before.Text, after.Open, after.Scroll, after.Title)
	}
	for _, c := range tab.Complaints {
		t.Errorf("the page complains: %s", c)
	}
}
