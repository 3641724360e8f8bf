package stats

import (
	"math"
	"slices"
)

// minLine is the fewest sizes of a line that is one of several: two points always
// lie on a line.
const minLine = 3

// modelError is the relative error that a line is allowed beside the noise: a cost
// model is not exact, and a precise run must not cut it into pieces for 1 %.
const modelError = 0.03

// FitSegments fits the line t = α + n/β piecewise, since a transport that changes
// its protocol at some size has another line from there on. It returns one model
// for each segment, in order of size; most transports have one.
//
// The segments minimise Σ r²/(s²/B + 0.03²) + 5·ln K for each switch, over the K
// sizes, by dynamic programming: r is the relative deviation of a size's mean time
// from its segment's line, s² the variance over the B blocks of its times as parts of
// that mean, less what all sizes of a block share. A segment has at least 3 sizes. The
// penalty is 5/3 of BIC's for the three parameters of a switch, as s² is estimated
// (Yao, Stat. Prob. Letters 6 (1988) 181; figures in docs/methodology.md).
//
// A segment need not be a line: see the warning not-a-line of [CostModel]. Points
// are as for [FitCost], without descriptors.
func FitSegments(points []CostPoint, level float64) ([]CostModel, error) {
	whole, err := FitCost(points, level)
	if err != nil {
		return nil, err
	}
	cells, blocks, _, err := tabulate(points)
	if err != nil {
		return nil, err
	}
	starts := switches(cells, blocks.times)
	if len(starts) == 0 {
		return []CostModel{whole}, nil
	}
	var out []CostModel
	for i, from := range append([]int{0}, starts...) {
		to := len(cells)
		if i < len(starts) {
			to = starts[i]
		}
		m, err := FitCost(slices.DeleteFunc(slices.Clone(points), func(p CostPoint) bool {
			return p.Bytes < cells[from].bytes || p.Bytes > cells[to-1].bytes
		}), level)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// switches are the indexes of the cells at which a new line begins.
func switches(cells []cell, times [][]float64) []int {
	k := len(cells)
	if k < 2*minLine || slices.ContainsFunc(cells, func(c cell) bool { return c.desc != cells[0].desc }) {
		return nil
	}
	mean, noise := cellMeans(times)
	b := float64(len(times))
	cost := func(i, j int) float64 {
		// Least squares with relative weights, as FitCost's, in units of the largest
		// size and of each time.
		var s0, s1, s2, t0, t1 float64
		for c := i; c < j; c++ {
			u, v := 1/mean[c], float64(cells[c].bytes)/float64(cells[j-1].bytes)/mean[c]
			s0, s1, s2, t0, t1 = s0+u*u, s1+u*v, s2+v*v, t0+u, t1+v
		}
		det := s0*s2 - s1*s1
		if !(det > 0) {
			return math.Inf(1)
		}
		alpha, slope := (t0*s2-t1*s1)/det, (t1*s0-t0*s1)/det
		sum := 0.0
		for c := i; c < j; c++ {
			r := 1 - (alpha+slope*float64(cells[c].bytes)/float64(cells[j-1].bytes))/mean[c]
			sum += r * r / (noise[c]/b + modelError*modelError)
		}
		return sum
	}
	penalty := 5 * math.Log(float64(k))
	best := make([]float64, k+1)
	last := make([]int, k+1)
	for j := 1; j <= k; j++ {
		best[j] = math.Inf(1)
		for i := 0; i+minLine <= j; i++ {
			c := best[i] + cost(i, j)
			if i > 0 {
				c += penalty
			}
			if c < best[j] {
				best[j], last[j] = c, i
			}
		}
	}
	var starts []int
	for j := last[k]; j > 0; j = last[j] {
		starts = append(starts, j)
	}
	slices.Reverse(starts)
	return starts
}

// cellMeans are the mean time of each cell over blocks, and the variance of its times
// as parts of that mean, less what all cells of the block share.
func cellMeans(times [][]float64) (mean, noise []float64) {
	k := len(times[0])
	mean, noise = make([]float64, k), make([]float64, k)
	for c := range k {
		xs := make([]float64, len(times))
		for b := range times {
			xs[b] = times[b][c]
		}
		mean[c], _ = meanVar(xs)
	}
	level := make([]float64, len(times))
	for b := range times {
		for c := range k {
			level[b] += times[b][c] / mean[c] / float64(k)
		}
	}
	for c := range k {
		xs := make([]float64, len(times))
		for b := range times {
			xs[b] = times[b][c]/mean[c] - level[b]
		}
		_, noise[c] = meanVar(xs)
		if k > 2 {
			noise[c] *= float64(k) / float64(k-1) // the block's mean holds a part of the cell
		}
	}
	return mean, noise
}
