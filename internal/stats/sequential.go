package stats

import (
	"fmt"
	"math"
)

// Width is the precision that a run has reached so far.
type Width struct {
	// N is the number of units.
	N int
	// Estimate is the Hodges–Lehmann estimate (of the times, or of the ratio B/A)
	// and Interval its interval; nil with too few units.
	Estimate float64
	Interval *Interval
	// Relative is half the interval's width over the estimate; +Inf without one.
	Relative float64
	// Reached says that Relative is at most the target.
	Reached bool
}

// UntilWidth says whether the interval of one condition's units (block medians,
// positive) is narrow enough: half its width at most target times the estimate
// (0.02 for --until-ci 2%).
//
// This is a declared sequential rule: the run looks after each block and stops on
// width alone, never on the size or sign of a difference, and the record says that
// it did. Stopping when noise happens to look small costs some coverage;
// docs/methodology.md has the measured figure. At least 10 units are asked for.
func UntilWidth(units []float64, target float64, o Options) (Width, error) {
	if err := checkPositive("units", units); err != nil {
		return Width{}, err
	}
	return width(logs(units), target, o)
}

// UntilRatioWidth is [UntilWidth] for the ratio b/a of paired units.
func UntilRatioWidth(a, b []float64, target float64, o Options) (Width, error) {
	if len(a) != len(b) {
		return Width{}, fmt.Errorf("stats: %d and %d paired units: %w", len(a), len(b), ErrShape)
	}
	if err := checkPositive("a", a); err != nil {
		return Width{}, err
	}
	if err := checkPositive("b", b); err != nil {
		return Width{}, err
	}
	d := logs(b)
	for i := range d {
		d[i] -= math.Log(a[i])
	}
	return width(d, target, o)
}

// minSequential is the first look of a sequential run: with fewer units a width
// that is small by luck stops too many runs.
const minSequential = 10

func width(logd []float64, target float64, o Options) (Width, error) {
	level, err := o.level()
	if err != nil {
		return Width{}, err
	}
	if !(target > 0) || math.IsInf(target, 0) {
		return Width{}, optionError("target width", target)
	}
	w := Width{N: len(logd), Estimate: math.Exp(hodgesLehmann(logd)), Relative: math.Inf(1)}
	if iv, ok := signedRankInterval(logd, level); ok {
		w.Interval = &Interval{Lo: math.Exp(iv.Lo), Hi: math.Exp(iv.Hi), Level: iv.Level}
		w.Relative = (w.Interval.Hi - w.Interval.Lo) / 2 / w.Estimate
		if math.IsNaN(w.Relative) {
			w.Relative = math.Inf(1)
		}
		w.Reached = w.N >= minSequential && w.Relative <= target
	}
	return w, nil
}
