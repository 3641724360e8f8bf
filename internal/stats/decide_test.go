package stats

import (
	"math"
	"testing"
)

// Want is scipy 1.17.1's: the least n from 6 on with
// (t.ppf(.975, 2*n-2) + norm.ppf(.8)) * sd * sqrt(2/n) <= |log(ratio/limit)|.
func TestUnitsToDecide(t *testing.T) {
	for _, tt := range []struct {
		ratio, limit, sd float64
		want             int
	}{
		{1.10, 1.05, 0.05, 20},
		{1.20, 1.05, 0.20, 37},
		{1.00, 1.05, 0.02, 6},
		{1.00, 1.05, 0.001, 6},
		{1.049, 1.05, 0.05, 0}, // more than 1,000
		{1.04, 1.05, 0.03, 156},
		{0.90, 1.05, 0.20, 28},
		{math.NaN(), 1.05, 0.20, 6}, // nothing is known: what a verdict needs
	} {
		v := Verdict{Ratio: tt.ratio, LogSD: tt.sd, NA: 10, NB: 10, Need: 4, alpha: 0.05}
		if got := v.UnitsToDecide(tt.limit); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
	v := Verdict{Ratio: 1, LogSD: 0.01, Need: 9, alpha: 0.05}
	if got := v.UnitsToDecide(1.05); got != 9 {
		t.Errorf("a family that needs 9 units: %d", got)
	}
}

// simDecide is the share of comparisons of n units a side, of true ratio and log
// spread sd, whose interval lies wholly on one side of limit.
func simDecide(t *testing.T, reps, n int, ratio, sd, limit float64) (within, beyond float64) {
	rng := newRand(uint64(n))
	for range reps {
		a, b := make([]float64, n), make([]float64, n)
		for i := range a {
			a[i], b[i] = 50e6*math.Exp(sd*rng.NormFloat64()), 50e6*ratio*math.Exp(sd*rng.NormFloat64())
		}
		v, err := CompareUnpaired(a, b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Interval != nil && v.Interval.Hi <= limit {
			within++
		}
		if v.Interval != nil && v.Interval.Lo > limit {
			beyond++
		}
	}
	return within / float64(reps), beyond / float64(reps)
}

// With the units that it names, 8 comparisons in 10 are decided.
func TestSimDecide(t *testing.T) {
	for _, tt := range []struct{ ratio, sd float64 }{{1.10, 0.05}, {1, 0.04}} {
		n := Verdict{Ratio: tt.ratio, LogSD: tt.sd, Need: 4, alpha: 0.05}.UnitsToDecide(1.05)
		in, out := simDecide(t, 400, n, tt.ratio, tt.sd, 1.05)
		if got := in + out; got < 0.72 || got > 0.88 || (tt.ratio > 1.05) != (out > in) {
			t.Errorf("ratio %v, spread %v, %d units: %.2f decided", tt.ratio, tt.sd, n, got)
		}
	}
}

// A gate at 5 %: a true slowdown of 20 % under a spread of 20 % is let through by
// at most 1 run in 20, and equal records with a small spread nearly always.
func TestSimGate(t *testing.T) {
	if in, _ := simDecide(t, 80, 10, 1.2, 0.2, 1.05); in > 0.05 {
		t.Errorf("20 %% slower under a spread of 20 %%: %.3f pass", in)
	}
	if in, _ := simDecide(t, 80, 10, 1, 0.02, 1.05); in < 0.95 {
		t.Errorf("equal records with a spread of 2 %%: %.3f pass", in)
	}
}
