package stats

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// Sample is one measured value and where in the run it was taken.
type Sample struct {
	// Launch counts fresh processes and connections from 0; Block counts the
	// randomised blocks within a launch from 0.
	Launch, Block int
	// Value is the time in nanoseconds (or another positive base unit).
	Value float64
}

// UnitKey names a unit: a block of a launch, or a whole launch (Block -1).
type UnitKey struct{ Launch, Block int }

// Unit is one independent observation: the median of a block or of a launch.
type Unit struct {
	Key   UnitKey
	Value float64
	// N is the number of samples (of blocks, for a launch) behind Value.
	N int
}

// BlockMedians reduces samples to one median per (launch, block), in that
// order. The samples of a block are correlated and so count as one unit.
func BlockMedians(samples []Sample) ([]Unit, error) {
	if len(samples) == 0 {
		return nil, fmt.Errorf("stats: block medians: %w", ErrEmpty)
	}
	groups := map[UnitKey][]float64{}
	for i, s := range samples {
		if s.Launch < 0 || s.Block < 0 {
			return nil, fmt.Errorf("stats: sample %d: launch %d, block %d: negative: %w", i, s.Launch, s.Block, ErrOption)
		}
		k := UnitKey{s.Launch, s.Block}
		groups[k] = append(groups[k], s.Value)
	}
	return medians(groups)
}

// LaunchMedians reduces samples to one value per launch: the median of its block
// medians. With fresh processes the launch is what was repeated independently.
//
// Source: Hunold & Carpen-Amarie, arXiv 1505.07734; Kalibera & Jones, ISMM'13.
func LaunchMedians(samples []Sample) ([]Unit, error) {
	blocks, err := BlockMedians(samples)
	if err != nil {
		return nil, err
	}
	groups := map[UnitKey][]float64{}
	for _, b := range blocks {
		k := UnitKey{b.Key.Launch, -1}
		groups[k] = append(groups[k], b.Value)
	}
	return medians(groups)
}

func medians(groups map[UnitKey][]float64) ([]Unit, error) {
	units := make([]Unit, 0, len(groups))
	for k, xs := range groups {
		if err := checkFinite(fmt.Sprintf("launch %d block %d", k.Launch, k.Block), xs); err != nil {
			return nil, err
		}
		units = append(units, Unit{Key: k, Value: medianSorted(sorted(xs)), N: len(xs)})
	}
	slices.SortFunc(units, func(a, b Unit) int {
		return cmp.Or(cmp.Compare(a.Key.Launch, b.Key.Launch), cmp.Compare(a.Key.Block, b.Key.Block))
	})
	return units, nil
}

// Values returns the units' values in their order.
func Values(units []Unit) []float64 {
	out := make([]float64, len(units))
	for i, u := range units {
		out[i] = u.Value
	}
	return out
}

// PairUnits matches the units of two conditions by key. Units without a partner
// (a block cut short by an interrupt) are left out and counted in dropped. Each
// key may stand once in each slice.
func PairUnits(a, b []Unit) (as, bs []float64, dropped int, err error) {
	byKey := make(map[UnitKey]float64, len(b))
	for _, u := range b {
		if _, twice := byKey[u.Key]; twice {
			return nil, nil, 0, fmt.Errorf("stats: pair units: launch %d block %d stands twice: %w", u.Key.Launch, u.Key.Block, ErrShape)
		}
		byKey[u.Key] = u.Value
	}
	seen := make(map[UnitKey]bool, len(a))
	for _, u := range a {
		if seen[u.Key] {
			return nil, nil, 0, fmt.Errorf("stats: pair units: launch %d block %d stands twice: %w", u.Key.Launch, u.Key.Block, ErrShape)
		}
		seen[u.Key] = true
		v, ok := byKey[u.Key]
		if !ok {
			dropped++
			continue
		}
		as, bs = append(as, u.Value), append(bs, v)
	}
	return as, bs, dropped + len(b) - len(bs), nil
}

// Order returns the order in which a block runs its n conditions: a permutation
// of 0…n-1 that depends on seed, block and n only, so that a printed seed
// replays the run. It is a Fisher–Yates shuffle written out here, driven by PCG
// (math/rand/v2), whose stream is fixed by the Go compatibility promise,
// unlike the library's own shuffle. n below 1 gives an empty order.
func Order(seed uint64, block, n int) []int {
	if n < 1 {
		return nil
	}
	src := rand.NewPCG(seed, mix(uint64(block)))
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j, _ := bits.Mul64(src.Uint64(), uint64(i+1)) // uniform on 0…i up to 2^-64·(i+1)
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// mix is the finaliser of SplitMix64: it sends neighbouring block numbers to
// unrelated generator states.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Autocorrelation is what a series in time order says about its independence.
type Autocorrelation struct {
	N int
	// Rho is the lag-1 autocorrelation Σ(x_t-m)(x_{t+1}-m) / Σ(x_t-m)², the
	// usual estimate; for short series it is biased towards zero and below by
	// about (1+4ρ)/n.
	Rho float64
	// Effective is n(1-ρ)/(1+ρ), the number of independent values with the
	// same standard error of the mean under AR(1); never more than N, so that
	// a negative estimate does not claim more than was measured.
	Effective float64
	Warnings  []Warning
}

// Autocorrelate estimates the lag-1 autocorrelation and the effective sample size
// of a series in time order, and warns when that is below 6 or half of n.
//
// Source: Kendall & Stuart, The Advanced Theory of Statistics, vol. 3, §45;
// Zięba & Ramza, Metrol. Meas. Syst. 18 (2011) 529, for the effective size.
func Autocorrelate(xs []float64) (Autocorrelation, error) {
	if err := checkFinite("series", xs); err != nil {
		return Autocorrelation{}, err
	}
	n := len(xs)
	if n < 3 {
		return Autocorrelation{}, fmt.Errorf("stats: autocorrelation of %d values, need 3: %w", n, ErrTooFew)
	}
	// Scaling by the largest deviation keeps squares inside the range of a float.
	dev, scale := deviations(xs)
	ac := Autocorrelation{N: n}
	if scale > 0 { // a constant series has no correlation to speak of
		var num, den float64
		for i, d := range dev {
			den += d * d
			if i > 0 {
				num += d * dev[i-1]
			}
		}
		ac.Rho = num / den
	}
	ac.Effective = math.Min(float64(n), float64(n)*(1-ac.Rho)/(1+ac.Rho))
	if ac.Effective < math.Max(6, float64(n)/2) {
		ac.Warnings = append(ac.Warnings, Warning{"few-effective-samples",
			fmt.Sprintf("%d values with lag-1 correlation %.2f are worth %.1f independent ones; take more blocks or launches, not more iterations",
				n, ac.Rho, ac.Effective)})
	}
	return ac, nil
}

// deviations returns (x-mean)/scale with scale the largest |x-mean|, or zeros
// and scale 0 for a constant series.
func deviations(xs []float64) (dev []float64, scale float64) {
	top := 0.0
	for _, x := range xs {
		top = math.Max(top, math.Abs(x))
	}
	dev = make([]float64, len(xs))
	if top == 0 {
		return dev, 0
	}
	mean := 0.0
	for i, x := range xs {
		dev[i] = x / top
		mean += (dev[i] - mean) / float64(i+1)
	}
	for i := range dev {
		dev[i] -= mean
		scale = math.Max(scale, math.Abs(dev[i]))
	}
	if scale < 1e-15 { // rounding of a constant, not a signal
		clear(dev)
		return dev, 0
	}
	for i := range dev {
		dev[i] /= scale
	}
	return dev, scale
}
