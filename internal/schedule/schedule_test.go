package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xferbench/xferbench/internal/stats"
)

// script is a workload that takes time and writes down what it is asked for.
type script struct {
	first  []int
	slots  []Slot
	takes  time.Duration
	values func(Slot) []float64
	err    func(Slot) error
}

func (w *script) First(_ context.Context, c int) error { w.first = append(w.first, c); return nil }

func (w *script) Batch(_ context.Context, at Slot) ([]float64, error) {
	w.slots = append(w.slots, at)
	time.Sleep(w.takes)
	if w.err != nil {
		if err := w.err(at); err != nil {
			return nil, err
		}
	}
	if w.values != nil {
		return w.values(at), nil
	}
	return []float64{100}, nil
}

func (w *script) blocks() (n int) {
	for _, s := range w.slots {
		n = max(n, s.Block+1)
	}
	return n
}

func (s Schedule) run(t *testing.T, w *script) {
	t.Helper()
	if err := s.Run(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

// Each block has every condition once, in an order that the seed decides and that
// differs from block to block.
func TestOrder(t *testing.T) {
	var w, again, other, robin script
	s := Schedule{Conditions: 5, Blocks: 40, Seed: 7}
	s.run(t, &w)
	s.run(t, &again)
	s.Seed = 8
	s.run(t, &other)
	s.RoundRobin = true
	s.run(t, &robin)
	if !slices.Equal(w.slots, again.slots) || slices.Equal(w.slots, other.slots) {
		t.Error("the seed does not decide the order")
	}
	if !slices.Equal(w.first, []int{0, 1, 2, 3, 4}) {
		t.Errorf("first %v", w.first)
	}
	first := map[int]int{}
	for b := range 40 {
		block := w.slots[b*5 : b*5+5]
		seen := map[int]bool{}
		for place, at := range block {
			seen[at.Condition] = true
			if at.Block != b || at.Place != place {
				t.Fatalf("slot %d of block %d is %+v", place, b, at)
			}
		}
		if len(seen) != 5 {
			t.Fatalf("block %d has %v", b, block)
		}
		first[block[0].Condition]++
		if r := robin.slots[b*5 : b*5+5]; r[0].Condition != 0 || r[4].Condition != 4 {
			t.Fatalf("round robin: %v", r)
		}
	}
	for c := range 5 {
		if first[c] == 0 {
			t.Errorf("condition %d never comes first in 40 blocks: %v", c, first)
		}
	}
}

// A budget ends a run before the block that would outlast it, and not before the
// least number of blocks.
func TestBudget(t *testing.T) {
	for name, tt := range map[string]struct {
		s    Schedule
		want int
	}{
		"none":                    {Schedule{Blocks: 10, MinBlocks: 6}, 10},
		"enough for all":          {Schedule{Blocks: 10, MinBlocks: 6, Budget: time.Hour}, 10},
		"enough for eight":        {Schedule{Blocks: 10, MinBlocks: 6, Budget: 17 * time.Second}, 8},
		"not for the least":       {Schedule{Blocks: 10, MinBlocks: 6, Budget: time.Second}, 6},
		"as many as it is for":    {Schedule{MinBlocks: 1, Budget: 30 * time.Second}, 15},
		"of this start, not both": {Schedule{Blocks: 10, MinBlocks: 1, Budget: 7 * time.Second, Earlier: earlier(2, 4)}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := script{takes: time.Second}
				tt.s.Conditions = 2
				tt.s.run(t, &w)
				if got := w.blocks(); got != tt.want {
					t.Errorf("%d blocks, want %d", got, tt.want)
				}
			})
		})
	}
}

func earlier(conditions, blocks int) map[int]Past {
	out := map[int]Past{}
	for c := range conditions {
		p := Past{Count: map[int]int{}}
		for b := range blocks {
			p.Values = append(p.Values, stats.Sample{Block: b, Value: 100})
			p.Count[b]++
		}
		out[c] = p
	}
	return out
}

// A run that goes on has the batches that are missing, at the places that they
// would have had.
func TestSkips(t *testing.T) {
	var whole script
	s := Schedule{Conditions: 3, Blocks: 8, Seed: 3}
	s.run(t, &whole)
	for cut := range len(whole.slots) + 1 {
		s := s
		s.Earlier = map[int]Past{}
		for _, at := range whole.slots[:cut] {
			if s.Earlier[at.Condition].Count == nil {
				s.Earlier[at.Condition] = Past{Count: map[int]int{}}
			}
			s.Earlier[at.Condition].Count[at.Block]++
		}
		var rest script
		s.run(t, &rest)
		if !slices.Equal(append(slices.Clone(whole.slots[:cut]), rest.slots...), whole.slots) {
			t.Fatalf("cut after %d: goes on with %v", cut, rest.slots)
		}
	}
}

// Narrow intervals end a run; those of a reference are passed over, and values of
// an earlier start count.
func TestUntilCI(t *testing.T) {
	noisy := func(wide int) func(Slot) []float64 {
		return func(at Slot) []float64 {
			if at.Condition == wide {
				return []float64{100 + 50*float64(at.Block)}
			}
			return []float64{100 + float64(at.Block%3)/10}
		}
	}
	base := Schedule{Conditions: 2, Blocks: 30, MinBlocks: 6, UntilCI: 0.02}
	for name, tt := range map[string]struct {
		change func(*Schedule)
		wide   int // a condition that never gets narrow
		want   int
	}{
		"all narrow":         {func(*Schedule) {}, -1, 10}, // the rule's own least number
		"one wide":           {func(*Schedule) {}, 1, 30},
		"a reference, wide":  {func(s *Schedule) { s.Reference = func(c int) bool { return c == 1 } }, 1, 10},
		"wanted much of":     {func(s *Schedule) { s.MinBlocks = 20 }, -1, 20},
		"not asked for":      {func(s *Schedule) { s.UntilCI = 0 }, -1, 30},
		"known from earlier": {func(s *Schedule) { s.Earlier = earlier(2, 10) }, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := base
			tt.change(&s)
			w := script{values: noisy(tt.wide)}
			s.run(t, &w)
			if got := w.blocks(); got != tt.want {
				t.Errorf("%d blocks, want %d", got, tt.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	bad := errors.New("x")
	w := script{err: func(at Slot) error {
		if at.Block == 2 {
			return bad
		}
		return nil
	}}
	s := Schedule{Conditions: 2, Blocks: 5}
	if err := s.Run(t.Context(), &w); !errors.Is(err, bad) || w.blocks() != 3 {
		t.Errorf("%v after %d blocks", err, w.blocks())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(bad)
	if err := s.Run(ctx, &script{}); !errors.Is(err, bad) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		s := Schedule{Conditions: 2, Blocks: 3, MinBlocks: 1, Budget: 5 * time.Second, RoundRobin: true, Earlier: map[int]Past{0: {Count: map[int]int{0: 1}}},
			Progress: func(p Progress) {
				got = append(got, fmt.Sprintf("%d.%d %d/%d %v %v", p.Block, p.Condition, p.Done, p.Total, p.Elapsed, p.Left))
			}}
		s.run(t, &script{takes: time.Second})
		want := []string{"0.0 0/0 0s 0s", "0.1 0/0 0s 0s", // First
			"0.1 1/6 0s 0s", "1.0 2/6 1s 4s", "1.1 3/6 2s 3s", "2.0 4/6 3s 2s", "2.1 5/6 4s 1s"}
		if !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
	})
}

// A block that was cut off within is completed where the workload says what is
// whole.
func TestPerBlock(t *testing.T) {
	var w script
	s := Schedule{Conditions: 2, Blocks: 2, RoundRobin: true, PerBlock: func(c int) int { return 4 + c },
		Earlier: map[int]Past{0: {Count: map[int]int{0: 4, 1: 1}}, 1: {Count: map[int]int{0: 4}}}}
	s.run(t, &w)
	if want := []Slot{{1, 0, 1, 4}, {0, 1, 0, 1}, {1, 1, 1, 0}}; !slices.Equal(w.slots, want) {
		t.Errorf("%v, want %v", w.slots, want)
	}
}
