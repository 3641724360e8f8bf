package main

import (
	"strings"
	"testing"
	"time"
)

// Each kind of fault fails the whole, and the line of its row says so.
func TestTableCountsFaults(t *testing.T) {
	for name, spoil := range map[string]func(*row){
		"hung":   func(r *row) { r.hung++ },
		"code":   func(r *row) { r.code++ },
		"record": func(r *row) { r.record++ },
		"left":   func(r *row) { r.left++ },
		"other":  func(r *row) { r.fault("seen") },
	} {
		var tb table
		r := tb.row("kill target, tcp")
		r.cases, r.codes[3], r.slowest = 2, 2, 1500*time.Millisecond
		var out strings.Builder
		if !tb.print(&out) || !strings.Contains(out.String(), "2 cases, 0 faults") || !strings.Contains(out.String(), "1.5") {
			t.Errorf("%s: without a fault:\n%s", name, out.String())
		}
		spoil(r)
		out.Reset()
		if tb.print(&out) || !strings.Contains(out.String(), "2 cases, 1 faults") {
			t.Errorf("%s: with a fault:\n%s", name, out.String())
		}
	}
}
