package buildtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Public packages that bind a library, with what its functions' names look like.
// Their documentation says which function does what: "Wraps: fi_getinfo(3)."
var wrapping = []struct{ dir, names string }{
	{"fabric", `fi_[a-z0-9_]+`},
	{"ucx", `(?:ucp|ucs|uct)_[a-z0-9_]+`},
}

// notCode is what is not code in a C file: comments and strings.
var notCode = regexp.MustCompile(`(?s)/\*.*?\*/|"(?:[^"\\\n]|\\.)*"`)

// version is what a library appends to the name of a function that it changed.
var version = regexp.MustCompile(`_v\d+$`)

// wrapped reads a package: the library's functions that it looks up at run time (the
// keys of its tables, "ucp_init_version", "ucs_log_flush?" where it may be missing)
// or calls in C, and those that its comments name.
func wrapped(dir, names string) (called, named map[string]bool, err error) {
	called, named = map[string]bool{}, map[string]bool{}
	word := regexp.MustCompile(`\b` + names + `\b`)
	key := regexp.MustCompile(`^(` + names + `)\??$`)
	call := regexp.MustCompile(`(?:^|[^\w.>])(` + names + `)\(`)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		switch filepath.Ext(file) {
		case ".c":
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, nil, err
			}
			for _, m := range call.FindAllStringSubmatch(notCode.ReplaceAllString(string(b), " "), -1) {
				called[version.ReplaceAllString(m[1], "")] = true
			}
		case ".go":
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				return nil, nil, err
			}
			for _, c := range f.Comments {
				for _, n := range word.FindAllString(c.Text(), -1) {
					named[version.ReplaceAllString(n, "")] = true
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				kv, ok := n.(*ast.KeyValueExpr)
				if !ok {
					return true
				}
				lit, ok := kv.Key.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				if s, err := strconv.Unquote(lit.Value); err == nil {
					if m := key.FindStringSubmatch(s); m != nil {
						called[version.ReplaceAllString(m[1], "")] = true
					}
				}
				return true
			})
		}
	}
	return called, named, nil
}

func TestWrapsAreNamed(t *testing.T) {
	root := checkout(t)
	for _, p := range wrapping {
		t.Run(p.dir, func(t *testing.T) {
			called, named, err := wrapped(filepath.Join(root, p.dir), p.names)
			if err != nil {
				t.Fatal(err)
			}
			if len(called) < 15 {
				t.Errorf("only %d functions found: %v", len(called), slices.Sorted(maps.Keys(called)))
			}
			for _, f := range slices.Sorted(maps.Keys(called)) {
				if !named[f] {
					t.Errorf("%s is called, and no comment of a Go file names it", f)
				}
			}
		})
	}
}

func TestWrapped(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.go":      "package a\n\n// F does it. Wraps: lib_open, lib_two.\nfunc F() {}\n\nvar t = map[string]int{\"lib_open_v2\": 1, \"lib_maybe?\": 2, \"other\": 3}\n",
		"a_test.go": "package a\n\nvar u = map[string]int{\"lib_test\": 1}\n",
		"a.c":       "int f(void) { return lib_two(1) + u->lib_field(2) + xlib_three(3) +\nlib_four (4) + lib_five(5); }\n/* lib_six(6)\n */ char *s = \"a \\\"lib_seven(7)\";\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	called, named, err := wrapped(dir, `lib_\w+`)
	got := fmt.Sprint(slices.Sorted(maps.Keys(called)), slices.Sorted(maps.Keys(named)), err)
	if want := "[lib_five lib_maybe lib_open lib_two] [lib_open lib_two] <nil>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
