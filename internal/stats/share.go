package stats

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
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

// Term is a weight times the median of a sample, in a sum of such. Terms of one
// Set were measured together: the i-th values of all belong to the same block.
// Terms of different sets are independent.
type Term struct {
	Weight float64
	Values []float64
	Set    int
}

// Estimate is a sum of medians with its interval, nil with fewer than [MinRankCI]
// values in a sample.
type Estimate struct {
	Value    float64
	Interval *Interval
}

// Contrast returns the sum of weighted medians, such as the difference of two.
//
// Method: standard errors of medians from two order statistics each (McKean &
// Schrader, Commun. Stat. 13 (1984) 751, with the ranks of Price & Bonett, J. Stat.
// Comput. Simul. 72 (2002) 119), covariances within a set from how often values lie
// below their medians together (Bonett & Price, Br. J. Math. Stat. Psychol. 73 (2020)
// 333). No distribution of the values is assumed. The quantiles are Student's with
// Satterthwaite's degrees of freedom, where Bonett & Price have normal ones, so that
// they hold at levels beyond 95 % too, as a family of intervals needs.
func Contrast(terms []Term, level float64) (Estimate, error) {
	s, err := newSum("contrast", terms, level)
	if err != nil {
		return Estimate{}, err
	}
	e := Estimate{Value: s.value}
	if s.least >= MinRankCI {
		half := tQuantile(level, s.freedom()) * math.Sqrt(s.variance()) * s.scale
		e.Interval = &Interval{Lo: s.value - half, Hi: s.value + half, Level: level}
	}
	if math.IsInf(e.Value, 0) || e.Interval != nil && math.IsInf(e.Interval.Hi-e.Interval.Lo, 0) {
		return Estimate{}, fmt.Errorf("stats: contrast: beyond the range of a float: %w", ErrNotFinite)
	}
	return e, nil
}

// Share is which part of a whole a component explains, a ratio of sums of medians.
type Share struct {
	// Value is part/whole; 0.25 is 25 %.
	Value float64
	// Interval is Fieller's; nil with fewer than [MinRankCI] values in a sample, and
	// when the whole is not separated from zero and the share therefore not bounded.
	Interval *Interval
	Warnings []Warning
}

// ShareOf returns part over whole, each a sum of medians as in [Contrast]: of
// transfers and requests, or of a transfer and an increment over a baseline, which
// may be negative.
//
// Method: Fieller's theorem (JRSS B 16 (1954) 175) over the standard errors and
// covariances of [Contrast], with normal quantiles.
func ShareOf(part, whole []Term, level float64) (Share, error) {
	p, err := newSum("part", part, level)
	if err != nil {
		return Share{}, err
	}
	q, err := newSum("whole", whole, level)
	if err != nil {
		return Share{}, err
	}
	f := fiellerOf(p.value/p.scale, q.value/q.scale, p.variance(), q.variance(), cov(p, q), distuv.UnitNormal.Quantile((1+level)/2))
	back := p.scale / q.scale
	s := Share{Value: f.ratio * back}
	if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
		return Share{}, fmt.Errorf("stats: share: the whole is zero, or beyond the range of a float: %w", ErrNotFinite)
	}
	switch {
	case min(p.least, q.least) < MinRankCI:
	case f.bounded && !math.IsInf(f.lo*back, 0) && !math.IsInf(f.hi*back, 0):
		s.Interval = &Interval{Lo: f.lo * back, Hi: f.hi * back, Level: level}
		if p.positive() && q.positive() { // and so is the share
			s.Interval.Lo = math.Max(s.Interval.Lo, 0)
		}
	default:
		s.Warnings = append(s.Warnings, Warning{"share-unbounded",
			"the whole is not separated from zero, so its share is not bounded: take more requests or a larger transfer"})
	}
	return s, nil
}

// sum is a sum of weighted medians.
type sum struct {
	value, scale float64 // scale: the largest magnitude of a value
	least        int     // values in the smallest sample
	terms        []medianTerm
}

// medianTerm is a sample's median, with its standard error over the sum's scale.
type medianTerm struct {
	Term
	median, se float64
}

func newSum(what string, terms []Term, level float64) (sum, error) {
	s := sum{least: math.MaxInt}
	if err := checkLevel(level); err != nil {
		return s, err
	}
	if len(terms) == 0 {
		return s, fmt.Errorf("stats: %s: %w", what, ErrEmpty)
	}
	for _, t := range terms {
		if err := checkFinite(what, t.Values); err != nil {
			return s, err
		}
		xs := sorted(t.Values)
		m := medianTerm{Term: t, median: medianSorted(xs), se: medianSE(xs)}
		s.value += t.Weight * m.median
		s.scale = math.Max(s.scale, math.Max(math.Abs(xs[0]), math.Abs(xs[len(xs)-1])))
		s.least = min(s.least, len(xs))
		s.terms = append(s.terms, m)
	}
	if s.scale == 0 {
		s.scale = 1
	}
	for i := range s.terms {
		s.terms[i].se /= s.scale
	}
	return s, nil
}

// variance is that of the sum over its scale squared. Correlations of several
// samples are estimated pair by pair and need not fit together; where they would
// leave nothing, the samples count as independent.
func (s sum) variance() float64 {
	v, alone := cov(s, s), 0.0
	for _, t := range s.terms {
		alone += t.Weight * t.Weight * t.se * t.se
	}
	if v <= 1e-9*alone {
		return alone
	}
	return v
}

// positive tells whether no value and no weight is below zero.
func (s sum) positive() bool {
	for _, t := range s.terms {
		if t.Weight < 0 || slices.Min(t.Values) < 0 {
			return false
		}
	}
	return true
}

// freedom are Satterthwaite's degrees of freedom of the variance of a sum.
func (s sum) freedom() int {
	all, of := 0.0, 0.0
	for _, t := range s.terms {
		v := t.Weight * t.Weight * t.se * t.se
		all += v
		of += v * v / math.Max(float64(len(t.Values)-1), 1)
	}
	if of == 0 {
		return max(s.least-1, 1)
	}
	return max(int(all*all/of+1e-9), 1)
}

// cov is the covariance of two sums of medians, over the product of their scales.
func cov(a, b sum) float64 {
	c := 0.0
	for _, x := range a.terms {
		for _, y := range b.terms {
			if x.Set == y.Set && len(x.Values) == len(y.Values) {
				c += x.Weight * y.Weight * x.se * y.se * together(x, y)
			}
		}
	}
	return c
}

// together is the correlation of two medians of one set, 4·p - 1 with p the share
// of blocks in which both values lie below their medians.
func together(x, y medianTerm) float64 {
	if &x.Values[0] == &y.Values[0] {
		return 1 // the same sample
	}
	both := 0.25
	for i := range x.Values {
		if x.Values[i] < x.median && y.Values[i] < y.median {
			both++
		}
	}
	return 4*both/float64(len(x.Values)+1-len(x.Values)%2) - 1
}

// medianSE is the standard error of the median of sorted values, 0 for one.
func medianSE(s []float64) float64 {
	n := len(s)
	if n < 2 {
		return 0
	}
	k := max(1, int(math.RoundToEven(float64(n)/2-math.Sqrt(float64(n)))))
	d := 2 * distuv.UnitNormal.Quantile(1-distuv.Binomial{N: float64(n), P: 0.5}.CDF(float64(k-1)))
	return s[n-k]/d - s[k-1]/d
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
