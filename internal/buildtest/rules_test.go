package buildtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv"
)

// maxPreamble is how many lines of C may stand in a comment above import "C";
// longer C lies in a .c or .h file of the same package.
const maxPreamble = 10

// goFiles lists the repository's Go files, relative to its folder.
func goFiles(t *testing.T) (root string, files []string) {
	t.Helper()
	testenv.NeedTool(t, "git")
	root = checkout(t)
	cmd := exec.CommandContext(within(t, time.Minute), "git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.go")
	cmd.Dir = root
	for line := range strings.Lines(run(t, cmd)) {
		name := strings.TrimSpace(line)
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			files = append(files, name)
		}
	}
	if len(files) == 0 {
		t.Fatal("git lists no Go files")
	}
	return root, files
}

// cgoPreamble returns whether a Go file imports "C", and the lines of C in the
// comments between its package clause and that import.
func cgoPreamble(name string, src any) (uses bool, lines int, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return false, 0, err
	}
	i := slices.IndexFunc(f.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == `"C"` })
	if i < 0 {
		return false, 0, nil
	}
	for _, group := range f.Comments {
		if group.Pos() < f.Name.End() || group.End() > f.Imports[i].Pos() {
			continue
		}
		for line := range strings.Lines(group.Text()) {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "//") {
				lines++
			}
		}
	}
	return true, lines, nil
}

func TestCgoStaysInBindings(t *testing.T) {
	root, files := goFiles(t)
	found := 0
	for _, name := range files {
		uses, lines, err := cgoPreamble(filepath.Join(root, name), nil)
		if err != nil {
			t.Error(err)
			continue
		}
		if !uses {
			continue
		}
		found++
		if !strings.HasPrefix(path.Base(name), "bindings") && !strings.HasPrefix(name, "cgo/") {
			t.Errorf(`%s imports "C"; only bindings*.go and files under cgo/ may`, name)
		}
		if lines > maxPreamble {
			t.Errorf("%s has %d lines of C above its import, more than %d: move them to a .c or .h file", name, lines, maxPreamble)
		}
	}
	if found == 0 {
		t.Error(`no file imports "C": this test sees nothing`)
	}
}

func TestCgoPreamble(t *testing.T) {
	tests := map[string]struct {
		src   string
		uses  bool
		lines int
	}{
		"none":             {"package p\n\nimport \"fmt\"\n", false, 0},
		"includes only":    {"package p\n\n// #cgo LDFLAGS: -ldl\n// #include <a.h>\nimport \"C\"\n", true, 0},
		"a function":       {"package p\n\n/*\n#include <a.h>\nstatic int f(void) {\n\treturn 1;\n}\n*/\nimport \"C\"\n", true, 3},
		"package doc":      {"// Package p is long.\n// It says much.\npackage p\n\n// int x;\nimport \"C\"\n", true, 1},
		"a later comment":  {"package p\n\n// int x;\nimport \"C\"\n\n// F is not C.\n// Nor is this.\nfunc F() {}\n", true, 1},
		"the word in text": {"package p\n\n// import \"C\" is not here\nvar x = `import \"C\"`\n", false, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			uses, lines, err := cgoPreamble("p.go", tt.src)
			if err != nil || uses != tt.uses || lines != tt.lines {
				t.Errorf("got %v, %d lines, %v; want %v, %d lines", uses, lines, err, tt.uses, tt.lines)
			}
		})
	}
}

// TestSkipsAreDeclared holds that tests skip through testenv alone, which
// XFERBENCH_REQUIRE can turn into a failure.
func TestSkipsAreDeclared(t *testing.T) {
	root, files := goFiles(t)
	// Written in two parts, so that this file does not hold what it looks for.
	calls := []string{".Skip" + "(", ".Skipf" + "(", ".SkipNow" + "(", "testing.Short" + "("}
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "internal/testenv/") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls {
			if strings.Contains(string(content), call) {
				t.Errorf("%s calls %s: use testenv.Need or testenv.Declare", name, call)
			}
		}
	}
}

// What users get is position-independent: its code lies where no stranger
// knows.
func TestBuildsArePositionIndependent(t *testing.T) {
	root := checkout(t)
	for _, name := range []string{"Makefile", "scripts/dist.sh"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if (strings.Contains(line, "$(GO) build") || strings.Contains(line, "scripts/go build")) && !strings.Contains(line, "-buildmode=pie") {
				t.Errorf("%s builds without -buildmode=pie: %s", name, strings.TrimSpace(line))
			}
		}
	}
}
