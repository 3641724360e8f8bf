package record

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv/schemas"
)

var _ = flag.Bool("update", false, "rewrite docs/schema/record.schema.json")

const schemaFile = "../../docs/schema/record.schema.json"

// The schema is what the types of the lines say.
func TestSchemaIsOfTheTypes(t *testing.T) {
	types := map[string]reflect.Type{}
	for _, l := range lines() {
		types[l.lineType()] = reflect.TypeOf(l)
	}
	m := schemas.Maker{Dirs: []string{"."}, NullLists: reflect.TypeFor[Run]().PkgPath()}
	s, err := m.Lines("A line of a record of xferbench, schema 2",
		"A record is JSON Lines: each of its lines is one of these. Lines of other types, and other keys, are of a later version and to be passed over; "+
			"a record that an earlier build wrote may lack keys that were added since. See docs/record.md.", types)
	if err != nil {
		t.Fatal(err)
	}
	schemas.Golden(t, schemaFile, s)
}

// Every record of schema 2 in testdata, and every line of these tests, has what the
// schema says and no key more.
func TestRecordsHaveTheSchema(t *testing.T) {
	v := schemas.Open(t, schemaFile, true)
	files, err := filepath.Glob("../../testdata/records/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../testdata/records/compare/*.jsonl")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d records, %v", len(files), err)
	}
	for _, f := range append(files, more...) {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range bytes.Lines(b) {
			if n++; n > 60 && !bytes.Contains(line, []byte(`"type":"end"`)) {
				continue // the rest are alike
			}
			if err := v.Check(line); err != nil {
				t.Errorf("%s: line %d: %v", f, n, err)
			}
		}
	}
	for _, l := range lines() {
		b, err := Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Check(b); err != nil {
			t.Errorf("%s: %v", l.lineType(), err)
		}
	}
}

// What is not of the schema is refused, and keys of a later version are not.
func TestSchemaRefuses(t *testing.T) {
	strict, open := schemas.Open(t, schemaFile, true), schemas.Open(t, schemaFile, false)
	b, err := Marshal(Event{Level: Info, Message: "x"})
	if err != nil {
		t.Fatal(err)
	}
	later := bytes.Replace(b, []byte(`"level"`), []byte(`"new":1,"level"`), 1)
	if strict.Check(later) == nil || open.Check(later) != nil {
		t.Error("a key of a later version is for the strict schema alone to refuse")
	}
	for _, bad := range []string{`{}`, `[]`, `{"type":"event"}`, `{"type":"event","time_ns":"1","level":"info","message":"x"}`, `{"type":"event","time_ns":1.5,"level":"info","message":"x"}`} {
		if open.Check([]byte(bad)) == nil {
			t.Errorf("%s has the schema", bad)
		}
	}
}
