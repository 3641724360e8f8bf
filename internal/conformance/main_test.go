package conformance

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv"
)

// bin is the binary that all tests here run, built as a user builds it.
var bin string

// buildLimit bounds a compilation from nothing.
const buildLimit = 10 * time.Minute

func TestMain(m *testing.M) {
	code, err := func() (int, error) {
		// Below /tmp, which the Debian 13 folder shows at the same place.
		dir, err := os.MkdirTemp("/tmp", "xferbench-conformance")
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		if bin, err = build(filepath.Join(dir, "xferbench")); err != nil {
			return 1, err
		}
		// Most of the time here is spent waiting for deadlines of other processes.
		flag.Parse()
		if err := flag.Set("test.parallel", "4"); err != nil {
			return 1, err
		}
		code := m.Run()
		return code, matrix.print(os.Stdout)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// build compiles xferbench to path.
func build(path string, flags ...string) (string, error) {
	checkout, err := testenv.Checkout()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-o", path, "./cmd/xferbench")...)
	cmd.Dir = checkout
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the binary: %w\n%s", err, out)
	}
	return path, nil
}

// Outcomes of a cell.
const (
	passed = "ok"
	failed = "FAIL"
)

// outcomes are the filled cells of the matrix.
type outcomes struct {
	mu   sync.Mutex
	rows map[string]map[string]string // row label → "op shape" → passed, failed, or why not
}

var matrix = outcomes{rows: map[string]map[string]string{}}

func (o *outcomes) set(row, op, shape, outcome string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rows[row] == nil {
		o.rows[row] = map[string]string{}
	}
	o.rows[row][op+" "+shape] = outcome
}

// print writes the matrix, a line for each row that was run, and the reasons of
// its declared cells below. Nothing was run: nothing is written.
func (o *outcomes) print(w io.Writer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.rows) == 0 {
		return nil
	}
	var b strings.Builder
	var reasons []string
	fmt.Fprintf(&b, "conformance (m merged, f fragmented, c contiguous; a number is a declared skip)\n")
	fmt.Fprintf(&b, "%-28s", "provider, rails, libraries")
	for _, op := range ops {
		fmt.Fprintf(&b, " | %-14s", strings.ToUpper(op)+" m f c")
	}
	b.WriteString("\n")
	for _, label := range rowOrder(o.rows) {
		fmt.Fprintf(&b, "%-28s", label)
		for _, op := range ops {
			b.WriteString(" |")
			for _, shape := range shapes {
				word := cmp.Or(o.rows[label][op+" "+shape], "-")
				if word != passed && word != failed && word != "-" {
					i := slices.Index(reasons, word)
					if i < 0 {
						i, reasons = len(reasons), append(reasons, word)
					}
					word = fmt.Sprintf("[%d]", i+1)
				}
				fmt.Fprintf(&b, " %-4s", word)
			}
		}
		b.WriteString("\n")
	}
	for i, r := range reasons {
		fmt.Fprintf(&b, "[%d] %s\n", i+1, r)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// rowOrder sorts labels as the matrix lists its rows.
func rowOrder(rows map[string]map[string]string) []string {
	var labels []string
	for _, r := range allRows() {
		if _, ok := rows[r.label()]; ok {
			labels = append(labels, r.label())
		}
	}
	return labels
}

func TestMatrixIsPrinted(t *testing.T) {
	o := outcomes{rows: map[string]map[string]string{}}
	first, last := allRows()[0].label(), allRows()[len(allRows())-1].label()
	o.set(last, "read", "merged", failed)
	o.set(first, "read", "merged", passed)
	o.set(first, "send", "contiguous", "no such thing")
	var b strings.Builder
	if err := o.print(&b); err != nil {
		t.Fatal(err)
	}
	want := "conformance (m merged, f fragmented, c contiguous; a number is a declared skip)\n" +
		"provider, rails, libraries   | READ m f c     | WRITE m f c    | SEND m f c    \n" +
		fmt.Sprintf("%-28s | ok   -    -    | -    -    -    | -    -    [1] \n", first) +
		fmt.Sprintf("%-28s | FAIL -    -    | -    -    -    | -    -    -   \n", last) +
		"[1] no such thing\n"
	if b.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", b.String(), want)
	}
}
