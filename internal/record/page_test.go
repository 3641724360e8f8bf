package record

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// keys are the JSON keys of a type and of what it holds.
func keys(t reflect.Type, out map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		keys(t.Elem(), out)
	case reflect.Struct:
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			out[name] = true
			keys(f.Type, out)
		}
	}
}

// The page of the record has every line type, and every key in the section of its type.
func TestPageNamesEveryKey(t *testing.T) {
	b, err := os.ReadFile("../../docs/record.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split(string(b), "\n### ")[1:] {
		name, text, _ := strings.Cut(s, "\n")
		sections[strings.Trim(name, "`")] = text
	}
	for _, l := range lines() {
		text, ok := sections[l.lineType()]
		if !ok {
			t.Errorf("no section of %s", l.lineType())
		}
		want := map[string]bool{}
		keys(reflect.TypeOf(l), want)
		for k := range want {
			if !strings.Contains(text, "`"+k+"`") {
				t.Errorf("the section of %s does not have %s", l.lineType(), k)
			}
		}
		delete(sections, l.lineType())
	}
	for name := range sections {
		t.Errorf("a section of %s, which is not a line type", name)
	}
}
