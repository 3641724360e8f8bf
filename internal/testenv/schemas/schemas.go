// Package schemas makes JSON Schemas (draft 2020-12) of Go types for the tests that
// hold docs/schema to the code, and validates documents by them.
package schemas

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Maker makes the schemas of types. Keys, types and what may be absent are those that
// encoding/json writes; descriptions are the comments in the source.
type Maker struct {
	// Dirs are the folders of the packages whose comments are taken.
	Dirs []string
	// Union says of a field of type any or []any, as "Type.Field", what it holds.
	Union map[string][]reflect.Type
	// NullLists is the path of a package whose lists and maps may be null where they have
	// nothing in them.
	NullLists string

	defs     map[string]any
	types    map[string]reflect.Type // by the name in defs
	comments map[string]string       // of "Type" and "Type.Field"
}

// Schema is the schema of t with a title and a description.
func (m *Maker) Schema(title, about string, t reflect.Type) (map[string]any, error) {
	return m.schema(title, about, func() map[string]any { return m.of(t) })
}

// Lines is the schema of a line that is one of several types, told apart by the name
// at its key "type"; a line of another type may hold anything.
func (m *Maker) Lines(title, about string, lines map[string]reflect.Type) (map[string]any, error) {
	return m.schema(title, about, func() map[string]any {
		var each []any
		for _, name := range sortedKeys(lines) {
			is := map[string]any{"properties": map[string]any{"type": map[string]any{"const": name}}}
			each = append(each, map[string]any{"if": is, "then": m.of(lines[name])})
			def := m.defs[m.name(lines[name])].(map[string]any)
			def["properties"].(map[string]any)["type"] = map[string]any{"const": name}
			def["required"] = append([]string{"type"}, def["required"].([]string)...)
		}
		return map[string]any{"type": "object", "required": []string{"type"}, "allOf": each}
	})
}

func (m *Maker) schema(title, about string, root func() map[string]any) (map[string]any, error) {
	m.defs, m.types, m.comments = map[string]any{}, map[string]reflect.Type{}, map[string]string{}
	for _, dir := range m.Dirs {
		if err := m.read(dir); err != nil {
			return nil, err
		}
	}
	s := root()
	s["$schema"], s["title"], s["description"], s["$defs"] = "https://json-schema.org/draft/2020-12/schema", title, about, m.defs
	return s, nil
}

// read takes the comments of a package's types and fields.
func (m *Maker) read(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			gen, is := d.(*ast.GenDecl)
			if !is || gen.Tok != token.TYPE {
				continue
			}
			for _, s := range gen.Specs {
				t := s.(*ast.TypeSpec)
				doc := t.Doc
				if doc == nil && !gen.Lparen.IsValid() {
					doc = gen.Doc
				}
				m.comments[t.Name.Name] = words(doc.Text())
				m.fields(t)
			}
		}
	}
	return nil
}

func (m *Maker) fields(t *ast.TypeSpec) {
	s, is := t.Type.(*ast.StructType)
	if !is {
		return
	}
	for _, f := range s.Fields.List {
		text := words(f.Doc.Text() + " " + f.Comment.Text())
		for _, n := range f.Names {
			m.comments[t.Name.Name+"."+n.Name] = text
		}
	}
}

func words(s string) string { return strings.Join(strings.Fields(s), " ") }

// name is what a type is called among the definitions: types of the program's own JSON
// begin with "json" in Go.
func (m *Maker) name(t reflect.Type) string {
	n := strings.TrimPrefix(t.Name(), "json")
	if other, taken := m.types[n]; taken && other != t {
		n = filepath.Base(t.PkgPath()) + "." + n
	}
	return n
}

// of is the schema of a value of type t.
func (m *Maker) of(t reflect.Type) map[string]any {
	switch t.Kind() {
	case reflect.Pointer:
		return m.of(t.Elem())
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int64, reflect.Int32:
		return map[string]any{"type": "integer"}
	case reflect.Uint, reflect.Uint64, reflect.Uint32:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": m.of(t.Elem())}
	case reflect.Slice:
		if t == reflect.TypeFor[json.RawMessage]() {
			return map[string]any{}
		}
		return map[string]any{"type": "array", "items": m.nullable(t.Elem())}
	case reflect.Struct:
		return m.ref(t)
	}
	panic(fmt.Sprintf("schemas: a value of type %v", t)) // a test's programming error
}

// nullable is the schema of what may be a nil pointer.
func (m *Maker) nullable(t reflect.Type) map[string]any {
	if t.Kind() != reflect.Pointer {
		return m.of(t)
	}
	return orNull(m.of(t))
}

func orNull(s map[string]any) map[string]any {
	if name, plain := s["type"].(string); plain {
		s["type"] = []string{name, "null"}
		return s
	}
	return map[string]any{"anyOf": []any{s, map[string]any{"type": "null"}}}
}

// ref refers to the definition of a struct.
func (m *Maker) ref(t reflect.Type) map[string]any {
	name := m.name(t)
	ref := map[string]any{"$ref": "#/$defs/" + name}
	if m.types[name] == t {
		return ref
	}
	m.types[name] = t
	properties, required := map[string]any{}, []string{}
	def := map[string]any{"type": "object", "properties": properties}
	m.defs[name] = def
	if c := m.comments[t.Name()]; c != "" {
		def["description"] = c
	}
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "-" || !f.IsExported() {
			continue
		}
		if key == "" {
			panic(fmt.Sprintf("schemas: %v.%s has no key", t, f.Name))
		}
		s := m.field(t, f)
		optional := strings.Contains(options, "omit")
		kind := f.Type.Kind()
		list := (kind == reflect.Slice || kind == reflect.Map) && t.PkgPath() == m.NullLists
		if !optional && (kind == reflect.Pointer || list) {
			s = orNull(s)
		}
		if c := m.comments[t.Name()+"."+f.Name]; c != "" {
			s["description"] = c
		}
		if properties[key] = s; !optional {
			required = append(required, key)
		}
	}
	def["required"] = required
	return ref
}

func (m *Maker) field(t reflect.Type, f reflect.StructField) map[string]any {
	union, is := m.Union[t.Name()+"."+f.Name]
	if !is {
		return m.of(f.Type)
	}
	var either []any
	for _, u := range union {
		either = append(either, m.of(u))
	}
	if f.Type.Kind() == reflect.Slice {
		return map[string]any{"type": "array", "items": map[string]any{"anyOf": either}}
	}
	return map[string]any{"anyOf": either}
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Golden holds that the file at path is schema; with -update it is made so.
func Golden(t *testing.T, path string, schema map[string]any) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if u := flag.Lookup("update"); u != nil && u.Value.String() == "true" {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s is not what the types say; go test . -run Schema -update", path)
	}
}

// Validator validates JSON documents.
type Validator struct{ s *jsonschema.Schema }

// Open reads the schema at path. strict refuses keys that it does not have, which the
// schema itself allows: within a version keys may be added.
func Open(t *testing.T, path string, strict bool) *Validator {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if strict {
		for _, def := range doc.(map[string]any)["$defs"].(map[string]any) {
			def.(map[string]any)["additionalProperties"] = false
		}
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return &Validator{s}
}

// Check is the error of a document that the schema does not allow.
func (v *Validator) Check(text []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return v.s.Validate(doc)
}
