package stats

import (
	"fmt"
	"math"
)

// MinRankCI is the smallest sample with a 95 % rank interval for its median:
// with five values even (min, max) covers only 1 - 2/2^5 = 93.75 %.
const MinRankCI = 6

// Summary describes one sample in the unit of its values.
type Summary struct {
	N      int
	Min    float64
	Max    float64
	Median float64
	// CI is the rank interval of the median; nil when N is too small for one
	// (below [MinRankCI] at 95 %). It assumes independent values: give it
	// units, not raw iterations.
	CI       *Interval
	Warnings []Warning
}

// Summarize returns n, min, max, the median and its rank interval at level
// (0.95 for 95 %).
func Summarize(xs []float64, level float64) (Summary, error) {
	if err := checkLevel(level); err != nil {
		return Summary{}, err
	}
	if err := checkFinite("sample", xs); err != nil {
		return Summary{}, err
	}
	s := sorted(xs)
	sum := Summary{N: len(s), Min: s[0], Max: s[len(s)-1], Median: medianSorted(s)}
	k, reached := medianRank(len(s), level)
	if k == 0 {
		sum.Warnings = append(sum.Warnings, Warning{"no-median-interval",
			fmt.Sprintf("%d values give no %g %% interval of the median; take at least %d",
				len(s), level*100, minMedianN(level))})
		return sum, nil
	}
	sum.CI = &Interval{Lo: s[k-1], Hi: s[len(s)-k], Level: reached}
	return sum, nil
}

// Median returns the middle value, or the mean of the two middle ones.
func Median(xs []float64) (float64, error) {
	if err := checkFinite("sample", xs); err != nil {
		return 0, err
	}
	return medianSorted(sorted(xs)), nil
}

// medianRank returns the largest k with coverage of (x_(k), x_(n+1-k)) at
// least level, and that coverage; k = 0 when there is none.
//
// Source: David & Nagaraja, Order Statistics, 3rd ed., §7.1: the number of
// values below the median is Binomial(n, 1/2) whatever the distribution.
func medianRank(n int, level float64) (k int, reached float64) {
	// P(B <= k-1), accumulated from log-gamma so that large n does not underflow.
	tail := 0.0
	lgN, _ := math.Lgamma(float64(n + 1))
	for i := 0; i < (n+1)/2; i++ {
		a, _ := math.Lgamma(float64(i + 1))
		b, _ := math.Lgamma(float64(n - i + 1))
		tail += math.Exp(lgN - a - b - float64(n)*math.Ln2)
		if 1-2*tail < level {
			break
		}
		k, reached = i+1, 1-2*tail
	}
	return k, reached
}

// minMedianN is the smallest n whose (min, max) covers the median at level.
func minMedianN(level float64) int {
	return int(math.Ceil(1 - math.Log2(1-level) - 1e-12))
}

// QuantileResult is a guarded percentile.
type QuantileResult struct {
	// P is the asked quantile as a fraction: 0.99 for p99.
	P float64
	// Value is the quantile, or the extreme value when Guarded.
	Value float64
	// Guarded says that the sample was too small for this quantile and
	// Value is the maximum (the minimum for P < 0.5) and must be called so.
	Guarded bool
	// N is the sample size and Need the size from which the quantile is given.
	N, Need  int
	Warnings []Warning
}

// Label returns what Value is: "p99", "p99.9", "max" or "min".
func (q QuantileResult) Label() string {
	switch {
	case !q.Guarded:
		return fmt.Sprintf("p%.6g", q.P*100)
	case q.P < 0.5:
		return "min"
	default:
		return "max"
	}
}

// Quantile returns quantile p, 0 < p < 1, by linear interpolation between order
// statistics (Hyndman & Fan 1996, type 7, the default of R and NumPy).
//
// The guard: p is given only with at least 5/(1-p) values (5/p below the
// median), that is, when five values are expected beyond it; p99 needs
// 500, p95 100. With fewer the result is the maximum and says so: of 63
// values the "p99" is nothing else.
func Quantile(xs []float64, p float64) (QuantileResult, error) {
	if !(p > 0 && p < 1) {
		return QuantileResult{}, fmt.Errorf("stats: quantile %v, want a fraction between 0 and 1: %w", p, ErrOption)
	}
	if err := checkFinite("sample", xs); err != nil {
		return QuantileResult{}, err
	}
	s := sorted(xs)
	// 5/(1-p) in floats is 499.99… or 500.00…1 for p99; the slack undoes that.
	need := math.Ceil(5/math.Min(p, 1-p)*(1-1e-12) - 1e-9)
	q := QuantileResult{P: p, N: len(s), Need: math.MaxInt}
	if need < math.MaxInt32 {
		q.Need = int(need)
	}
	if len(s) < q.Need {
		q.Guarded = true
		q.Value = s[len(s)-1]
		if p < 0.5 {
			q.Value = s[0]
		}
		q.Warnings = append(q.Warnings, Warning{"too-few-for-quantile",
			fmt.Sprintf("p%.6g needs %d values and there are %d: this is the %s", p*100, q.Need, q.N, q.Label())})
		return q, nil
	}
	h := p * float64(len(s)-1)
	i := int(h)
	q.Value = s[i]
	if i+1 < len(s) {
		q.Value += (h - float64(i)) * (s[i+1] - s[i])
	}
	return q, nil
}

// Rate returns Σbytes / Σtime in bytes per second, times in nanoseconds. It is
// the harmonic mean weighted by bytes; a mean of rates would overstate.
//
// Source: Hoefler & Belli, SC'15, rules 3 and 4.
func Rate(bytes []int64, timesNS []float64) (bytesPerSecond float64, err error) {
	if len(bytes) != len(timesNS) {
		return 0, fmt.Errorf("stats: rate: %d byte counts and %d times: %w", len(bytes), len(timesNS), ErrShape)
	}
	if err := checkPositive("times", timesNS); err != nil {
		return 0, err
	}
	var b, t float64
	for i, n := range bytes {
		if n < 0 {
			return 0, fmt.Errorf("stats: rate: bytes[%d] = %d: %w", i, n, ErrNotPositive)
		}
		b += float64(n)
		t += timesNS[i]
	}
	// Very large or very small times can still leave the range of a float.
	if r := b / t * 1e9; !math.IsInf(r, 0) && !math.IsInf(t, 0) {
		return r, nil
	}
	return 0, fmt.Errorf("stats: rate of %g bytes in %g ns: %w", b, t, ErrNotFinite)
}
