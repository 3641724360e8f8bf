package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/schemas"
)

// documents are the JSON that commands print: the schema's name, what prints it, a key
// that only it has, and its type.
var documents = []struct {
	name, title, about, key string
	of                      reflect.Type
}{
	{"report", "xferbench report --format json", "See docs/report.md.", "reports", reflect.TypeFor[jsonReport]()},
	{"compare", "xferbench compare --format json, of records of one kind", "See docs/compare.md.", "only_a", reflect.TypeFor[jsonComparison]()},
	{"compare-ttft", "xferbench compare --format json, of raw transfers and TTFT", "See docs/compare.md.", "raw", reflect.TypeFor[jsonEndToEnd]()},
	{"advise", "xferbench advise --format json", "See docs/advise.md.", "deployment", reflect.TypeFor[jsonAdvice]()},
}

func schemaOf(name string) string {
	return filepath.Join("..", "..", "docs", "schema", name+".schema.json")
}

// The schemas are what the types say.
func TestSchemasAreOfTheTypes(t *testing.T) {
	for _, d := range documents {
		m := schemas.Maker{Dirs: []string{".", "../record"}, NullLists: reflect.TypeFor[record.Run]().PkgPath(),
			Union: map[string][]reflect.Type{"jsonReport.Reports": {reflect.TypeFor[jsonRun](), reflect.TypeFor[jsonTTFT]()}}}
		s, err := m.Schema(d.title, d.about+" Keys that are not here are of a later version and to be passed over.", d.of)
		if err != nil {
			t.Fatal(err)
		}
		schemas.Golden(t, schemaOf(d.name), s)
	}
}

// Every golden has what one schema says, and no key more.
func TestGoldensHaveASchema(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]int{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var keys map[string]any
		if err := json.Unmarshal(b, &keys); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, d := range documents {
			if _, is := keys[d.key]; !is {
				continue
			}
			n++
			used[d.name]++
			if err := schemas.Open(t, schemaOf(d.name), true).Check(b); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: of %d schemas, want one", f, n)
		}
	}
	if len(used) != len(documents) {
		t.Errorf("goldens of %v alone", used)
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
