package stats

import (
	"fmt"
	"math"
	"slices"
)

// Class says how a series of iterations behaves over time.
type Class int

const (
	// Unclassified: too short to tell.
	Unclassified Class = iota
	// Flat: all segments are equivalent.
	Flat
	// WarmUp: the steady state is the fastest level.
	WarmUp
	// Slowdown: some earlier level was faster than the steady state.
	Slowdown
	// NoSteadyState: the level still changes in the last quarter.
	NoSteadyState
	// Excursions: one level but for stretches of slow iterations.
	Excursions
)

// String returns the class as reports print it.
func (c Class) String() string {
	switch c {
	case Flat:
		return "flat"
	case WarmUp:
		return "warm-up"
	case Slowdown:
		return "slowdown"
	case NoSteadyState:
		return "no steady state"
	case Excursions:
		return "excursion"
	default:
		return "unclassified"
	}
}

// Segment is a stretch of the series between change points.
type Segment struct {
	// Start and End are iterations of the original series, End exclusive.
	Start, End int
	// Mean and SD are those of the segment without outliers.
	Mean, SD float64
}

// Transition is a change between segments that are not equivalent, or the change into
// the steady state, whose segments are equivalent to the last one.
type Transition struct {
	// Iteration is the first of the new level, counted from 0.
	Iteration     int
	Before, After float64
}

// Steady is the result of [Classify].
type Steady struct {
	Class    Class
	Segments []Segment
	// Transitions are the changes of level that matter, in time order; a change
	// point between equivalent segments is not among them.
	Transitions []Transition
	// Excursions are in time order, for that class.
	Excursions []Excursion
	// Start is the first iteration of the steady state: 0 when flat or but for
	// excursions, and the
	// start of the last level, which is not steady, for NoSteadyState.
	Start int
	// Outliers are the iterations left out of the search for change points and
	// of the segments' means. They stay in every other statistic.
	Outliers []int
	// MSER5 is what the cross-check would drop from the front, -1 if the series
	// is too short for it.
	MSER5    int
	Warnings []Warning
}

const (
	minClassify   = 20   // values; below, 25 % is less than one minimum segment
	outlierWindow = 200  // samples, Barrett et al.
	relativeBand  = 0.01 // of the final level
	searchMost    = 4096 // values that the search for change points is given
)

// Classify finds the levels of a series of times in time order and names its
// class after Barrett et al. (OOPSLA'17, §4.3), with their outlier filter, PELT
// settings and classes, scaled where theirs fit only their 2,000 iterations
// of about a second:
//
//   - outliers lie outside median ± 3·(P90-P10) of a window of up to 200
//     iterations around them. A run of [MinSegment] or more of them is a level
//     and stays (in a short series a whole warm-up would be filtered otherwise).
//   - change points: [PELT], mean and variance, penalty 15·ln n.
//   - a segment is equivalent to the final one when its mean lies within
//     the larger of one standard deviation of the final segment and 1 % of its
//     mean. (Theirs: the larger of its variance and 1 ms, which has two units
//     and is longer than our whole transfers.)
//   - excursion, which they do not have: the first segment is equivalent too, and
//     none of those between is faster. Where no change of level is found,
//     stretches of slow values are looked for apart, by ranks.
//   - no steady state: a change of level in the last 25 % (their 500 of 2,000).
//   - otherwise the steady state is the trailing run of equivalent segments: flat
//     if it is all, slowdown if any earlier segment was faster, else warm-up.
//
// Of a series longer than searchMost, means of so many neighbours are searched that
// fewer are left: the search takes quadratic time. A change is then placed to
// within that many iterations.
//
// Series of fewer than 20 values are Unclassified, with a warning.
func Classify(xs []float64) (Steady, error) {
	if err := checkFinite("series", xs); err != nil {
		return Steady{}, err
	}
	st := Steady{MSER5: -1}
	if drop, err := MSER5(xs); err == nil {
		st.MSER5 = drop
	}
	n := len(xs)
	if n < minClassify {
		st.Warnings = append(st.Warnings, Warning{"too-short-to-classify",
			fmt.Sprintf("%d iterations are too few to tell a warm-up from noise; take at least %d", n, minClassify)})
		return st, nil
	}
	keep := make([]int, 0, n)
	out := outliers(xs)
	for i := range xs {
		if out[i] {
			st.Outliers = append(st.Outliers, i)
		} else {
			keep = append(keep, i)
		}
	}
	clean := make([]float64, len(keep))
	for k, i := range keep {
		clean[k] = xs[i]
	}
	coarse, k := thin(clean)
	cp, err := PELT(coarse, Penalty15(len(coarse)), MinSegment)
	if err != nil {
		return Steady{}, err
	}
	from := 0
	for _, start := range append(cp.Starts, len(coarse)) {
		to := min(start*k, len(clean))
		m, v := meanVar(clean[from:to])
		seg := Segment{Start: keep[from], End: n, Mean: m, SD: math.Sqrt(v)}
		if from == 0 {
			seg.Start = 0
		} else {
			st.Segments[len(st.Segments)-1].End = seg.Start
		}
		st.Segments = append(st.Segments, seg)
		from = to
	}
	st.label(xs)
	st.warn(n)
	return st, nil
}

// thin returns the means of k neighbours each, k such that searchMost are not
// exceeded; the last may have fewer.
func thin(xs []float64) (means []float64, k int) {
	k = (len(xs) + searchMost - 1) / searchMost
	if k <= 1 {
		return xs, 1
	}
	for group := range slices.Chunk(xs, k) {
		m, _ := meanVar(group)
		means = append(means, m)
	}
	return means, k
}

// label sets Class, Start, Transitions and Excursions from Segments.
func (st *Steady) label(xs []float64) {
	n := len(xs)
	final := st.Segments[len(st.Segments)-1]
	band := math.Max(final.SD, relativeBand*math.Abs(final.Mean))
	steady := func(s Segment) bool { return math.Abs(s.Mean-final.Mean) <= band }
	tail := len(st.Segments) - 1 // first segment of the steady state
	for tail > 0 && steady(st.Segments[tail-1]) {
		tail--
	}
	faster := false
	for i, s := range st.Segments[:tail] {
		faster = faster || s.Mean < final.Mean-band
		next := st.Segments[i+1]
		if i+1 == tail || math.Abs(next.Mean-s.Mean) > band {
			st.Transitions = append(st.Transitions, Transition{Iteration: next.Start, Before: s.Mean, After: next.Mean})
		}
	}
	st.Start = st.Segments[tail].Start
	switch {
	case tail == 0:
		st.Class = Flat
		st.Excursions = slowStretches(xs)
	case steady(st.Segments[0]) && !faster:
		var es []Excursion
		for i, s := range st.Segments[:tail] {
			switch {
			case steady(s):
			case i > 0 && !steady(st.Segments[i-1]):
				es[len(es)-1].End = s.End
			default:
				es = append(es, Excursion{Start: s.Start, End: s.End})
			}
		}
		st.Excursions = weighed(xs, es)
		st.Class = Flat
	case st.Start > n-n/4:
		st.Class = NoSteadyState
	case faster:
		st.Class = Slowdown
	default:
		st.Class = WarmUp
	}
	if st.Class == Flat {
		st.Start = 0
		if len(st.Excursions) > 0 {
			st.Class = Excursions
		}
	}
}

// Longest is the excursion of the most iterations, the first of equals.
func (st *Steady) Longest() Excursion {
	var most Excursion
	for _, e := range st.Excursions {
		if e.End-e.Start > most.End-most.Start {
			most = e
		}
	}
	return most
}

func (st *Steady) warn(n int) {
	switch {
	case st.Class == Excursions:
		e := st.Longest()
		st.Warnings = append(st.Warnings, Warning{"excursion",
			fmt.Sprintf("%d iterations from %d on take %.2g times as long as the rest (%d such stretches in all): look at what else ran on the hosts then", e.End-e.Start, e.Start, e.Factor, len(st.Excursions))})
	case len(st.Transitions) > 0:
		t := st.Transitions[len(st.Transitions)-1]
		what := map[Class]string{
			Flat:          "a stretch between is slower, by too little to matter",
			WarmUp:        "warm-up: iterations before it are slower; report them apart and raise --warmup to cover them",
			Slowdown:      "slowdown: earlier iterations were faster; look for throttling, burst credits or a filling pool",
			NoSteadyState: "no steady state: the level still changed in the last quarter; run longer before trusting one number",
		}[st.Class]
		st.Warnings = append(st.Warnings, Warning{"not-flat",
			fmt.Sprintf("the level changes at iteration %d of %d, from %.6g to %.6g: %s", t.Iteration, n, t.Before, t.After, what)})
	}
	if k := len(st.Outliers); k > 0 {
		st.Warnings = append(st.Warnings, Warning{"outliers",
			fmt.Sprintf("%d of %d iterations are outliers (first: %d); they count in every statistic but the search for change points", k, n, st.Outliers[0])})
	}
	if st.Class == Flat && st.MSER5 > n/4 && n >= 200 {
		st.Warnings = append(st.Warnings, Warning{"mser-disagrees",
			fmt.Sprintf("no change of level was found but MSER-5 would drop the first %d of %d: look at the run-sequence plot for a slow drift", st.MSER5, n)})
	}
}

// outliers marks isolated values far from their neighbourhood.
func outliers(xs []float64) []bool {
	n := len(xs)
	out := make([]bool, n)
	lo := -1
	hop := 1 + n/searchMost // sorting each window of a long series takes too long
	var mid, span float64
	for i, x := range xs {
		// A window of the full width, shifted inwards at the ends.
		a := max(0, min(i-outlierWindow/2, n-outlierWindow))
		b := min(n, a+outlierWindow)
		if lo < 0 || a-lo >= hop {
			w := sorted(xs[a:b])
			mid = medianSorted(w)
			span = 3 * (w[(len(w)-1)*9/10] - w[(len(w)-1)/10])
			lo = a
		}
		out[i] = math.Abs(x-mid) > span
	}
	for i := 0; i < n; {
		j := i
		for j < n && out[j] {
			j++
		}
		if j-i >= MinSegment {
			for k := i; k < j; k++ {
				out[k] = false
			}
		}
		i = max(j, i+1)
	}
	return out
}
