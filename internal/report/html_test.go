package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestHTMLGolden compares pages without the style sheet: see TestHTMLStyle.
func TestHTMLGolden(t *testing.T) {
	for name, paths := range map[string][]string{
		"two-providers": {"two-providers.jsonl"},
		"sweep":         {"sweep.jsonl"},
		"emulated":      {"emulated.jsonl"},
		"failed-check":  {"failed-check.jsonl"},
		"same-twice":    {"same-twice.jsonl"},
		"two-days":      {"two-providers.jsonl", "another-day.jsonl"},
		"ttft":          {"ttft.jsonl"},
		"descriptors":   {"descriptors.jsonl"},
	} {
		page := render(t, "html", paths...)
		from, to := style(t, page)
		golden(t, name+".html", slices.Concat(page[:from], page[to:]))
	}
}

// style is where a page's style sheet stands.
func style(t *testing.T, page []byte) (from, to int) {
	t.Helper()
	from = bytes.Index(page, []byte("<style>")) + len("<style>")
	to = bytes.Index(page, []byte("</style>"))
	if from < len("<style>") || to < from {
		t.Fatal("the page has no style sheet")
	}
	return from, to
}

// TestHTMLStyle holds that a page carries its style sheet, once and as it is.
func TestHTMLStyle(t *testing.T) {
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	page := render(t, "html", "short.jsonl")
	from, to := style(t, page)
	if !bytes.Equal(page[from:to], css) || bytes.Count(page, []byte("<style>")) != 1 {
		t.Errorf("the page's style sheet is not page.css:\n%.200s", page[from:to])
	}
}

// TestHTMLSelfContained holds that the page asks nobody for anything, and that
// every figure has a title and a description of its own.
func TestHTMLSelfContained(t *testing.T) {
	for _, name := range []string{"sweep.jsonl", "two-providers.jsonl", "launches.jsonl", "short.jsonl", "ttft.jsonl"} {
		page := string(render(t, "html", name, "another-day.jsonl"))
		for _, bad := range []string{"http:", "https:", "src=", "url(", "@import", "<script", "<link", "javascript:"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s: the page holds %q", name, bad)
			}
		}
		svgs := regexp.MustCompile(`(?s)<svg [^>]*role="img".*?</svg>`).FindAllString(page, -1)
		if len(svgs) < 8 {
			t.Errorf("%s: %d figures", name, len(svgs))
		}
		seen := map[string]bool{}
		for _, svg := range svgs {
			m := regexp.MustCompile(`aria-labelledby="(\S+)-t (\S+)-d"><title id="(\S+)-t">[^<]+</title><desc id="(\S+)-d">[^<]+</desc>`).FindStringSubmatch(svg)
			if m == nil || m[1] != m[2] || m[1] != m[3] || m[1] != m[4] || seen[m[1]] {
				t.Errorf("%s: a figure without its own title and description: %.200s", name, svg)
				continue
			}
			seen[m[1]] = true
			if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
				t.Errorf("%s: %s holds a number that is none", name, m[1])
			}
			d := xml.NewDecoder(strings.NewReader(svg))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Errorf("%s: %s: %v", name, m[1], err)
					break
				}
			}
		}
	}
}

// TestHTMLEscapes puts markup wherever a record holds text.
func TestHTMLEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script><b x='`
	a := analyse(t, filepath.Join(recordsDir, "sweep.jsonl"))
	a.Record.Run.ID, a.Record.Run.Host.Hostname, a.Record.Run.ToolVersion = evil, evil, evil
	a.Record.Run.Env["X"] = evil
	a.Record.Run.Argv = []string{evil}
	for i := range a.Record.Colds {
		a.Record.Colds[i].Provider = evil
	}
	for _, r := range a.Rows {
		r.Provider, r.Label, r.Shape, r.Transport.Library = evil+r.Provider, evil+r.Label, evil, evil
	}
	for i := range a.Models {
		a.Models[i].Label = evil
	}
	var b bytes.Buffer
	if err := Write(&b, []Document{{Record: a.Record, Raw: a}}, "html", Options{}); err != nil {
		t.Fatal(err)
	}
	if i := strings.Index(b.String(), "<script"); i >= 0 {
		t.Errorf("unescaped: %q", b.String()[max(0, i-80):i+60])
	}
	if strings.Contains(b.String(), "<b x=") {
		t.Error("unescaped <b>")
	}
}
