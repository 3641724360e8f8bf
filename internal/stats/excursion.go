package stats

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Excursion is a stretch of slow iterations in a series that is at one level before
// and after it.
type Excursion struct {
	Start, End int // iterations, End exclusive
	// Factor is the median of the stretch over the median of the iterations outside of
	// all excursions.
	Factor float64
}

const (
	minExcursion = 1.25 // the least Factor that is worth a word
	scanDrift    = 1    // in standard deviations
	scanAlarm    = 0.1
)

// slowStretches finds stretches of slow values in a series without changes of level:
// stretches too short against the length of the series, or too close to its noise, for
// [PELT] and its penalty.
//
// The values' normal scores less a drift of one are summed up, and the stretch with
// the largest sum is taken, then those to its left and right (Page's CUSUM, Biometrika
// 41 (1954) 100). Ranks make that free of the distribution. Of n independent scores
// a sum exceeds S with a probability below n·e^(-2S), as the drift's exponent is 2;
// scores with lag-1 correlation ρ have that of S·(1-ρ)/(1+ρ). A stretch counts where
// that is below 0.1, which simulated series without one reach in less than 1 %.
func slowStretches(xs []float64) []Excursion {
	var found []Excursion
	scores := normalScores(xs)
	n := float64(len(xs))
	var search func(from, to int)
	search = func(from, to int) {
		start, end, sum := largestSum(scores, from, to)
		if end-start < MinSegment {
			return
		}
		// Correlation is that of what is left: the stretch itself would raise it.
		rho := math.Max(0, lagOne(scores, start, end))
		if sum*(1-rho)/(1+rho) < (math.Log(n)-math.Log(scanAlarm))/(2*scanDrift) {
			return
		}
		search(from, start)
		found = append(found, Excursion{Start: start, End: end})
		search(end, to)
	}
	search(0, len(xs))
	return weighed(xs, found)
}

// weighed sets the factors of excursions and leaves out those that do not matter.
func weighed(xs []float64, es []Excursion) []Excursion {
	var rest []float64
	at := 0
	for _, e := range es {
		rest = append(rest, xs[at:e.Start]...)
		at = e.End
	}
	rest = append(rest, xs[at:]...)
	if len(es) == 0 || len(rest) == 0 {
		return nil
	}
	usual := medianSorted(sorted(rest))
	if !(usual > 0) {
		return nil
	}
	out := es[:0]
	for _, e := range es {
		if e.Factor = medianSorted(sorted(xs[e.Start:e.End])) / usual; e.Factor >= minExcursion {
			out = append(out, e)
		}
	}
	return out
}

// normalScores are the standard normal quantiles of the values' ranks; equal values
// share their mean rank. In a series longer than twice searchMost ranks are those among
// about searchMost of its values, evenly spread: sorting all takes too long.
func normalScores(xs []float64) []float64 {
	among := xs
	if k := len(xs) / searchMost; k >= 2 {
		among = nil
		for i := k / 2; i < len(xs); i += k {
			among = append(among, xs[i])
		}
	}
	order := sorted(among)
	m := len(order)
	quantiles := make([]float64, 2*m+1) // of rank r/2 of m, short of the ends
	for r := range quantiles {
		quantiles[r] = distuv.UnitNormal.Quantile(math.Min(math.Max(float64(r), 1), float64(2*m-1)) / float64(2*m))
	}
	past := make([]int, m) // the first that is larger
	for i := m - 1; i >= 0; i-- {
		if past[i] = i + 1; i+1 < m && order[i+1] == order[i] {
			past[i] = past[i+1]
		}
	}
	out := make([]float64, len(xs))
	for i, x := range xs {
		lo, found := slices.BinarySearch(order, x)
		hi := lo
		if found {
			hi = past[lo]
		}
		out[i] = quantiles[lo+hi]
	}
	return out
}

// largestSum is the stretch of scores[from:to] with the largest sum of scores less the
// drift.
func largestSum(scores []float64, from, to int) (start, end int, sum float64) {
	run, at := 0.0, from
	for i := from; i < to; i++ {
		if run <= 0 {
			run, at = 0, i
		}
		if run += scores[i] - scanDrift; run > sum {
			start, end, sum = at, i+1, run
		}
	}
	return start, end, sum
}

// lagOne is the lag-1 correlation of scores outside of a stretch.
func lagOne(scores []float64, start, end int) float64 {
	rest := slices.Concat(scores[:start], scores[end:])
	m, v := meanVar(rest)
	if len(rest) < 3 || v == 0 {
		return 0
	}
	sum := 0.0
	for i := 1; i < len(rest); i++ {
		sum += (rest[i] - m) * (rest[i-1] - m)
	}
	return sum / float64(len(rest)-1) / v
}
