package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

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
		golden(t, name+".html", render(t, "html", paths...))
	}
}

// parts are a page's head and its body.
func parts(t *testing.T, page []byte) (head, body []byte) {
	t.Helper()
	i := bytes.Index(page, []byte("<body>"))
	if i < 0 {
		t.Fatal("the page has no body")
	}
	return page[:i], page[i:]
}

// TestHTMLHead holds that a page carries its style sheet and its one script, each
// once and as it is, and that its policy allows these two and nothing else.
func TestHTMLHead(t *testing.T) {
	head, body := parts(t, render(t, "html", "short.jsonl"))
	var allowed []string
	for name, tag := range map[string]string{"page.css": "style", "page.js": "script"} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(head, fmt.Appendf(nil, "<%s>%s</%[1]s>", tag, want)); n != 1 || bytes.Contains(body, []byte("<"+tag)) {
			t.Errorf("the page holds %s %d times, want once", name, n)
		}
		sum := sha256.Sum256(want)
		allowed = append(allowed, tag+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	slices.Sort(allowed)
	slices.Reverse(allowed)
	m := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]+)"`).FindSubmatch(head)
	if m == nil || html.UnescapeString(string(m[1])) != "default-src 'none'; "+strings.Join(allowed, "; ") {
		t.Errorf("the page's policy is %s, want %s", m, allowed)
	}
	if m := regexp.MustCompile(`\s(?:on[a-z]+|style)=`).Find(body); m != nil {
		t.Errorf("the body has an attribute %q, which the policy forbids", m)
	}
}

// TestHTMLSelfContained holds that the page asks nobody for anything, and that
// every figure has a title and a description of its own.
func TestHTMLSelfContained(t *testing.T) {
	for _, name := range []string{"sweep.jsonl", "two-providers.jsonl", "launches.jsonl", "short.jsonl", "ttft.jsonl"} {
		page := string(render(t, "html", name, "another-day.jsonl"))
		for _, bad := range []string{"http:", "https:", "src=", "url(", "@import", "<link", "javascript:"} {
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
	_, body := parts(t, b.Bytes())
	if i := bytes.Index(body, []byte("<script")); i >= 0 {
		t.Errorf("unescaped: %q", body[max(0, i-80):i+60])
	}
	if bytes.Contains(body, []byte("<b x=")) {
		t.Error("unescaped <b>")
	}
}

// TestContrast holds the colours of the style sheet against WCAG 2.2: 4.5 to 1 for
// text, 3 to 1 for what figures draw, light, dark and printed.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	themes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllSubmatch(css, -1)
	if len(themes) != 3 {
		t.Fatalf("%d themes, want light, dark and print", len(themes))
	}
	for i, theme := range themes {
		colour := map[string]float64{}
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]{6});`).FindAllSubmatch(theme[1], -1) {
			v, err := strconv.ParseUint(string(m[2]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			lum := 0.0
			for k, share := range []float64{0.0722, 0.7152, 0.2126} {
				c := float64(v>>(8*k)&255) / 255
				if c <= 0.04045 {
					c /= 12.92
				} else {
					c = math.Pow((c+0.055)/1.055, 2.4)
				}
				lum += share * c
			}
			colour[string(m[1])] = lum
		}
		for name, lum := range colour {
			least := 4.5
			switch {
			case regexp.MustCompile(`^s\d$`).MatchString(name):
				least = 3
			case name == "bg" || name == "rule" || name == "soft" || name == "shade":
				continue
			}
			a, b := max(lum, colour["bg"]), min(lum, colour["bg"])
			if ratio := (a + 0.05) / (b + 0.05); ratio < least {
				t.Errorf("theme %d: %s has a contrast of %.2f, want %v", i, name, ratio, least)
			}
		}
	}
}
