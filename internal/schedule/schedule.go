// Package schedule repeats the conditions of a workload in randomised blocks: in
// which order, how often, until when, and which of it an earlier start has done.
// Every workload runs by it.
package schedule

import (
	"context"
	"time"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/stats"
)

// Workload is what is repeated.
type Workload interface {
	// First runs what precedes the blocks of a condition, such as a warm-up.
	First(ctx context.Context, condition int) error
	// Batch runs a condition's share of one block. It returns what it measured, in
	// ns, for the rules that end a run.
	Batch(ctx context.Context, at Slot) ([]float64, error)
}

// Slot is a condition's place in a run: Place is the position in its block. Have is
// how much of it an earlier start has measured.
type Slot struct{ Condition, Block, Place, Have int }

// Past is what an earlier start has measured of a condition.
type Past struct {
	// Values are the times, in ns, of what counts.
	Values []stats.Sample `json:"values,omitempty"`
	// Count is how many transfers or requests there are in each block, whether or
	// not they count.
	Count map[int]int `json:"count,omitempty"`
	// Sent counts all of them, also those before the blocks.
	Sent int `json:"sent,omitempty"`
}

// Schedule says how often conditions run, and in which order. Each block runs
// every condition once.
type Schedule struct {
	Conditions int
	Seed       uint64 // of the order
	// RoundRobin keeps the conditions in order, for debugging an order effect.
	RoundRobin bool
	Blocks     int           // wanted; 0: until Budget is over
	MinBlocks  int           // run even when Budget is over
	Budget     time.Duration // for all blocks of this start; 0: none
	// UntilCI ends the run after a block in which the 95% interval of every
	// condition's median is within this share of it, which is asked once MinBlocks
	// are done; 0: not used. It looks at widths alone.
	UntilCI float64
	// Reference, when set, names the conditions that UntilCI passes over.
	Reference func(condition int) bool
	// Earlier is what an earlier start measured, by condition.
	Earlier map[int]Past
	// PerBlock, when set, is how many transfers or requests a block of a condition
	// has: one that has fewer is completed. Else one that has any is whole.
	PerBlock func(condition int) int
	// Progress, when set, is told before each batch, never within one.
	Progress func(Progress)
}

// CheckDesign reports, as an error of kind Usage, what no workload can run. The
// design is completed.
func CheckDesign(d spec.Design) error {
	switch {
	case *d.MinBlocks < 1 || *d.MinBlocks > *d.Blocks:
		return fault.Usagef("--min-blocks %d: want 1 to --blocks (%d)", *d.MinBlocks, *d.Blocks)
	case d.Launches < 1 || d.Launches > maxLaunches:
		return fault.Usagef("--launches %d: want 1 to %d", d.Launches, maxLaunches)
	case d.UntilCI < 0 || d.UntilCI >= 1:
		return fault.Usagef("--until-ci %v%%: want a percentage from 0%% (not used) to below 100%%", float64(d.UntilCI)*100)
	}
	return nil
}

// maxLaunches is far above what anybody waits for.
const maxLaunches = 1000

// Progress is where a run stands.
type Progress struct {
	Condition, Block int
	Blocks           int // 0: until the budget is over
	Done, Total      int // batches, also those of an earlier start; Total 0: not known
	Elapsed          time.Duration
	Left             time.Duration // estimate; 0: not known
}

// Run runs every condition's First and then the blocks. It ends with the first
// error of the workload or of ctx.
func (s *Schedule) Run(ctx context.Context, w Workload) error {
	for c := range s.Conditions {
		s.tell(Progress{Condition: c})
		if err := w.First(ctx, c); err != nil {
			return err
		}
	}
	return s.blocks(ctx, w)
}

func (s *Schedule) blocks(ctx context.Context, w Workload) error {
	values := map[int][]stats.Sample{}
	for c, p := range s.Earlier {
		values[c] = append(values[c], p.Values...)
	}
	began := time.Now()
	ran, batches := 0, 0 // of this start
	for b := 0; s.Blocks == 0 || b < s.Blocks; b++ {
		todo := s.todo(b)
		for _, at := range todo {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			s.before(at, batches, time.Since(began))
			got, err := w.Batch(ctx, at)
			if err != nil {
				return err
			}
			batches++
			for _, v := range got {
				values[at.Condition] = append(values[at.Condition], stats.Sample{Block: b, Value: v})
			}
		}
		if len(todo) > 0 {
			ran++
		}
		if b+1 >= s.MinBlocks && (s.over(time.Since(began), ran) || s.narrow(values)) {
			return nil
		}
	}
	return nil
}

// todo is block b in its order, without what an earlier start has done.
func (s *Schedule) todo(b int) (out []Slot) {
	order := stats.Order(s.Seed, b, s.Conditions)
	for place := range s.Conditions {
		c := place
		if !s.RoundRobin {
			c = order[place]
		}
		want, have := 1, s.Earlier[c].Count[b]
		if s.PerBlock != nil {
			want = s.PerBlock(c)
		}
		if have < want {
			out = append(out, Slot{c, b, place, have})
		}
	}
	return out
}

// over reports whether the next block, which takes about as long as the mean one
// of this start, would end after the budget.
func (s *Schedule) over(spent time.Duration, ran int) bool {
	if s.Budget <= 0 {
		return false
	}
	if ran == 0 {
		return false // an earlier start did all of it
	}
	return spent+spent/time.Duration(ran) > s.Budget
}

// narrow reports whether every interval is within UntilCI.
func (s *Schedule) narrow(values map[int][]stats.Sample) bool {
	if s.UntilCI == 0 {
		return false
	}
	for c := range s.Conditions {
		if s.Reference != nil && s.Reference(c) {
			continue
		}
		units, err := stats.BlockMedians(values[c])
		if err != nil {
			return false // no value yet
		}
		w, err := stats.UntilWidth(stats.Values(units), s.UntilCI, stats.Options{Seed: s.Seed})
		if err != nil || !w.Reached {
			return false
		}
	}
	return true
}

// before tells how far the run is before the batch at, the n-th of this start.
func (s *Schedule) before(at Slot, n int, spent time.Duration) {
	p := Progress{Condition: at.Condition, Block: at.Block, Blocks: s.Blocks, Elapsed: spent,
		Done: at.Block*s.Conditions + at.Place, Total: s.Blocks * s.Conditions}
	if n > 0 && p.Total > 0 {
		p.Left = spent / time.Duration(n) * time.Duration(p.Total-p.Done)
	}
	if s.Budget > 0 && at.Block >= s.MinBlocks && (p.Left == 0 || p.Left > s.Budget-spent) {
		p.Left = max(0, s.Budget-spent)
	}
	s.tell(p)
}

func (s *Schedule) tell(p Progress) {
	if s.Progress != nil {
		s.Progress(p)
	}
}
