package report

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/schemas"
)

// documents are the JSON that commands print: the schema's name, what prints it, its
// type, and its goldens.
var documents = []struct {
	name, title, about string
	of                 reflect.Type
	goldens            []string
}{
	{"report", "xferbench report --format json", "See docs/report.md.", reflect.TypeFor[jsonReport](),
		[]string{"emulated", "failed-check", "short", "sweep", "switch", "ttft", "two-days", "two-providers"}},
	{"compare", "xferbench compare --format json, of records of one kind", "See docs/compare.md.", reflect.TypeFor[jsonComparison](),
		[]string{"compare", "compare-ttft", "history"}},
	{"compare-ttft", "xferbench compare --format json, of raw transfers and TTFT", "See docs/compare.md.", reflect.TypeFor[jsonEndToEnd](), []string{"where"}},
	{"advise", "xferbench advise --format json", "See docs/advise.md.", reflect.TypeFor[jsonAdvice](), []string{"advise"}},
}

func schemaOf(name string) string {
	return filepath.Join("..", "..", "docs", "schema", name+".schema.json")
}

// The schemas are what the types say, and every golden has what they say and no key
// more.
func TestSchemas(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range documents {
		m := schemas.Maker{Dirs: []string{".", "../record"}, NullLists: reflect.TypeFor[record.Run]().PkgPath(),
			Union: map[string][]reflect.Type{"jsonReport.Reports": {reflect.TypeFor[jsonRun](), reflect.TypeFor[jsonTTFT]()}}}
		s, err := m.Schema(d.title, d.about+" Keys that are not here are of a later version and to be passed over.", d.of)
		if err != nil {
			t.Fatal(err)
		}
		schemas.Golden(t, schemaOf(d.name), s)
		v := schemas.Open(t, schemaOf(d.name), true)
		for _, g := range d.goldens {
			seen[g+".json"] = true
			b, err := os.ReadFile(filepath.Join("testdata", g+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Check(b); err != nil {
				t.Errorf("%s: %v", g, err)
			}
		}
	}
	all, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		if !seen[filepath.Base(g)] {
			t.Errorf("%s is held to no schema", g)
		}
	}
}

// Every record of the house, however odd, has a report that has the schema.
func TestReportsHaveTheSchema(t *testing.T) {
	v := schemas.Open(t, schemaOf("report"), true)
	files, err := filepath.Glob(filepath.Join(recordsDir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(recordsDir, "*", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, more...) {
		docs, err := Load("", f)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := Write(&b, docs, "json", Options{}); err != nil {
			t.Fatal(err)
		}
		if err := v.Check([]byte(b.String())); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}
