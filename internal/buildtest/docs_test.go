package buildtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
)

// pages reads the repository's Markdown files but those under testdata, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	root := checkout(t)
	cmd := exec.CommandContext(within(t, time.Minute), "git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md", ":!*testdata*")
	cmd.Dir = root
	out := map[string]string{}
	for line := range strings.Lines(run(t, cmd)) {
		name := strings.TrimSpace(line)
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(content)
	}
	if len(out) < 15 {
		t.Fatalf("only %d pages", len(out))
	}
	return out
}

// prose is a page without its code blocks, line by line at the same numbers.
func prose(page string) []string {
	lines := strings.Split(page, "\n")
	fenced := false
	for i, line := range lines {
		fence := strings.HasPrefix(line, "```")
		if fence || fenced || strings.HasPrefix(line, "    ") {
			lines[i] = ""
		}
		fenced = fenced != fence
	}
	return lines
}

// anchor is the name that GitHub gives a heading.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Each link of a page to another file or heading of the repository leads somewhere.
func TestDocsLinks(t *testing.T) {
	root, all := checkout(t), pages(t)
	headings := func(name string) map[string]bool {
		found := map[string]bool{}
		for _, line := range prose(all[name]) {
			if text, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
				found[anchor(text)] = true
			}
		}
		return found
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	links := 0
	for name, page := range all {
		for i, line := range prose(page) {
			for _, m := range link.FindAllStringSubmatch(regexp.MustCompile("`[^`]*`").ReplaceAllString(line, "x"), -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				links++
				file, section, _ := strings.Cut(m[1], "#")
				target := name
				if file != "" {
					target = filepath.Join(filepath.Dir(name), file)
				}
				if _, err := os.Stat(filepath.Join(root, target)); err != nil {
					t.Errorf("%s:%d: %s leads nowhere", name, i+1, m[1])
				} else if section != "" && !headings(target)[section] {
					t.Errorf("%s:%d: %s has no heading #%s", name, i+1, target, section)
				}
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links: this test sees too little", links)
	}
}

// docs/README.md names every page beside it.
func TestDocsIndex(t *testing.T) {
	all := pages(t)
	for name := range all {
		if page, ok := strings.CutPrefix(name, "docs/"); ok && page != "README.md" && !strings.Contains(all["docs/README.md"], "("+page+")") {
			t.Errorf("docs/README.md does not name %s", page)
		}
	}
}

// literals are the texts of the program: the string constants of its Go files, joined
// where + joins them, and its shell scripts.
func literals(t *testing.T) string {
	t.Helper()
	root, files := goFiles(t)
	var all strings.Builder
	var text func(ast.Expr) (string, bool)
	text = func(e ast.Expr) (string, bool) {
		switch e := e.(type) {
		case *ast.BasicLit:
			s, err := strconv.Unquote(e.Value)
			return s, err == nil && e.Kind == token.STRING
		case *ast.BinaryExpr:
			x, okX := text(e.X)
			y, okY := text(e.Y)
			return x + y, e.Op == token.ADD && (okX || okY)
		}
		return "", false
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "tools/") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			s, ok := text(e)
			if ok {
				all.WriteString(s + "\n")
			}
			return !ok
		})
	}
	for _, pattern := range []string{"scripts/*.sh", "scripts/go"} {
		scripts, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, script := range scripts {
			content, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(strings.ReplaceAll(string(content), "\\`", "`"))
		}
	}
	return strings.Join(strings.Fields(all.String()), " ")
}

// Each message that docs/troubleshooting.md quotes is made of the program's own
// words: what lies between ellipses, punctuation, numbers and quoted values is a text
// of the program, or two of them side by side. Pieces of less than twelve bytes say
// too little to be looked for.
func TestTroubleshootingQuotes(t *testing.T) {
	texts := literals(t)
	// Words of the kernel and of the flag parser, and values of the examples.
	foreign := regexp.MustCompile(`too many open files|connection refused|address already in use|no space left on device|invalid argument|` +
		`FI_PROVIDER=shm hides tcp and net|add tcp and net to it|UCX_TLS=srd|438MB|438MiB|\bM\b`)
	cut := regexp.MustCompile("…|[:;,.()`]|\"[^\"]*\"|\\b[0-9][0-9,.]*( %)?")
	known := func(part string) bool {
		if strings.Contains(texts, part) {
			return true
		}
		for i, r := range part {
			if r == ' ' && strings.Contains(texts, part[:i]) && strings.Contains(texts, part[i+1:]) {
				return true
			}
		}
		return false
	}
	blocks := regexp.MustCompile("(?s)\n```\n(.*?)\n```\n").FindAllStringSubmatch(pages(t)["docs/troubleshooting.md"], -1)
	if len(blocks) < 30 {
		t.Fatalf("only %d messages", len(blocks))
	}
	for _, block := range blocks {
		message := strings.Join(strings.Fields(block[1]), " ")
		for _, part := range cut.Split(foreign.ReplaceAllString(message, "…"), -1) {
			if part = strings.TrimSpace(part); len(part) >= 12 && !known(part) {
				t.Errorf("no text of the program has %q, of the message\n%s", part, message)
			}
		}
	}
}

// maxCell is how many words a cell of a table holds at most; the rest of what is to
// be said is a sentence under the table.
const maxCell = 12

// cellWords counts the words of a cell: what white space parts, with a letter or a
// digit in it. Code between backticks and the target of a link are not words.
func cellWords(cell string) (n int) {
	for _, pattern := range []string{"`[^`]*`", `\]\([^)]*\)`} {
		cell = regexp.MustCompile(pattern).ReplaceAllString(cell, " ")
	}
	for word := range strings.FieldsSeq(cell) {
		if strings.ContainsFunc(word, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			n++
		}
	}
	return n
}

// A cell of a table is no essay.
func TestDocsTableCells(t *testing.T) {
	cells := 0
	for name, page := range pages(t) {
		if !strings.HasPrefix(name, "docs/") && strings.Contains(name, "/") {
			continue
		}
		for i, line := range prose(page) {
			if !strings.HasPrefix(line, "|") {
				continue
			}
			// A bar inside code, and one behind a backslash, do not end a cell.
			line = regexp.MustCompile("`[^`]*`").ReplaceAllString(line, "``")
			for cell := range strings.SplitSeq(strings.ReplaceAll(line, `\|`, "/"), "|") {
				cells++
				if n := cellWords(cell); n > maxCell {
					t.Errorf("%s:%d: a cell of %d words, more than %d:%s", name, i+1, n, maxCell, cell)
				}
			}
		}
	}
	if cells < 500 {
		t.Errorf("only %d cells: this test sees too little", cells)
	}
}

func TestCellWords(t *testing.T) {
	for cell, want := range map[string]int{
		"":                              0,
		" - | ":                         0,
		" the newest, 1,170 of them ":   5,
		" `a b c` and [d e](f.md#g-h) ": 3,
		" ± 2 %, or `KEY=VALUE` ":       2,
	} {
		if got := cellWords(cell); got != want {
			t.Errorf("%q: got %d words, want %d", cell, got, want)
		}
	}
}
