package live

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv/browser"
)

// A browser has the report of what is there, and later that of the whole run in its
// place, without a reload and with what was open still open.
func TestInBrowser(t *testing.T) {
	all := lines(t)
	path := filepath.Join(t.TempDir(), "r.jsonl")
	put := func(ls [][]byte) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.Write(bytes.Join(ls, nil))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(all[:len(all)*2/3])
	tab := browser.Open(t)
	s := start(t, path, time.Second, time.Minute)
	tab.Visit(s.url)
	// shown is what the frame has: the samples of the first row, and whether the first
	// fold is open.
	shown := func() (got struct {
		N    string
		Open bool
	}) {
		tab.Eval(`(() => {
			const d = document.querySelector("iframe")?.contentDocument;
			return {N: d?.querySelector("section > .scroll tbody tr")?.cells[2].textContent ?? "", Open: d?.querySelector("details")?.open ?? false};
		})()`, &got)
		return got
	}
	wait := func(ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the frame still shows %+v; the page says: %s", shown(), strings.Join(tab.Complaints, "\n"))
			}
		}
	}
	wait(func() bool { return shown().N != "" })
	first := shown().N
	tab.Eval(`document.querySelector("iframe").contentDocument.querySelector("details").open = true`, nil)
	put(all[len(all)*2/3:])
	wait(func() bool { return shown().N == "10x4" })
	if first == "10x4" || !shown().Open {
		t.Errorf("the frame went from %s to %+v", first, shown())
	}
	if len(tab.Complaints) > 0 {
		t.Errorf("the page complains: %s", strings.Join(tab.Complaints, "\n"))
	}
}
