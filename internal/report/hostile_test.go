package report

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// hostile is text that drives a terminal, hides, breaks lines, and ends what holds
// it. What follows a break is told apart: it may never begin a line.
const hostile = "\x1b[31m\x1b]0;t\x07\u009b1m\u202e\u2066\u200b\x00\x7f\r\nZQX\nZQX\u2028ZQX\tZQX|<b>\"'`</b>-->ZQX,ZQX=ZQX;&#27;"

// meaningful are the keys whose words decide what a line is.
var meaningful = []string{"type", "phase", "kind", "level", "status", "mode", "path", "load", "proof", "scope", "api", "op", "shape", "arm", "reason"}

// harmless holds that a text has no control character but newlines, nothing that
// hides or turns text round, and with lines, where a line end means one, no line
// that a record's text began.
func harmless(t *testing.T, what, text string, lines bool) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) && r != '\n' }); i >= 0 {
		t.Errorf("%s: %q reaches the terminal in %q", what, text[i:min(len(text), i+4)], text[max(0, i-100):min(len(text), i+40)])
	}
	for line := range strings.Lines(text) {
		if lines && strings.HasPrefix(strings.TrimLeft(line, "#>-| \t"), "ZQX") {
			t.Errorf("%s: a line that the record's text began: %q", what, line)
		}
	}
}

// Whatever text stands at a key, it reaches no terminal, alone or with all others.
func TestHostileText(t *testing.T) {
	for name, lines := range fewLines(t) {
		was := text(t, lines)
		paths := map[string]bool{"": true} // all at once
		leaves(lines, func(path string, leaf any, _ func(any)) {
			if _, is := leaf.(string); is && !strings.HasSuffix(path, ".type") {
				paths[path] = true
			}
		})
		if len(paths) < 20 {
			t.Fatalf("%s: %d texts only", name, len(paths))
		}
		for path := range paths {
			for _, s := range []string{hostile, strings.Repeat("very long ", 2000)} {
				if path != "" && s != hostile {
					continue
				}
				changed := parse(t, was)
				leaves(changed, func(p string, leaf any, set func(any)) {
					v, is := leaf.(string)
					if is && (p == path || path == "" && !slices.Contains(meaningful, p[strings.LastIndex(p, ".")+1:])) {
						set(v + s)
					}
				})
				what := fmt.Sprintf("%s: %s", name, path)
				for format, out := range report(t, what, text(t, changed)) {
					if format == "csv" {
						if _, err := csv.NewReader(strings.NewReader(out)).ReadAll(); err != nil {
							t.Errorf("%s: %v", what, err)
						}
						out = strings.ReplaceAll(out, "\r\n", "\n")
					}
					harmless(t, what+": "+format, out, format != "html")
				}
			}
		}
	}
}

// The same of comparisons: each record with itself, and raw transfers with TTFT.
func TestHostileTextCompared(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for name, lines := range fewLines(t) {
		leaves(lines, func(path string, leaf any, set func(any)) {
			if v, is := leaf.(string); is && !slices.Contains(meaningful, path[strings.LastIndex(path, ".")+1:]) {
				set(v + hostile)
			}
		})
		files[name] = filepath.Join(dir, name+".jsonl")
		if err := os.WriteFile(files[name], text(t, lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, pair := range [][]string{{"raw", "raw"}, {"ttft", "ttft"}, {"raw", "ttft"}} {
		for _, format := range CompareFormats() {
			if pair[0] != pair[1] && (format == "csv" || format == "junit" || format == "html") {
				continue // of one kind only
			}
			what := fmt.Sprintf("%s: %s", strings.Join(pair, " and "), format)
			var b strings.Builder
			o := CompareOptions{Format: format, Options: Options{Wide: true}}
			if pair[0] == pair[1] {
				o.Threshold = 0.05
			}
			err := Compare(&b, []string{files[pair[0]], files[pair[1]]}, o)
			if b.Len() == 0 {
				t.Errorf("%s: %v", what, err)
			}
			out := b.String()
			if format == "csv" {
				out = strings.ReplaceAll(out, "\r\n", "\n")
			}
			harmless(t, what, out, format != "html")
		}
	}
}
