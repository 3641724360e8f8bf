package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

// extremes are numbers that no run writes and a record may hold.
var extremes = []json.Number{"-9223372036854775808", "0", "9223372036854775807", "18446744073709551615", "1e308"}

// tree is a record's lines as JSON without types.
func tree(t testing.TB, name string) []any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(recordsDir, name))
	if err != nil {
		t.Fatal(err)
	}
	var out []any
	for line := range bytes.Lines(b) {
		var v any
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// text is the file of a tree.
func text(t testing.TB, lines []any) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, l := range lines {
		if err := json.NewEncoder(&b).Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// leaves calls visit with the path of each leaf, keys and numbers of lists apart by
// dots after the line's type, and with what sets it.
func leaves(lines []any, visit func(path string, leaf any, set func(any))) {
	var walk func(path string, v any, set func(any))
	walk = func(path string, v any, set func(any)) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(path+"."+k, x, func(y any) { v[k] = y })
			}
		case []any:
			for i, x := range v {
				walk(path, x, func(y any) { v[i] = y })
			}
		default:
			visit(path, v, set)
		}
	}
	for _, l := range lines {
		walk(fmt.Sprint(l.(map[string]any)["type"]), l, nil)
	}
}

// fewLines are records of a few lines that have every line type between them.
func fewLines(t testing.TB) map[string][]any {
	lap := tree(t, "ttft.jsonl")
	raw := synth.Specs()["two-providers.jsonl"]
	raw.Cells, raw.Blocks, raw.Iters = []synth.Cell{raw.Cells[0], raw.Cells[2], raw.Cells[4]}, 6, 1
	b, err := raw.Make()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]any{"raw": parse(t, b), "ttft": slices.Concat(lap[:20], lap[len(lap)-1:])}
}

// Whatever number stands at a key, in one line or in all that have such a key, the record is refused or
// has a report in every format.
func TestExtremeNumbers(t *testing.T) {
	for name, lines := range fewLines(t) {
		was := text(t, lines)
		seen, refused := 0, 0
		paths := map[string]bool{}
		leaves(lines, func(path string, leaf any, _ func(any)) {
			if _, is := leaf.(json.Number); is && !strings.HasSuffix(path, ".schema") {
				paths[path] = true
			}
		})
		if len(paths) < 40 {
			t.Fatalf("%s: %d numbers only", name, len(paths))
		}
		for path := range paths {
			for _, x := range extremes {
				for _, all := range []bool{false, true} {
					changed := parse(t, was)
					done := false
					leaves(changed, func(p string, _ any, set func(any)) {
						if all && strings.HasSuffix(p, path[strings.LastIndex(path, "."):]) || p == path && !done {
							set(x)
							done = true
						}
					})
					seen++
					if report(t, fmt.Sprintf("%s: %s = %s, all %v", name, path, x, all), text(t, changed)) == nil {
						refused++
					}
				}
			}
		}
		t.Logf("%s: %d of %d refused", name, refused, seen)
	}
}

func parse(t testing.TB, b []byte) []any {
	t.Helper()
	var out []any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	for d.More() {
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// report holds that a record is refused or has a report in every format, and returns
// the texts.
func report(t testing.TB, what string, b []byte) map[string]string {
	t.Helper()
	rec, err := record.Read(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	d, err := NewDocument(rec)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, format := range Formats() {
		var w strings.Builder
		// Without a row that has a speed there is nothing for benchstat.
		if err := Write(&w, []Document{d}, format, Options{Wide: true}); err != nil && format != "benchfmt" {
			t.Errorf("%s: %s: %v", what, format, err)
		}
		body := w.String()
		if _, after, ok := strings.Cut(body, "</script>"); ok { // whose own words have them
			body = after
		}
		if strings.Contains(body, "NaN") || strings.Contains(body, "Inf") {
			t.Errorf("%s: %s has NaN or Inf", what, format)
		}
		out[format] = w.String()
	}
	return out
}
