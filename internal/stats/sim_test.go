package stats

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// The simulations. Each is a function of its number of repetitions; this file
// runs them briefly with bounds that allow for the Monte Carlo error, and
// simfull_test.go (tag verifystats) at full length against the stated rates.

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5eed)) }

// ar1 fills xs with a stationary AR(1) series of variance 1.
func ar1(rng *rand.Rand, xs []float64, rho float64) {
	x := rng.NormFloat64()
	for i := range xs {
		xs[i] = x
		x = rho*x + math.Sqrt(1-rho*rho)*rng.NormFloat64()
	}
}

// base turns unit noise into a time in ns with a spread of 3 %.
func base(z float64) float64 { return 50e6 * math.Exp(0.03*z) }

// simBlocks is the whole pipeline on A/A data: blocks of k+k iterations in the
// order that Order gives, block medians, ComparePaired. effect is added to B's
// log time. It returns the share of runs called different.
func simBlocks(t *testing.T, reps, blocks, k int, rho, effect float64) float64 {
	rng := newRand(uint64(1000*rho) + uint64(blocks))
	noise := make([]float64, blocks*2*k)
	hit := 0
	for r := range reps {
		ar1(rng, noise, rho)
		arms := make([][]Sample, 2)
		at := 0
		for b := range blocks {
			for _, c := range Order(uint64(r), b, 2) {
				for range k {
					arms[c] = append(arms[c], Sample{Block: b, Value: base(noise[at]) * math.Exp(effect*float64(c))})
					at++
				}
			}
		}
		ua, err := BlockMedians(arms[0])
		if err != nil {
			t.Fatal(err)
		}
		ub, err := BlockMedians(arms[1])
		if err != nil {
			t.Fatal(err)
		}
		as, bs, _, err := PairUnits(ua, ub)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ComparePaired(as, bs, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Kind == Different {
			hit++
		}
	}
	return float64(hit) / float64(reps)
}

// simSequential is what the tool does not do: n runs of A, then n of B, every
// iteration a unit, Mann–Whitney.
func simSequential(t *testing.T, reps, n int, rho float64) float64 {
	rng := newRand(uint64(1000*rho) + 7)
	noise := make([]float64, 2*n)
	hit := 0
	for range reps {
		ar1(rng, noise, rho)
		for i := range noise {
			noise[i] = base(noise[i])
		}
		v, err := CompareUnpaired(noise[:n], noise[n:], Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Kind == Different {
			hit++
		}
	}
	return float64(hit) / float64(reps)
}

// simPower is the power of the sign-flip test at an effect in SDs of the block
// difference.
func simPower(t *testing.T, reps, n int, effect float64) float64 {
	rng := newRand(uint64(n))
	d := make([]float64, n)
	hit := 0
	for range reps {
		for i := range d {
			d[i] = rng.NormFloat64() + effect
		}
		sf, err := SignFlipTest(d, 1)
		if err != nil {
			t.Fatal(err)
		}
		if sf.P <= 0.05 {
			hit++
		}
	}
	return float64(hit) / float64(reps)
}

// noiseKinds are symmetric errors: normal, Student t with 3 df, and heavy tails
// (a tenth of the values ten times as wide).
var noiseKinds = map[string]func(*rand.Rand) float64{
	"normal": func(r *rand.Rand) float64 { return r.NormFloat64() },
	"t3": func(r *rand.Rand) float64 {
		a, b, c := r.NormFloat64(), r.NormFloat64(), r.NormFloat64()
		return r.NormFloat64() / math.Sqrt((a*a+b*b+c*c)/3)
	},
	"heavy": func(r *rand.Rand) float64 {
		z := r.NormFloat64()
		if r.Float64() < 0.1 {
			z *= 10
		}
		return z
	},
}

// simRatioCoverage is how often ComparePaired's interval holds the true ratio 1.2.
func simRatioCoverage(t *testing.T, reps, n int, kind string) float64 {
	rng := newRand(uint64(n))
	a, b := make([]float64, n), make([]float64, n)
	hit := 0
	for range reps {
		for i := range a {
			shared := rng.NormFloat64() // what a block does to both arms
			a[i] = base(shared)
			b[i] = 1.2 * base(shared+noiseKinds[kind](rng))
		}
		d := make([]float64, n)
		for i := range d {
			d[i] = math.Log(b[i] / a[i])
		}
		iv, ok := signedRankInterval(d, 0.95)
		if !ok {
			t.Fatalf("no interval for n=%d", n)
		}
		if iv.Contains(math.Log(1.2)) {
			hit++
		}
	}
	return float64(hit) / float64(reps)
}

// simMDE is the power at the effect that detectable promises 80 % for.
func simMDE(t *testing.T, reps, n int) float64 { return simPower(t, reps, n, detectable(n, 0.05)) }

// simPELT returns the share of stationary series with any change point, and the
// share of warm-ups of warm samples at +6 SD that are found within ±1 iteration.
func simPELT(t *testing.T, reps, n, minSegment, warm int, rho float64) (falseAlarm, found float64) {
	rng := newRand(uint64(n) + uint64(1000*rho))
	xs := make([]float64, n)
	var fa, ok int
	for range reps {
		ar1(rng, xs, rho)
		for i := range xs {
			xs[i] = 100 + xs[i]
		}
		cp, err := PELT(xs, Penalty15(n), minSegment)
		if err != nil {
			t.Fatal(err)
		}
		if len(cp.Starts) > 0 {
			fa++
		}
		for i := range warm {
			xs[i] += 6
		}
		cp, err = PELT(xs, Penalty15(n), minSegment)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range cp.Starts {
			if s >= warm-1 && s <= warm+1 {
				ok++
				break
			}
		}
	}
	return float64(fa) / float64(reps), float64(ok) / float64(reps)
}

// simCrossover is the case of two transports, 20 µs + 1 GB/s and 60 µs + 10 GB/s,
// which cross at 44,444 B; sizes from 4 KiB by a factor of step, 3 % noise of a
// block and transport and 5 % of a cell. It returns coverage of the interval of
// n*, the coverage of α_A, the mean width and bias relative to n*.
func simCrossover(t *testing.T, reps, blocks, step int) (cover, alpha, width, bias float64) {
	rng := newRand(uint64(blocks*10 + step))
	const truth = 40e3 / 0.9
	for range reps {
		var pa, pb []CostPoint
		for b := range blocks {
			fa, fb := math.Exp(0.03*rng.NormFloat64()), math.Exp(0.03*rng.NormFloat64())
			for n := int64(4096); n <= 1<<20; n *= int64(step) {
				pa = append(pa, CostPoint{Block: b, Bytes: n, TimeNS: (20e3 + float64(n)) * fa * math.Exp(0.05*rng.NormFloat64())})
				pb = append(pb, CostPoint{Block: b, Bytes: n, TimeNS: (60e3 + float64(n)/10) * fb * math.Exp(0.05*rng.NormFloat64())})
			}
		}
		ma, err := FitCost(pa, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		mb, err := FitCost(pb, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		c, err := FindCrossover(ma, mb, 0)
		if err != nil {
			t.Fatal(err)
		}
		if ma.AlphaCI.Contains(20e3) {
			alpha++
		}
		if c.Kind == CrossesAt && c.Interval.Contains(truth) {
			cover++
		}
		if c.Kind == CrossesAt {
			width += (c.Interval.Hi - c.Interval.Lo) / truth
		}
		bias += c.Bytes/truth - 1
	}
	n := float64(reps)
	return cover / n, alpha / n, width / n, bias / n
}

// simShare is the coverage of the intervals of a share and of a difference of
// medians: a part of 25 % with 10 % noise of its own in wholes that vary by 8 %,
// paired or from separate samples. The noise is log-normal; with skew it is 5 times as
// large.
func simShare(t *testing.T, reps, n int, paired, skew bool) (share, difference float64) {
	rng := newRand(uint64(n))
	noise := func(sd float64) float64 {
		if skew {
			sd *= 5
		}
		return math.Exp(sd * rng.NormFloat64())
	}
	for range reps {
		part, whole := make([]float64, n), make([]float64, n)
		for i := range whole {
			whole[i] = 200e6 * noise(0.08)
			part[i] = 50e6 * noise(0.1)
			if paired {
				part[i] *= whole[i] / 200e6
			}
		}
		set := 1
		if paired {
			set = 0
		}
		p, w := Term{1, part, 0}, Term{1, whole, set}
		s, err := ShareOf([]Term{p}, []Term{w}, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		p.Weight = -1
		d, err := Contrast([]Term{w, p}, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		if s.Interval != nil && s.Interval.Contains(0.25) {
			share++
		}
		if d.Interval.Contains(150e6) {
			difference++
		}
	}
	return share / float64(reps), difference / float64(reps)
}

// within prints a simulated rate beside its bounds and fails outside them.
func within(t *testing.T, what string, got, lo, hi float64) {
	t.Helper()
	t.Logf("%-52s %6.1f %%   (allowed %.1f–%.1f)", what, got*100, lo*100, hi*100)
	if !(got >= lo && got <= hi) {
		t.Errorf("%s: %.2f %%, outside %.1f–%.1f %%", what, got*100, lo*100, hi*100)
	}
}

// The short versions: bounds are the stated ones widened by three Monte Carlo
// standard errors, so that they hold for any seed worth having, and the seeds
// are fixed.
func TestSimShort(t *testing.T) {
	for _, rho := range []float64{0, 0.6, 0.9} {
		within(t, "blocks A/A, ρ "+trim(rho), simBlocks(t, 400, 10, 3, rho, 0), 0.02, 0.085)
	}
	within(t, "sequential A/A, ρ .9", simSequential(t, 100, 30, 0.9), 0.45, 0.80)
	within(t, "power 1 SD, 10 blocks", simPower(t, 500, 10, 1), 0.73, 0.85)
	within(t, "power at the MDE, 6 blocks", simMDE(t, 1000, 6), 0.76, 0.84)
	within(t, "ratio interval, n 10, t3", simRatioCoverage(t, 1000, 10, "t3"), 0.93, 0.975)
	fa, found := simPELT(t, 100, 60, MinSegment, 8, 0.6)
	within(t, "PELT false alarms, n 60, ρ .6", fa, 0, 0.05)
	within(t, "PELT warm-up found", found, 0.95, 1)
	cover, alpha, _, bias := simCrossover(t, 300, 10, 4)
	within(t, "crossover interval, 10 blocks, ×4", cover, 0.915, 0.985)
	within(t, "α interval", alpha, 0.915, 0.985)
	within(t, "crossover bias", bias, -0.02, 0.02)
	share, difference := simShare(t, 1000, 10, true, false)
	within(t, "share, paired, n 10", share, 0.94, 0.99)
	within(t, "difference of medians, paired, n 10", difference, 0.94, 0.99)
}

func trim(rho float64) string { return strconv.FormatFloat(rho, 'g', -1, 64) }

// simSegments is the share of lines of k sizes that are cut in two, and of lines
// that change in the middle, by 15 µs to the start and a fifth of the time per
// byte, that are cut there; noise as in simCrossover times wide.
func simSegments(t *testing.T, reps, blocks, k int, wide float64) (falseCut, found float64) {
	rng := newRand(uint64(blocks*100 + k))
	sizes := make([]int64, k)
	for i := range sizes {
		sizes[i] = 1 << (10 + 16*i/(k-1))
	}
	segments := func(at int) []CostModel {
		var ps []CostPoint
		for b := range blocks {
			f := math.Exp(0.03 * wide * rng.NormFloat64())
			for i, n := range sizes {
				t := 10e3 + float64(n)
				if i >= at {
					t = 25e3 + float64(n)/5
				}
				ps = append(ps, CostPoint{Block: b, Bytes: n, TimeNS: t * f * math.Exp(0.05*wide*rng.NormFloat64())})
			}
		}
		ms, err := FitSegments(ps, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		return ms
	}
	for range reps {
		if len(segments(k)) > 1 {
			falseCut++
		}
		// k/2 is past 32 KiB, where the difference of the two protocols is largest.
		if ms := segments(k / 2); len(ms) == 2 && ms[1].MinBytes == sizes[k/2] {
			found++
		}
	}
	return falseCut / float64(reps), found / float64(reps)
}

// simExcursion is the share of stationary series with lag-1 correlation rho, log-normal
// with a standard deviation of 30 %, in which an excursion is claimed, and of those
// with 11 iterations in the middle 2.3 times as slow, in which it is found to ±3.
func simExcursion(t *testing.T, reps, n int, rho float64) (falseAlarm, found float64) {
	rng := newRand(uint64(n))
	xs := make([]float64, n)
	classify := func() Steady {
		st, err := Classify(xs)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for range reps {
		ar1(rng, xs, rho)
		for i := range xs {
			xs[i] = 50 * math.Exp(0.3*xs[i])
		}
		if classify().Class == Excursions {
			falseAlarm++
		}
		at := n / 2
		for i := at; i < at+11; i++ {
			xs[i] *= 2.3
		}
		for _, e := range classify().Excursions {
			if max(e.Start-at, at-e.Start) <= 3 && max(e.End-at-11, at+11-e.End) <= 3 {
				found++
			}
		}
	}
	return falseAlarm / float64(reps), found / float64(reps)
}
