package stats

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"

	"gonum.org/v1/gonum/stat/distuv"
)

const (
	exactSignFlip = 20     // differences enumerated exactly
	signFlipDraws = 99_999 // Monte Carlo draws above that; p is a multiple of 1e-5
	signFlipDrawn = 512    // differences that get a drawn sign each, the largest; the sum of all others is drawn at once
)

// SignFlip is the two-sided sign-flip (Fisher–Pitman) test that differences are
// symmetric about zero, which random order within blocks provides when the
// conditions do not differ.
type SignFlip struct {
	P float64
	// Exact says that all 2^n sign patterns were counted; otherwise P is
	// (b+1)/(draws+1) from Draws random patterns (Phipson & Smyth 2010).
	Exact bool
	Draws int
}

// SignFlipTest computes the test with |Σd| as statistic: exact for up to 20
// differences, else with 99,999 patterns drawn from seed. Beyond 512 differences, the
// largest 512 get a sign each, and the sum of all others is drawn from a normal
// distribution of its variance: each of them is at most 1/√512 of the standard
// deviation of the whole, so that its shape does not show. A zero difference stays
// zero under either sign and so neither adds nor removes evidence; if all are
// zero, P is 1. Ties need no rule, since no ranks are taken.
func SignFlipTest(d []float64, seed uint64) (SignFlip, error) {
	if err := checkFinite("differences", d); err != nil {
		return SignFlip{}, err
	}
	v := make([]float64, 0, len(d))
	top := 0.0
	for _, x := range d {
		top = math.Max(top, math.Abs(x))
	}
	var obs, scale float64
	for _, x := range d {
		if x != 0 {
			x /= top // no overflow, and the tolerance below is relative
			v = append(v, math.Abs(x))
			obs += x
			scale += math.Abs(x)
		}
	}
	// Equal sums in another order of additions differ in the last bits only.
	limit := math.Abs(obs) - 1e-12*scale
	n := len(v)
	if n == 0 {
		return SignFlip{P: 1, Exact: true}, nil
	}
	if n <= exactSignFlip {
		// By symmetry the first sign is held; a Gray code changes one at a time.
		hit, half := 0, 1<<(n-1)
		sum := 0.0
		for _, x := range v {
			sum += x
		}
		sign := make([]float64, n)
		for i := range sign {
			sign[i] = 1
		}
		for g := range half {
			if g > 0 {
				i := bits.TrailingZeros(uint(g)) + 1
				sign[i] = -sign[i]
				sum += 2 * sign[i] * v[i]
			}
			if math.Abs(sum) >= limit {
				hit++
			}
		}
		return SignFlip{P: float64(hit) / float64(half), Exact: true}, nil
	}
	src := rand.NewPCG(seed, 0x7369676e) // a stream of its own
	rest := 0.0
	if n > signFlipDrawn {
		slices.SortFunc(v, func(a, b float64) int { return cmp.Compare(b, a) })
		for _, x := range v[signFlipDrawn:] {
			rest += x * x
		}
		v, rest = v[:signFlipDrawn], math.Sqrt(rest)
	}
	normal := rand.New(src)
	hit := 0
	for range signFlipDraws {
		sum, word := 0.0, uint64(0)
		if rest > 0 {
			sum = rest * normal.NormFloat64()
		}
		for i, x := range v {
			if i%64 == 0 {
				word = src.Uint64()
			}
			// Without a branch, which half of the signs would mispredict.
			sum += math.Float64frombits(math.Float64bits(x) ^ ^word<<63)
			word >>= 1
		}
		if math.Abs(sum) >= limit {
			hit++
		}
	}
	return SignFlip{P: float64(hit+1) / (signFlipDraws + 1), Draws: signFlipDraws}, nil
}

// MinUnits is the smallest number of blocks whose sign-flip test can reach
// alpha after Holm's correction over a family of m comparisons: the smallest
// possible p is 2/2^n. MinUnits(0.05, 1) is 6; 10 blocks serve up to 25
// comparisons. It returns an error for alpha outside (0, 1) or m below 1.
func MinUnits(alpha float64, m int) (int, error) {
	if !(alpha > 0 && alpha < 1) {
		return 0, optionError("alpha", alpha)
	}
	if m < 1 {
		return 0, optionError("family size", float64(m))
	}
	return int(math.Ceil(1 + math.Log2(float64(m)/alpha) - 1e-9)), nil
}

// detectable returns the difference, in standard deviations of the units'
// differences, that is found with 80 % power by n blocks at two-sided alpha.
//
// It is (t_{1-α/2,n-1} + t_{.8,n-1})/√n, raised for up to 10 blocks to the
// effect at which the sign-flip test itself, which has few levels there, finds
// 80 % of normal samples. n must be 2 or more and 2/2^n at most alpha.
func detectable(n int, alpha float64) float64 {
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(n - 1)}
	f := (t.Quantile(1-alpha/2) + t.Quantile(0.8)) / math.Sqrt(float64(n))
	if n <= 10 {
		f = math.Max(f, signFlipDetectable(n, alpha))
	}
	return f
}

type flipKey struct{ n, k int }

var flipCache sync.Map // flipKey → float64: the value depends on nothing else

// signFlipDetectable simulates the sign-flip test's 80 % point for n <= 10.
//
// With k = ⌊α·2^n/2⌋, the test rejects upwards when at most k of the 2^n sums
// reach the observed one, that is, when fewer than k non-empty subsets S of the
// shifted values z+δ have a mean of zero or less. So a sample z is rejected from
// δ* on, the k-th largest of -mean_S(z), and the 80 % point of δ* over samples
// is the effect wanted. 4,000 samples from a fixed seed; its error is about 1 %.
func signFlipDetectable(n int, alpha float64) float64 {
	k := int(alpha*float64(int(1)<<n)/2 + 1e-9)
	if k < 1 {
		return math.Inf(1)
	}
	key := flipKey{n, k}
	if v, ok := flipCache.Load(key); ok {
		return v.(float64)
	}
	rng := rand.New(rand.NewPCG(uint64(n), uint64(k)))
	const reps = 4000
	star := make([]float64, reps)
	sums := make([]float64, 1<<n)
	means := make([]float64, 0, 1<<n)
	for r := range star {
		means = means[:0]
		for i := range n {
			z := rng.NormFloat64()
			for s := 1 << i; s < 2<<i; s++ {
				sums[s] = sums[s-1<<i] + z
				means = append(means, -sums[s]/float64(bits.OnesCount(uint(s))))
			}
		}
		slices.Sort(means)
		star[r] = means[len(means)-k]
	}
	slices.Sort(star)
	v := star[reps*8/10]
	flipCache.Store(key, v)
	return v
}

func optionError(what string, v float64) error {
	return fmt.Errorf("stats: %s %v: %w", what, v, ErrOption)
}
