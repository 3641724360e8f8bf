package stats

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// VerdictKind is the answer of a comparison.
type VerdictKind int

const (
	// TooFew: there are too few units for any answer at this level.
	TooFew VerdictKind = iota
	// NoDifference: the test did not reject; MDE says what it would have seen.
	NoDifference
	// Different: the test rejected at the level, after Holm's correction.
	Different
)

// String returns "too few", "no difference" or "different".
func (k VerdictKind) String() string {
	switch k {
	case NoDifference:
		return "no difference"
	case Different:
		return "different"
	default:
		return "too few"
	}
}

// Options of a comparison. The zero value means the defaults.
type Options struct {
	// Level is the confidence of intervals and 1 - Level the level of the
	// test; 0 means 0.95.
	Level float64
	// Seed drives the Monte Carlo sign-flip test above 20 blocks.
	Seed uint64
}

func (o Options) level() (float64, error) {
	if o.Level == 0 {
		return 0.95, nil
	}
	return o.Level, checkLevel(o.Level)
}

// Verdict is the result of comparing condition B with the base case A.
//
// Kind follows the test alone, PAdjusted <= 1-Level; the interval is not
// adjusted for a family. Where the two disagree a warning says so.
type Verdict struct {
	Kind VerdictKind
	// Ratio is time B / time A: exp of the Hodges–Lehmann estimate of the
	// log-ratio. Above 1, B is slower. NaN when no pair exists.
	Ratio float64
	// Interval belongs to Ratio; nil when the units are too few for one.
	Interval *Interval
	// P is the p-value of the comparison and PAdjusted the one after
	// Holm's correction over Family comparisons.
	P, PAdjusted float64
	Family       int
	// NA and NB are the numbers of units; equal when paired. Need is the number
	// of units (in each arm) from which a verdict is possible.
	NA, NB, Need int
	// MDE is the minimal detectable effect as a fraction of time: with this
	// design and the spread seen, a true change of time by +MDE would have been
	// found with 80 % power. 0.03 reads "would have seen ≥ 3 %". +Inf for TooFew.
	MDE float64
	// LogSD is the standard deviation of the log-ratios (paired), or the
	// pooled one of the logs of both arms (unpaired).
	LogSD float64
	// Test names the test, with draws and seed where it was simulated.
	Test string
	// Paired tells a comparison in blocks from one of two records.
	Paired bool
	// NotInterleaved is the caveat of comparing two records: whatever changed
	// between them (host load, temperature, network state) is in the ratio, and
	// the p-value does not know it.
	NotInterleaved bool
	Warnings       []Warning

	alpha float64
	base  []Warning // warnings that do not depend on the family
}

// String is the verdict as one line without units.
func (v Verdict) String() string {
	if v.Kind == TooFew {
		return fmt.Sprintf("too few units for a verdict: %s, need %d", v.counts(), v.Need)
	}
	if v.Kind == NoDifference {
		return fmt.Sprintf("no difference, would have seen ≥ %.1f %% (ratio %.4f, p %.3g, %s)", v.MDE*100, v.Ratio, v.PAdjusted, v.counts())
	}
	if v.Interval == nil {
		return fmt.Sprintf("different: ratio %.4f, p %.3g, %s", v.Ratio, v.PAdjusted, v.counts())
	}
	return fmt.Sprintf("different: ratio %.4f [%.4f, %.4f], p %.3g, %s", v.Ratio, v.Interval.Lo, v.Interval.Hi, v.PAdjusted, v.counts())
}

func (v Verdict) counts() string {
	if v.Paired {
		return fmt.Sprintf("n %d", v.NA)
	}
	return fmt.Sprintf("n %d and %d", v.NA, v.NB)
}

// ComparePaired compares units measured in the same randomised blocks: a[i] and
// b[i] are the medians of block i, positive times. Fewer than 6 pairs give
// TooFew, not an error, and none at all does too.
//
// Estimate: exp of the median of the Walsh averages of d_i = log(b_i/a_i).
// Interval: inversion of the Wilcoxon signed-rank test (exact null distribution up
// to 50 blocks, normal above). p: sign-flip test on Σd. Zero differences and
// ties are kept: see [SignFlipTest] for the test; the interval, closed, only
// gains coverage by them.
func ComparePaired(a, b []float64, o Options) (Verdict, error) {
	level, err := o.level()
	if err != nil {
		return Verdict{}, err
	}
	if len(a) != len(b) {
		return Verdict{}, fmt.Errorf("stats: paired comparison of %d and %d units: %w", len(a), len(b), ErrShape)
	}
	v := Verdict{Paired: true, NA: len(a), NB: len(b), Family: 1, P: 1, PAdjusted: 1, Ratio: math.NaN(), alpha: 1 - level}
	if len(a) == 0 {
		return v.decide(), nil
	}
	if err := checkPositive("a", a); err != nil {
		return Verdict{}, err
	}
	if err := checkPositive("b", b); err != nil {
		return Verdict{}, err
	}
	d := make([]float64, len(a))
	zeros := 0
	for i := range a {
		d[i] = math.Log(b[i]) - math.Log(a[i]) // the quotient could leave the range
		if a[i] == b[i] {
			zeros++
		}
	}
	_, variance := meanVar(d)
	v.LogSD = math.Sqrt(variance)
	v.Ratio = math.Exp(hodgesLehmann(d))
	if iv, ok := signedRankInterval(d, level); ok {
		v.Interval = &Interval{Lo: math.Exp(iv.Lo), Hi: math.Exp(iv.Hi), Level: iv.Level}
	}
	sf, err := SignFlipTest(d, o.Seed)
	if err != nil {
		return Verdict{}, err
	}
	v.P, v.PAdjusted = sf.P, sf.P
	v.Test = "sign-flip, exact"
	if !sf.Exact {
		v.Test = fmt.Sprintf("sign-flip, %d random patterns, seed %d", sf.Draws, o.Seed)
	}
	if len(d) >= 3 {
		ac, err := Autocorrelate(d)
		if err != nil {
			return Verdict{}, err
		}
		// Of n independent differences, ρ̂ exceeds 2/√n in about 2 %.
		if ac.Rho > 2/math.Sqrt(float64(len(d))) {
			v.base = append(v.base, Warning{"correlated-units",
				fmt.Sprintf("the block differences are correlated (lag-1 %.2f, worth %.1f of %d); lengthen the blocks or use --launches", ac.Rho, ac.Effective, len(d))})
		}
	}
	if zeros > len(d)/2 {
		v.base = append(v.base, Warning{"many-zero-differences",
			fmt.Sprintf("%d of %d blocks show exactly equal times: the clock or the rounding is too coarse for this comparison", zeros, len(d))})
	}
	return v.decide(), nil
}

// CompareUnpaired compares units of two records that were not interleaved: block
// medians or, better, launch medians. Both arms need 4 units or more. The
// result always carries NotInterleaved and its warning.
//
// Estimate: exp of the median of all log(b_j) - log(a_i) (Hodges–Lehmann).
// Interval and p: Mann–Whitney, exact up to 60 units together (the p with ties
// as well, by the permutation distribution of the midranks), normal above.
func CompareUnpaired(a, b []float64, o Options) (Verdict, error) {
	level, err := o.level()
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{NA: len(a), NB: len(b), Family: 1, P: 1, PAdjusted: 1, Ratio: math.NaN(), NotInterleaved: true, alpha: 1 - level}
	v.base = []Warning{{"not-interleaved",
		"the two records were not measured in the same randomised blocks: a change of the host or network between them looks the same as a difference; rerun both conditions in one invocation to tell them apart"}}
	if len(a) == 0 || len(b) == 0 {
		return v.decide(), nil
	}
	if err := checkPositive("a", a); err != nil {
		return Verdict{}, err
	}
	if err := checkPositive("b", b); err != nil {
		return Verdict{}, err
	}
	la, lb := logs(a), logs(b)
	_, va := meanVar(la)
	_, vb := meanVar(lb)
	if df := len(a) + len(b) - 2; df > 0 {
		v.LogSD = math.Sqrt((va*float64(len(a)-1) + vb*float64(len(b)-1)) / float64(df))
	}
	sa, sb := sorted(la), sorted(lb)
	v.Ratio = math.Exp(middle(len(a)*len(b), func(k int) float64 { return difference(sa, sb, k) }))
	if iv, ok := rankSumInterval(la, lb, level); ok {
		v.Interval = &Interval{Lo: math.Exp(iv.Lo), Hi: math.Exp(iv.Hi), Level: iv.Level}
	}
	p, exact := rankSumP(la, lb)
	v.P, v.PAdjusted = p, p
	v.Test = "Mann–Whitney, normal approximation"
	if exact {
		v.Test = "Mann–Whitney, exact"
	}
	return v.decide(), nil
}

// AdjustFamily applies Holm's correction over the verdicts of one question (the
// sizes of a sweep, say) and decides each anew, in place of a level each. A
// family of m needs more units: what cannot reach the level even with the
// smallest possible p becomes TooFew. Verdicts that were TooFew already do not
// count as comparisons.
func AdjustFamily(vs []Verdict) ([]Verdict, error) {
	out := make([]Verdict, len(vs))
	var ps []float64
	var at []int
	for i, v := range vs {
		out[i] = v
		if v.Kind != TooFew {
			ps, at = append(ps, v.P), append(at, i)
		}
	}
	if len(ps) == 0 {
		return out, nil
	}
	adj, err := Holm(ps)
	if err != nil {
		return nil, err
	}
	for k, i := range at {
		out[i].PAdjusted, out[i].Family = adj[k], len(ps)
		out[i] = out[i].decide()
	}
	return out, nil
}

// decide sets Kind, Need, MDE and Warnings from the numbers.
func (v Verdict) decide() Verdict {
	v.Warnings = append([]Warning(nil), v.base...)
	step := v.alpha / float64(v.Family) // what Holm asks of the smallest p
	if v.Paired {
		v.Need = max(MinRankCI, int(math.Ceil(1+math.Log2(1/step)-1e-9)))
	} else {
		v.Need = minArm(step)
	}
	if min(v.NA, v.NB) < v.Need {
		v.Kind, v.MDE = TooFew, math.Inf(1)
		v.Warnings = append(v.Warnings, Warning{"too-few-units",
			fmt.Sprintf("%d units in each arm are needed for a verdict at this level over %d comparison(s) and there are %d and %d; raise --blocks or --launches",
				v.Need, v.Family, v.NA, v.NB)})
		return v
	}
	if v.Paired {
		v.MDE = math.Expm1(detectable(v.NA, step) * v.LogSD)
	} else {
		t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(v.NA + v.NB - 2)}
		se := v.LogSD * math.Sqrt(1/float64(v.NA)+1/float64(v.NB))
		v.MDE = math.Expm1((t.Quantile(1-step/2) + t.Quantile(0.8)) * se)
	}
	v.Kind = NoDifference
	if v.PAdjusted <= v.alpha*(1+1e-12) {
		v.Kind = Different
	}
	if v.Interval != nil && v.Interval.Contains(1) == (v.Kind == Different) {
		text := "the test finds a difference but the interval includes 1: borderline, take more blocks"
		if v.Kind == NoDifference {
			text = "the interval leaves out 1 but the test does not reject: borderline, take more blocks"
			if v.Family > 1 {
				text = fmt.Sprintf("the interval leaves out 1 but is not corrected for %d comparisons; the verdict is", v.Family)
			}
		}
		v.Warnings = append(v.Warnings, Warning{"borderline", text})
	}
	return v
}

// minArm is the smallest m with 2/C(2m, m) <= alpha, at least 4: the p-value of
// two completely separated arms of m units.
func minArm(alpha float64) int {
	for m := 4; ; m++ {
		lg2, _ := math.Lgamma(float64(2*m + 1))
		lg1, _ := math.Lgamma(float64(m + 1))
		if math.Ln2-(lg2-2*lg1) <= math.Log(alpha) {
			return m
		}
	}
}
