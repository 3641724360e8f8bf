package main

import (
	"context"

	"github.com/xferbench/xferbench/internal/stats"
)

// figure runs a tool once and gives its figure.
type figure func(context.Context) (float64, error)

// contest is a row of two tools at the same work.
type contest struct {
	work, peer, unit string
	goal             bound
	ours, theirs     figure
	note             string
}

func (c contest) names() (string, string) { return c.work, c.peer }

// run measures the two in turn, each pair in the other order than the last.
func (c contest) run(ctx context.Context, pairs int) (result, error) {
	var ours, theirs []float64
	for i := range pairs {
		order := []figure{c.ours, c.theirs}
		into := []*[]float64{&ours, &theirs}
		if i%2 == 1 {
			order[0], order[1], into[0], into[1] = order[1], order[0], into[1], into[0]
		}
		for j, f := range order {
			x, err := f(ctx)
			if err != nil {
				return result{}, err
			}
			*into[j] = append(*into[j], x)
		}
	}
	r := result{work: c.work, peer: c.peer, unit: c.unit, goal: c.goal, note: c.note}
	return r, r.compare(ours, theirs)
}

// compare fills in the figures of two tools measured in pairs.
func (r *result) compare(ours, theirs []float64) error {
	v, err := stats.ComparePaired(theirs, ours, stats.Options{}) // ratio: ours over theirs
	if err != nil {
		return err
	}
	r.ratio = v.Ratio
	if v.Interval != nil {
		r.lo, r.hi = v.Interval.Lo, v.Interval.Hi
	}
	if r.ours, err = stats.Median(ours); err != nil {
		return err
	}
	r.theirs, err = stats.Median(theirs)
	return err
}

// alone is a row of xferbench's own figure: the median of runs, or one.
type alone struct {
	work, unit string
	goal       bound
	once       bool
	f          func(context.Context) (x float64, note string, err error)
}

func (a alone) names() (string, string) { return a.work, "-" }

func (a alone) run(ctx context.Context, runs int) (result, error) {
	r := result{work: a.work, peer: "-", unit: a.unit, goal: a.goal}
	if a.once {
		runs = 1
	}
	var xs []float64
	for range runs {
		x, note, err := a.f(ctx)
		if err != nil {
			return r, err
		}
		xs, r.note = append(xs, x), note
	}
	var err error
	r.ours, err = stats.Median(xs)
	return r, err
}
