package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is what a phase counted over its cases.
type row struct {
	name    string
	cases   int
	hung    int
	code    int // a wrong exit code
	record  int // without its end, or not readable
	left    int // processes or files
	slowest time.Duration
	codes   map[int]int // exit code: how often
	note    string      // a figure of its own
	faults  int         // beyond those counted above
}

func (r *row) bad() int { return r.hung + r.code + r.record + r.left + r.faults }

// fault counts one that has no column and says what it was.
func (r *row) fault(format string, args ...any) {
	r.faults++
	r.say(format, args...)
}

// say names a fault at once: the table has only its count.
func (r *row) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "soak: FAULT: %s: %s\n", r.name, fmt.Sprintf(format, args...))
}

type table struct{ rows []*row }

func (t *table) row(name string) *row {
	r := &row{name: name, codes: map[int]int{}}
	t.rows = append(t.rows, r)
	return r
}

// print writes the table and the verdict, and reports whether nothing was wrong.
func (t *table) print(w io.Writer) bool {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "what\tcases\thung\twrong code\trecord\tleft\tother\tslowest s\texit codes, figures")
	cases, bad := 0, 0
	for _, r := range t.rows {
		var codes []string
		keys := make([]int, 0, len(r.codes))
		for c := range r.codes {
			keys = append(keys, c)
		}
		slices.Sort(keys)
		for _, c := range keys {
			codes = append(codes, fmt.Sprintf("%d: %d", c, r.codes[c]))
		}
		if r.note != "" {
			codes = append(codes, r.note)
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f\t%s\n", r.name, r.cases, r.hung, r.code, r.record, r.left, r.faults,
			r.slowest.Seconds(), strings.Join(codes, ", "))
		cases, bad = cases+r.cases, bad+r.bad()
	}
	if err := tw.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		return false
	}
	fmt.Fprintf(w, "%d cases, %d faults\n", cases, bad)
	return bad == 0
}
