package report

import (
	"fmt"
	"slices"
	"testing"
)

// What holds of many rows is said once.
func TestRemarks(t *testing.T) {
	var m remarks
	for i := range 5 {
		m.add(fmt.Sprintf("row %d", i), "too few")
		m.add("row 0", "cold")
	}
	m.add("row 1", "cold")
	want := []string{"5 rows, row 0 to row 4: too few", "row 0: cold", "row 1: cold"}
	if got := m.sentences("rows"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
