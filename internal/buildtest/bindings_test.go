package buildtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// neutral are the public packages whose texts are of use to any program.
var neutral = []string{"cuda", "fabric", "nvml", "ucx", "cgo/clock", "cgo/copier", "cgo/dl", "cgo/gate", "cgo/loop", "cgo/mem"}

var (
	// flagWord is a flag of a command line; one of docker's is none of this program's.
	flagWord = regexp.MustCompile(`(?:^|[^\w-])--[a-z][\w-]*`)
	foreign  = regexp.MustCompile(`docker --[a-z]+`)
	// ownWord is a word that this program alone gives a meaning.
	ownWord = regexp.MustCompile(`\bucx:[a-z]|\bfabric:[A-Z]`)
)

// What a binding says names nothing of this program's command line: package transport
// adds that.
func TestBindingsAreNeutral(t *testing.T) {
	root := checkout(t)
	texts := 0
	for _, dir := range neutral {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", dir, files, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				texts++
				if s = foreign.ReplaceAllString(s, ""); flagWord.MatchString(s) || ownWord.MatchString(s) {
					t.Errorf("%s: %q is of this program's command line", file, s)
				}
				return true
			})
		}
	}
	if texts < 100 {
		t.Errorf("only %d texts were looked at", texts)
	}
	for s, want := range map[string]bool{"use --op read": true, "--libucp": true, "docker --ulimit": false, "a--b": false, "name cuda_copy: ucx:tcp": true,
		"fabric:NAME": true, "fabric: it is closed": false} {
		s = foreign.ReplaceAllString(s, "")
		if got := flagWord.MatchString(s) || ownWord.MatchString(s); got != want {
			t.Errorf("%q is of this program's command line: %v", s, got)
		}
	}
}

// What only tests use is not part of the program.
func TestProductHasNoTestPackages(t *testing.T) {
	list := exec.CommandContext(within(t, time.Minute), "go", "list", "-deps", "./cmd/...")
	list.Dir = checkout(t)
	const module = "github.com/xferbench/xferbench/"
	seen := 0
	for line := range strings.Lines(run(t, list)) {
		name, ours := strings.CutPrefix(strings.TrimSpace(line), module)
		if !ours {
			continue
		}
		seen++
		if strings.HasSuffix(name, "test") || strings.Contains(name+"/", "/testenv/") {
			t.Errorf("the program imports %s", name)
		}
	}
	if seen < 20 {
		t.Errorf("only %d packages of the program were listed", seen)
	}
}
