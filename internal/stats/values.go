package stats

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Errors that functions of this package wrap; test with [errors.Is].
var (
	// ErrEmpty says that there was no value at all.
	ErrEmpty = errors.New("no values")
	// ErrNotFinite says that a value was NaN or infinite.
	ErrNotFinite = errors.New("value is not finite")
	// ErrNotPositive says that a value was zero or negative where a time,
	// a size or a ratio is needed.
	ErrNotPositive = errors.New("value is not positive")
	// ErrOption says that an option (a level, a share, a count) was out of range.
	ErrOption = errors.New("option out of range")
	// ErrTooFew says that the function needs more values than it got.
	ErrTooFew = errors.New("too few values")
	// ErrShape says that slices which belong together differ in length.
	ErrShape = errors.New("lengths differ")
)

// Warning is what limits a result: a stable code for programs and a sentence
// for people that says what to do.
type Warning struct {
	// Code is stable, lower case with dashes, such as "few-effective-samples".
	Code string
	// Text is one sentence in English without a final full stop.
	Text string
}

// Interval is a two-sided confidence interval in the unit of its estimate.
type Interval struct {
	Lo, Hi float64
	// Level is the confidence that the method guarantees, as a fraction. Exact
	// rank methods reach a level of their own at or above the asked one,
	// so this can be 0.969 where 0.95 was asked.
	Level float64
}

// Contains reports whether v lies in the closed interval.
func (iv Interval) Contains(v float64) bool { return iv.Lo <= v && v <= iv.Hi }

// checkFinite returns an error unless xs has a value and all are finite.
func checkFinite(name string, xs []float64) error {
	if len(xs) == 0 {
		return fmt.Errorf("stats: %s: %w", name, ErrEmpty)
	}
	for i, x := range xs {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("stats: %s[%d] = %v: %w", name, i, x, ErrNotFinite)
		}
	}
	return nil
}

// checkPositive is checkFinite and every value above zero.
func checkPositive(name string, xs []float64) error {
	if err := checkFinite(name, xs); err != nil {
		return err
	}
	for i, x := range xs {
		if x <= 0 {
			return fmt.Errorf("stats: %s[%d] = %v: %w", name, i, x, ErrNotPositive)
		}
	}
	return nil
}

// checkLevel returns an error unless level is a confidence level in (0, 1).
func checkLevel(level float64) error {
	if !(level > 0 && level < 1) {
		return fmt.Errorf("stats: confidence level %v, want a fraction between 0 and 1: %w", level, ErrOption)
	}
	return nil
}

// sorted returns a sorted copy.
func sorted(xs []float64) []float64 {
	s := slices.Clone(xs)
	slices.Sort(s)
	return s
}

// medianSorted is the median of a sorted, non-empty slice.
func medianSorted(s []float64) float64 {
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return midpoint(s[n/2-1], s[n/2])
}

// midpoint is the average of two finite numbers without overflow.
func midpoint(a, b float64) float64 {
	if m := (a + b) / 2; !math.IsInf(m, 0) {
		return m
	}
	return a/2 + b/2
}

// meanVar returns the mean and the unbiased variance (0 for one value), by
// Welford's method.
func meanVar(xs []float64) (mean, variance float64) {
	var m2 float64
	for i, x := range xs {
		d := x - mean
		mean += d / float64(i+1)
		m2 += d * (x - mean)
	}
	if len(xs) > 1 {
		variance = m2 / float64(len(xs)-1)
	}
	return mean, variance
}

// logs returns the natural logarithms of positive values.
func logs(xs []float64) []float64 {
	out := make([]float64, len(xs))
	for i, x := range xs {
		out[i] = math.Log(x)
	}
	return out
}
