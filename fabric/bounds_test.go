package fabric

import (
	"errors"
	"testing"

	"github.com/xferbench/xferbench/cgo/loop"
)

// A user of this package alone cannot write beyond what was registered, here or at
// the peer.
func TestBounds(t *testing.T) {
	groups := started(t)
	const region = 1 << 20
	for p, in := range map[loop.Piece]bool{
		{Local: region - 8, Remote: region - 8, Len: 8}: true,
		{Local: 0, Remote: region - 7, Len: 8}:          false,
		{Local: region - 7, Remote: 0, Len: 8}:          false,
	} {
		plan, err := loop.NewPlan([]loop.Piece{p})
		if err != nil {
			t.Fatal(err)
		}
		defer plan.Free()
		plans := []*loop.Plan{plan}
		if in {
			if err := groups[1].Arm(t.Context(), loop.Write, plans, 1); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := groups[0].Transfer(t.Context(), loop.Write, plans, 1, 1); (err == nil) != in || !in && !errors.Is(err, loop.ErrOutside) {
			t.Errorf("%+v: %v", p, err)
		}
		if in {
			if _, err := groups[1].Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
