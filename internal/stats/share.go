package stats

import (
	"fmt"
	"math"
)

// fiellerSet is a confidence set for the ratio of two means.
type fiellerSet struct {
	ratio float64 // NaN when the denominator is zero
	// bounded: the set is [lo, hi]. Otherwise, with outside, it is everything
	// but (lo, hi); without, everything: lo = -Inf, hi = +Inf. empty: nothing.
	lo, hi                  float64
	bounded, outside, empty bool
}

// fieller returns the set of r with |mean(p - r·q)| <= t·se(p - r·q), paired.
func fieller(p, q []float64, level float64) fiellerSet {
	n := float64(len(p))
	mp, vp := meanVar(p)
	mq, vq := meanVar(q)
	cov := 0.0
	for i := range p {
		cov += (p[i] - mp) * (q[i] - mq)
	}
	cov /= n - 1
	return fiellerOf(mp, mq, vp/n, vq/n, cov/n, tQuantile(level, len(p)-1))
}

// fiellerOf solves (mp - r·mq)² <= t²·(vp - 2r·cov + r²·vq) for r.
func fiellerOf(mp, mq, vp, vq, cov, t float64) fiellerSet {
	f := fiellerSet{ratio: math.NaN(), lo: math.Inf(-1), hi: math.Inf(1)}
	if mq != 0 {
		f.ratio = mp / mq
	}
	a := mq*mq - t*t*vq
	b := mp*mq - t*t*cov
	c := mp*mp - t*t*vp
	// a·r² - 2b·r + c <= 0
	disc := b*b - a*c
	if a == 0 {
		if b == 0 {
			f.empty = c > 0
			return f
		}
		r := c / (2 * b)
		if b > 0 {
			f.lo = r
		} else {
			f.hi = r
		}
		return f
	}
	if a > 0 {
		root := math.Sqrt(math.Max(0, disc)) // disc >= 0 but for rounding: r = mp/mq solves it
		f.bounded, f.lo, f.hi = true, (b-root)/a, (b+root)/a
		return f
	}
	if disc <= 0 {
		return f // the whole line
	}
	root := math.Sqrt(disc)
	f.outside, f.lo, f.hi = true, (b+root)/a, (b-root)/a
	return f
}

// touches reports whether the set meets [lo, hi].
func (f fiellerSet) touches(lo, hi float64) bool {
	switch {
	case f.empty:
		return false
	case f.outside:
		return f.lo >= lo || f.hi <= hi
	default:
		return f.lo <= hi && f.hi >= lo
	}
}

// Share is which part of a whole a component explains, a ratio of means.
type Share struct {
	// Value is mean(part)/mean(whole); 0.25 is 25 %.
	Value float64
	// Interval is Fieller's; nil when the whole is not separated from zero and
	// the share therefore not bounded.
	Interval *Interval
	// NPart and NWhole are the numbers of units.
	NPart, NWhole int
	Paired        bool
	Warnings      []Warning
}

// SharePaired returns mean(part)/mean(whole) for units measured together: the
// wire time and the TTFT increment of the same requests, or of the same blocks.
// The whole may hold negative values (an increment over a baseline can).
//
// Method: Fieller's theorem with n-1 degrees of freedom (Fieller, JRSS B 16
// (1954) 175), exact for normal pairs; at least 3 pairs.
func SharePaired(part, whole []float64, level float64) (Share, error) {
	if err := checkShare(part, whole, level); err != nil {
		return Share{}, err
	}
	if len(part) != len(whole) {
		return Share{}, fmt.Errorf("stats: share of %d parts in %d wholes: %w", len(part), len(whole), ErrShape)
	}
	ps, qs, back := scaleShare(part, whole)
	return newShare(fieller(ps, qs, level), back, len(part), len(whole), true, level)
}

// ShareUnpaired is [SharePaired] for two independent samples: raw transfers from
// one record and requests from another. The degrees of freedom are Welch's
// (Satterthwaite) at the estimate; at least 3 values each.
func ShareUnpaired(part, whole []float64, level float64) (Share, error) {
	if err := checkShare(part, whole, level); err != nil {
		return Share{}, err
	}
	ps, qs, back := scaleShare(part, whole)
	mp, vp := meanVar(ps)
	mq, vq := meanVar(qs)
	vp /= float64(len(ps))
	vq /= float64(len(qs))
	df := float64(min(len(ps), len(qs)) - 1)
	if mq != 0 {
		r := mp / mq
		u, w := vp, r*r*vq
		if s := (u+w)*(u+w)/(u*u/float64(len(ps)-1)+w*w/float64(len(qs)-1)) - 1e-9; s > df {
			df = math.Floor(s)
		}
	}
	return newShare(fiellerOf(mp, mq, vp, vq, 0, tQuantile(level, int(df))), back, len(part), len(whole), false, level)
}

func checkShare(part, whole []float64, level float64) error {
	if err := checkLevel(level); err != nil {
		return err
	}
	if err := checkFinite("part", part); err != nil {
		return err
	}
	if err := checkFinite("whole", whole); err != nil {
		return err
	}
	if n := min(len(part), len(whole)); n < 3 {
		return fmt.Errorf("stats: share from %d values, need 3: %w", n, ErrTooFew)
	}
	return nil
}

// scaleShare divides each sample by its largest magnitude, so that squares stay
// in range; back turns the scaled ratio into the asked one.
func scaleShare(part, whole []float64) (p, q []float64, back float64) {
	scaled := func(xs []float64) ([]float64, float64) {
		top := 0.0
		for _, x := range xs {
			top = math.Max(top, math.Abs(x))
		}
		if top == 0 {
			top = 1
		}
		out := make([]float64, len(xs))
		for i, x := range xs {
			out[i] = x / top
		}
		return out, top
	}
	p, a := scaled(part)
	q, b := scaled(whole)
	return p, q, a / b
}

func newShare(f fiellerSet, back float64, np, nq int, paired bool, level float64) (Share, error) {
	s := Share{Value: f.ratio * back, NPart: np, NWhole: nq, Paired: paired}
	if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
		return Share{}, fmt.Errorf("stats: share: the whole is zero on average, or beyond the range of a float: %w", ErrNotFinite)
	}
	if f.bounded && !math.IsInf(f.lo*back, 0) && !math.IsInf(f.hi*back, 0) {
		s.Interval = &Interval{Lo: f.lo * back, Hi: f.hi * back, Level: level}
	} else {
		s.Warnings = append(s.Warnings, Warning{"share-unbounded",
			"the whole is not separated from zero, so its share is not bounded: take more requests or a larger transfer"})
	}
	return s, nil
}
