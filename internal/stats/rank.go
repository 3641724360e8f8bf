package stats

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"sync"

	"gonum.org/v1/gonum/stat/distuv"
)

// The largest samples for which the null distributions are computed exactly;
// above, the normal approximation is used. At 50 its error in a 5 % p-value is
// already below 0.0005.
const (
	exactSignedRank = 50 // units
	exactRankSum    = 60 // units in both samples together
)

// The intervals below select an order statistic among the n(n+1)/2 Walsh averages
// or the m·n differences without building them: the count of values up to t
// grows with t, so t is bisected over the float64s themselves (64 steps of O(n)),
// which ends on the order statistic exactly.

// ordered maps finite floats to integers in the same order, and unordered back.
func ordered(f float64) int64 {
	b := int64(math.Float64bits(f))
	if b < 0 {
		return math.MinInt64 - b
	}
	return b
}

func unordered(k int64) float64 {
	if k < 0 {
		return math.Float64frombits(uint64(math.MinInt64 - k))
	}
	return math.Float64frombits(uint64(k))
}

// selectCounted returns the smallest float t in [lo, hi] with count(t) >= k.
func selectCounted(lo, hi float64, k int, count func(float64) int) float64 {
	a, b := ordered(lo), ordered(hi)
	for a < b {
		mid := a&b + (a^b)>>1 // floor of the mean, without overflow
		if count(unordered(mid)) >= k {
			b = mid
		} else {
			a = mid + 1
		}
	}
	return unordered(a)
}

// walsh returns the k-th smallest (from 1) Walsh average (x_i+x_j)/2, i <= j.
func walsh(s []float64, k int) float64 {
	n := len(s)
	return selectCounted(s[0], s[n-1], k, func(t float64) int {
		c, j := 0, n-1
		for i := range s {
			for j >= i && midpoint(s[i], s[j]) > t {
				j--
			}
			if j < i {
				break
			}
			c += j - i + 1
		}
		return c
	})
}

// difference returns the k-th smallest (from 1) of all y_j - x_i.
func difference(x, y []float64, k int) float64 {
	lo, hi := y[0]-x[len(x)-1], y[len(y)-1]-x[0]
	return selectCounted(lo, hi, k, func(t float64) int {
		c, j := 0, 0
		for i := range x {
			for j < len(y) && y[j]-x[i] <= t {
				j++
			}
			c += j
		}
		return c
	})
}

// middle is the median of total values reached through at(k), k from 1.
func middle(total int, at func(int) float64) float64 {
	if total%2 == 1 {
		return at(total/2 + 1)
	}
	return midpoint(at(total/2), at(total/2+1))
}

// hodgesLehmann is the median of the Walsh averages of finite values d.
func hodgesLehmann(d []float64) float64 {
	s := sorted(d)
	n := len(s)
	return middle(n*(n+1)/2, func(k int) float64 { return walsh(s, k) })
}

// signedRankInterval inverts the Wilcoxon signed-rank test: (W_(c), W_(M+1-c))
// among the M = n(n+1)/2 Walsh averages, c the largest with coverage at least
// level. ok is false when no such c exists (n < 6 at 95 %). With ties the
// closed interval covers at least as often.
//
// Source: Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 3rd
// ed., §3.3.
func signedRankInterval(d []float64, level float64) (iv Interval, ok bool) {
	s := sorted(d)
	n := len(s)
	m := n * (n + 1) / 2
	c, reached := 0, 0.0
	if n <= exactSignedRank {
		tail := 0.0
		for w, p := range signedRankNull(n) { // P(T = w)
			tail += p
			if 1-2*tail < level || 2*(w+1) > m+1 {
				break
			}
			c, reached = w+1, 1-2*tail
		}
	} else {
		c, reached = approxRank(float64(m)/2, math.Sqrt(float64(n)*float64(n+1)*float64(2*n+1)/24), level)
	}
	if c < 1 {
		return Interval{}, false
	}
	return Interval{Lo: walsh(s, c), Hi: walsh(s, m+1-c), Level: reached}, true
}

// approxRank is the normal counterpart of the exact search: the largest c with
// P(T <= c-1) <= (1-level)/2 under N(mean, sd), with continuity correction.
func approxRank(mean, sd, level float64) (c int, reached float64) {
	z := distuv.UnitNormal.Quantile((1 + level) / 2)
	c = int(math.Floor(mean - z*sd + 0.5))
	if c < 1 {
		return 0, 0
	}
	return c, 1 - 2*distuv.UnitNormal.CDF((float64(c)-0.5-mean)/sd)
}

// signedRankNull returns P(T = w), w = 0…n(n+1)/2, for the sum of the ranks of
// the positive values without ties: n fair coins, coin i worth i.
func signedRankNull(n int) []float64 {
	p := make([]float64, n*(n+1)/2+1)
	p[0] = 1
	top := 0
	for i := 1; i <= n; i++ {
		top += i
		for w := top; w >= 0; w-- {
			q := p[w] / 2
			if w >= i {
				q += p[w-i] / 2
			}
			p[w] = q
		}
	}
	return p
}

// midranks returns twice the average rank of each value, an integer, so that ties
// stay exact, and Σ(t³-t) over the groups of t ties.
func midranks(xs []float64) (twice []int, ties float64) {
	idx := make([]int, len(xs))
	for i := range idx {
		idx[i] = i
	}
	slices.SortFunc(idx, func(a, b int) int { return cmp.Compare(xs[a], xs[b]) })
	twice = make([]int, len(xs))
	for i := 0; i < len(idx); {
		j := i + 1
		for j < len(idx) && xs[idx[j]] == xs[idx[i]] {
			j++
		}
		for _, k := range idx[i:j] {
			twice[k] = i + 1 + j
		}
		t := float64(j - i)
		ties += t*t*t - t
		i = j
	}
	return twice, ties
}

// rankSumP is the two-sided Mann–Whitney p: exact, ties included, up to
// exactRankSum values (twice the smaller tail of the permutation distribution of
// the midrank sum), else normal with tie and continuity correction.
func rankSumP(x, y []float64) (p float64, exact bool) {
	m, n := len(x), len(y)
	total := m + n
	ranks, ties := midranks(append(slices.Clone(x), y...))
	obs, sum := 0, 0
	for i, r := range ranks {
		sum += r
		if i < m {
			obs += r
		}
	}
	if total <= exactRankSum {
		var null []float64
		if ties == 0 {
			null = plainRankSum(m, n)
			obs = (obs - m*(m+1)) / 2 // doubled rank sum to U
		} else {
			null = rankSumNull(ranks, m, sum)
		}
		le, ge := 0.0, 0.0
		for w, q := range null {
			if w <= obs {
				le += q
			}
			if w >= obs {
				ge += q
			}
		}
		return math.Min(1, 2*math.Min(le, ge)), true
	}
	fm, fn, ft := float64(m), float64(n), float64(total)
	mean := fm * (ft + 1) / 2
	sd := math.Sqrt(fm * fn / 12 * (ft + 1 - ties/(ft*(ft-1))))
	if sd == 0 {
		return 1, false
	}
	z := math.Max(0, math.Abs(float64(obs)/2-mean)-0.5) / sd
	return math.Min(1, 2*distuv.UnitNormal.CDF(-z)), false
}

// rankSumNull returns P(R = w) for the sum R of m of the given (doubled) ranks,
// every subset equally likely.
func rankSumNull(ranks []int, m, sum int) []float64 {
	// ways[k][w]: share of the subsets of size k among the ranks seen so far
	// that sum to w, updated as in sampling without replacement.
	ways := make([][]float64, m+1)
	for k := range ways {
		ways[k] = make([]float64, sum+1)
	}
	ways[0][0] = 1
	for i, r := range ranks {
		// C(i,k)/C(i+1,k) = (i+1-k)/(i+1) and C(i,k-1)/C(i+1,k) = k/(i+1)
		for k := min(m, i+1); k >= 0; k-- {
			stay, take := float64(i+1-k)/float64(i+1), float64(k)/float64(i+1)
			for w := sum; w >= 0; w-- {
				q := ways[k][w] * stay
				if k > 0 && w >= r {
					q += ways[k-1][w-r] * take
				}
				ways[k][w] = q
			}
		}
	}
	return ways[m]
}

var plainCache sync.Map // [2]int{m, n} → []float64, at most 60²/2 entries

// plainRankSum returns P(U = u), u = 0…mn, without ties; not to be changed.
func plainRankSum(m, n int) []float64 {
	key := [2]int{m, n}
	if v, ok := plainCache.Load(key); ok {
		return v.([]float64)
	}
	plain := make([]int, m+n)
	for i := range plain {
		plain[i] = i + 1
	}
	low := m * (m + 1) / 2
	null := rankSumNull(plain, m, (m+n)*(m+n+1)/2)[low : low+m*n+1]
	plainCache.Store(key, null)
	return null
}

// rankSumInterval inverts the Mann–Whitney test: (D_(c), D_(mn+1-c)) among the
// differences y-x. ok is false when no c reaches level.
//
// Source: Hollander, Wolfe & Chicken, §4.3.
func rankSumInterval(x, y []float64, level float64) (iv Interval, ok bool) {
	xs, ys := sorted(x), sorted(y)
	m, n := len(xs), len(ys)
	c, reached := 0, 0.0
	if m+n <= exactRankSum {
		null := plainRankSum(m, n)
		tail := 0.0
		for u := 0; 2*(u+1) <= m*n+1; u++ {
			tail += null[u]
			if 1-2*tail < level {
				break
			}
			c, reached = u+1, 1-2*tail
		}
	} else {
		fm, fn := float64(m), float64(n)
		c, reached = approxRank(fm*fn/2, math.Sqrt(fm*fn*(fm+fn+1)/12), level)
	}
	if c < 1 {
		return Interval{}, false
	}
	return Interval{Lo: difference(xs, ys, c), Hi: difference(xs, ys, m*n+1-c), Level: reached}, true
}

// Holm returns Holm's step-down adjusted p-values, in the order of ps. It holds
// the chance of even one false "different" in the family to the level, under
// any dependence.
//
// Source: Holm, Scand. J. Statist. 6 (1979) 65.
func Holm(ps []float64) ([]float64, error) {
	if err := checkFinite("p-values", ps); err != nil {
		return nil, err
	}
	idx := make([]int, len(ps))
	for i, p := range ps {
		if p < 0 || p > 1 {
			return nil, optionError("p-value", p)
		}
		idx[i] = i
	}
	sort.SliceStable(idx, func(a, b int) bool { return ps[idx[a]] < ps[idx[b]] })
	out := make([]float64, len(ps))
	run := 0.0
	for rank, i := range idx {
		run = math.Max(run, math.Min(1, float64(len(ps)-rank)*ps[i]))
		out[i] = run
	}
	return out, nil
}
