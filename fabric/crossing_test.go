package fabric

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
)

// started is the groups of an initiator and a target of one lane each, over tcp.
func started(t *testing.T) (groups [2]*loop.Group) {
	t.Helper()
	from, to := local(t, "tcp", 256)
	for i, e := range []*Endpoint{from, to} {
		g, err := loop.NewGroup([]loop.Lane{e.Lane()}, loop.Config{Poll: loop.Yield, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
		groups[i] = g
	}
	return groups
}

// A transfer crosses from Go to C as often for 14,000 descriptors as for one.
func TestCrossingsDoNotGrowWithDescriptors(t *testing.T) {
	groups := started(t)
	crossings := func(n int) int64 {
		plan, err := loop.NewPlan(slices.Repeat([]loop.Piece{{Len: 8}}, n))
		if err != nil {
			t.Fatal(err)
		}
		defer plan.Free()
		plans := []*loop.Plan{plan}
		if err := groups[1].Arm(t.Context(), loop.Write, plans, 1); err != nil {
			t.Fatal(err)
		}
		before := runtime.NumCgoCall()
		ss, err := groups[0].Transfer(t.Context(), loop.Write, plans, 1, 256)
		after := runtime.NumCgoCall()
		if err != nil || len(ss) != 1 || ss[0].Ops != uint64(n) {
			t.Fatalf("%d pieces: %v, %v", n, ss, err)
		}
		if _, err := groups[1].Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		return after - before
	}
	crossings(1) // makes room for the results
	one, many := crossings(1), crossings(14000)
	if one < 1 || many != one {
		t.Errorf("%d crossings for 14,000 descriptors, %d for one", many, one)
	}
}
