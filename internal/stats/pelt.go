package stats

import (
	"fmt"
	"math"
)

// MinSegment is the shortest segment that [Classify] considers. One value has no
// variance and two say almost nothing about it; with the penalty 15·ln n the
// shortest length does not change the false alarms, while longer ones lose
// short warm-ups (figures in docs/methodology.md).
const MinSegment = 3

// ChangePoints are the results of [PELT].
type ChangePoints struct {
	// Starts holds the index of the first value of each segment but the first.
	Starts []int
	// Penalty was added to the cost for each change.
	Penalty float64
}

// Penalty15 is Barrett's penalty for n values, 15·ln n.
//
// Source: Barrett et al., Virtual Machine Warmup Blows Hot and Cold, OOPSLA'17.
// Textbook penalties of 2 or 3·ln n find changes in most stationary series once
// their noise is correlated, as latencies are (docs/methodology.md).
func Penalty15(n int) float64 { return 15 * math.Log(float64(n)) }

// PELT returns the segmentation of xs that minimises the sum over segments of
// n_s·(ln(2π·σ_s²)+1), twice the negative Gaussian log-likelihood with free mean
// and variance, plus penalty for each change; minSegment is the fewest values in
// a segment, at least 2. It is exact, and takes linear time when changes are
// frequent and quadratic at worst.
//
// σ_s² is held to a floor of (0.001·median|x|)², so that equal values (a coarse clock)
// do not cost minus infinity and differences below a thousandth are not told
// apart by variance.
//
// Source: Killick, Fearnhead & Eckley, JASA 107 (2012) 1590.
func PELT(xs []float64, penalty float64, minSegment int) (ChangePoints, error) {
	if err := checkFinite("series", xs); err != nil {
		return ChangePoints{}, err
	}
	if minSegment < 2 {
		return ChangePoints{}, optionError("minimum segment", float64(minSegment))
	}
	if !(penalty >= 0) || math.IsInf(penalty, 0) {
		return ChangePoints{}, optionError("penalty", penalty)
	}
	n := len(xs)
	res := ChangePoints{Penalty: penalty}
	if n < 2*minSegment {
		return res, nil
	}
	cost := newGaussCost(xs)
	// best[t]: least cost of the first t values, with one penalty too many,
	// hence the start at -penalty; last[t]: start of their last segment.
	best := make([]float64, n+1)
	last := make([]int, n+1)
	dead := make([]int, n+1) // dead[s]: from which t on start s cannot win; 0: none yet
	best[0] = -penalty
	for t := 1; t < minSegment; t++ {
		best[t] = math.Inf(1)
	}
	candidates := []int{0}
	for t := minSegment; t <= n; t++ {
		best[t] = math.Inf(1)
		for _, s := range candidates {
			if t-s < minSegment {
				continue
			}
			if c := best[s] + cost.of(s, t) + penalty; c < best[t] {
				best[t], last[t] = c, s
			}
		}
		// A start that loses by more than the penalty at t never wins once t itself
		// can be a start, which is minSegment later; until then it still may.
		keep := candidates[:0]
		for _, s := range candidates {
			if dead[s] == 0 && t-s >= minSegment && best[s]+cost.of(s, t) > best[t] {
				dead[s] = t + minSegment
			}
			if dead[s] == 0 || t+1 < dead[s] {
				keep = append(keep, s)
			}
		}
		candidates = keep
		if s := t - minSegment + 1; s >= minSegment {
			candidates = append(candidates, s)
		}
	}
	for t := n; last[t] > 0; t = last[t] {
		res.Starts = append(res.Starts, last[t])
	}
	for i, j := 0, len(res.Starts)-1; i < j; i, j = i+1, j-1 {
		res.Starts[i], res.Starts[j] = res.Starts[j], res.Starts[i]
	}
	return res, nil
}

// gaussCost gives segment costs in constant time from prefix sums of the
// standardised series.
type gaussCost struct {
	sum, sq []float64
	floor   float64
}

func newGaussCost(xs []float64) gaussCost {
	// A common factor and offset change every segmentation's cost by the same
	// constant, so the scaled deviations give the same answer without overflow
	// and with little cancellation.
	dev, scale := deviations(xs)
	g := gaussCost{sum: make([]float64, len(xs)+1), sq: make([]float64, len(xs)+1)}
	for i, d := range dev {
		g.sum[i+1] = g.sum[i] + d
		g.sq[i+1] = g.sq[i] + d*d
	}
	abs := make([]float64, len(xs))
	top := 0.0
	for i, x := range xs {
		abs[i] = math.Abs(x)
		top = math.Max(top, abs[i])
	}
	g.floor = 1e-12 // a thousandth of a millionth of the largest deviation, squared
	if scale > 0 && top > 0 {
		rel := 1e-3 * (medianSorted(sorted(abs)) / top) / scale
		g.floor = math.Max(g.floor, rel*rel)
	}
	return g
}

// of is the cost of values s … t-1.
func (g gaussCost) of(s, t int) float64 {
	n := float64(t - s)
	m := (g.sum[t] - g.sum[s]) / n
	v := (g.sq[t]-g.sq[s])/n - m*m
	// The least over σ² >= floor of n·ln(2πσ²) + Σ(x-m)²/σ²: a minimum, so that
	// a whole never costs less than its parts, which pruning relies on.
	u := math.Max(v, g.floor)
	return n * (math.Log(2*math.Pi*u) + math.Max(v, 0)/u)
}

// MSER5 returns how many values to drop from the front of a series by MSER-5:
// the truncation, in batches of five, that minimises the standard error of the
// mean of what remains, searched over the first half. It is a cross-check on
// [Classify]; below about 200 values it tends to drop too much.
//
// Source: White, Cobb & Spratt, Proc. Winter Simulation Conf. 2000, p. 755.
func MSER5(xs []float64) (drop int, err error) {
	if err := checkFinite("series", xs); err != nil {
		return 0, err
	}
	k := len(xs) / 5
	if k < 2 {
		return 0, fmt.Errorf("stats: MSER-5 of %d values, need 10: %w", len(xs), ErrTooFew)
	}
	dev, _ := deviations(xs)
	batch := make([]float64, k)
	for i := range batch {
		for _, d := range dev[5*i : 5*i+5] {
			batch[i] += d / 5
		}
	}
	// The squared error of each tail, by Welford's recurrence from its end.
	tail := make([]float64, k)
	mean, ss := 0.0, 0.0
	for d := k - 1; d >= 0; d-- {
		n := float64(k - d)
		diff := batch[d] - mean
		mean += diff / n
		ss += diff * (batch[d] - mean)
		tail[d] = ss / n / n
	}
	best := math.Inf(1)
	for d, g := range tail[:k/2+1] {
		if g < best-1e-15 {
			best, drop = g, 5*d
		}
	}
	return drop, nil
}
