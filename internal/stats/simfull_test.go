//go:build verifystats

package stats

import (
	"fmt"
	"math"
	"testing"
)

// Run with: go test -tags verifystats -run TestSim -v ./internal/stats/
// The tables in docs/methodology.md are its output.

func TestSimFalsePositives(t *testing.T) {
	t.Log("A/A data, AR(1), nominal 5 %: share of runs called different")
	for _, rho := range []float64{0, 0.3, 0.6, 0.9} {
		within(t, "10 randomised blocks of 3+3, ρ "+trim(rho), simBlocks(t, 4000, 10, 3, rho, 0), 0.03, 0.07)
	}
	for _, rho := range []float64{0, 0.3, 0.6, 0.9} {
		// Not a property of ours but the reason for blocks: only the first is sane.
		seq := simSequential(t, 4000, 30, rho)
		lo := map[float64]float64{0: 0.03, 0.3: 0.11, 0.6: 0.28, 0.9: 0.58}[rho]
		hi := map[float64]float64{0: 0.07, 0.3: 0.19, 0.6: 0.39, 0.9: 0.71}[rho]
		within(t, "30 A then 30 B, iterations as units, ρ "+trim(rho), seq, lo, hi)
	}
	within(t, "any of 8 sizes, 10 blocks, Holm", simFamily(t, 2000, 10, 8), 0.02, 0.06)
}

func TestSimPower(t *testing.T) {
	// 6 blocks reject only when all agree: Φ(δ)^6 + Φ(-δ)^6, computed. The others
	// come from an independent simulation of the same test (1,500 repetitions).
	published := map[float64]map[int]float64{
		0.5: {6: 0.110, 10: 0.28, 20: 0.57}, 0.75: {6: 0.214, 10: 0.54, 20: 0.88}, 1: {6: 0.355, 10: 0.79, 20: 0.99},
	}
	for _, effect := range []float64{0.5, 0.75, 1} {
		for _, n := range []int{6, 10, 20} {
			reps := 4000
			if n == 20 {
				reps = 400 // 2^19 patterns each
			}
			p := published[effect][n]
			slack := 0.03
			if n == 20 {
				slack = 0.07
			}
			within(t, fmt.Sprintf("sign-flip power, %v SD, %d blocks", effect, n), simPower(t, reps, n, effect), p-slack, p+slack)
		}
	}
	for _, n := range []int{6, 7, 8, 9, 10, 12, 15} {
		reps := 4000
		if n == 15 {
			reps = 1000
		}
		within(t, fmt.Sprintf("power at the MDE, %d blocks", n), simMDE(t, reps, n), 0.76, 0.84)
	}
}

func TestSimCoverage(t *testing.T) {
	for _, n := range []int{6, 8, 10, 15, 20} {
		for _, kind := range []string{"normal", "t3", "heavy"} {
			within(t, fmt.Sprintf("ratio interval, %d blocks, %s", n, kind), simRatioCoverage(t, 10_000, n, kind), 0.94, 0.985)
		}
	}
	for _, n := range []int{6, 10, 30} {
		for _, paired := range []bool{true, false} {
			for _, skew := range []bool{false, true} {
				share, difference := simShare(t, 10_000, n, paired, skew)
				what := fmt.Sprintf("%d blocks, paired %v, skewed %v", n, paired, skew)
				within(t, "share of medians, "+what, share, 0.935, 0.985)
				within(t, "difference of medians, "+what, difference, 0.935, 0.992)
			}
		}
	}
	for _, target := range []float64{0.01, 0.02, 0.03} {
		cover, blocks := simSequentialStop(t, 2000, target)
		within(t, fmt.Sprintf("interval at --until-ci %v%%, mean %.0f blocks", target*100, blocks), cover, 0.90, 0.97)
	}
}

func TestSimPELT(t *testing.T) {
	for _, c := range []struct {
		n         int
		rho       float64
		falseMost float64
		foundLow  float64
	}{
		{60, 0, 0.01, 0.98}, {60, 0.6, 0.01, 0.98}, {60, 0.9, 0.25, 0.95},
		{200, 0.3, 0.01, 0.98}, {200, 0.6, 0.01, 0.98}, {200, 0.9, 0.45, 0.95},
	} {
		fa, found := simPELT(t, 1000, c.n, MinSegment, 8, c.rho)
		within(t, fmt.Sprintf("PELT n %d ρ %v: stationary series with a change", c.n, c.rho), fa, 0, c.falseMost)
		within(t, fmt.Sprintf("PELT n %d ρ %v: 8-sample +6 SD warm-up found", c.n, c.rho), found, c.foundLow, 1)
	}
	// Why not a textbook penalty: 3·ln n on stationary series.
	for _, c := range []struct {
		n   int
		rho float64
	}{{60, 0.6}, {200, 0.3}, {200, 0.6}} {
		rng := newRand(uint64(c.n))
		xs := make([]float64, c.n)
		alarms := 0
		for range 1000 {
			ar1(rng, xs, c.rho)
			for i := range xs {
				xs[i] += 100
			}
			cp, err := PELT(xs, Penalty15(c.n)/5, MinSegment)
			if err != nil {
				t.Fatal(err)
			}
			if len(cp.Starts) > 0 {
				alarms++
			}
		}
		within(t, fmt.Sprintf("3·ln n, n %d ρ %v: stationary series with a change", c.n, c.rho), float64(alarms)/1000, 0.1, 1)
	}
	// Why MinSegment is 3: shorter adds nothing, longer loses short warm-ups, and
	// none of them changes the false alarms.
	for _, seg := range []int{2, 3, 5} {
		fa, _ := simPELT(t, 1000, 60, seg, 8, 0.9)
		_, found := simPELT(t, 1000, 60, seg, 4, 0)
		within(t, fmt.Sprintf("segments of %d: n 60 ρ 0.9 with a change", seg), fa, 0, 0.25)
		within(t, fmt.Sprintf("segments of %d: n 60 ρ 0, 4-sample warm-up found", seg), found, 0.5, 1)
	}
}

func TestSimCrossover(t *testing.T) {
	for _, step := range []int{2, 4} {
		for _, blocks := range []int{6, 10, 20} {
			cover, alpha, width, bias := simCrossover(t, 3000, blocks, step)
			within(t, fmt.Sprintf("crossover, ×%d grid, %d blocks (width %.1f %%)", step, blocks, width*100), cover, 0.93, 0.975)
			within(t, "  α interval", alpha, 0.93, 0.975)
			within(t, "  bias of n*", bias, -0.01, 0.01)
		}
	}
}

// simSequentialStop runs blocks until the interval of the ratio is ±target and
// returns its coverage and the mean number of blocks.
func simSequentialStop(t *testing.T, reps int, target float64) (cover, blocks float64) {
	rng := newRand(3)
	for range reps {
		var a, b []float64
		for len(a) < 200 {
			a = append(a, base(rng.NormFloat64()))
			b = append(b, base(rng.NormFloat64()))
			if len(a) < minSequential {
				continue
			}
			w, err := UntilRatioWidth(a, b, target, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if w.Reached || len(a) == 200 {
				if w.Interval.Contains(1) {
					cover++
				}
				break
			}
		}
		blocks += float64(len(a))
	}
	return cover / float64(reps), blocks / float64(reps)
}

// simFamily is the share of A/A sweeps over m sizes in which Holm's correction
// lets any size be called different.
func simFamily(t *testing.T, reps, blocks, m int) float64 {
	rng := newRand(uint64(m))
	hit := 0
	for range reps {
		vs := make([]Verdict, m)
		for i := range vs {
			a, b := make([]float64, blocks), make([]float64, blocks)
			for k := range a {
				a[k], b[k] = base(rng.NormFloat64()), base(rng.NormFloat64())
			}
			v, err := ComparePaired(a, b, Options{})
			if err != nil {
				t.Fatal(err)
			}
			vs[i] = v
		}
		vs, err := AdjustFamily(vs)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vs {
			if v.Kind == Different {
				hit++
				break
			}
		}
	}
	return float64(hit) / float64(reps)
}

func TestSimSegments(t *testing.T) {
	for _, k := range []int{6, 8, 16} {
		for _, blocks := range []int{6, 10} {
			for _, wide := range []float64{1, 4} {
				cut, found := simSegments(t, 1000, blocks, k, wide)
				within(t, fmt.Sprintf("lines of %d sizes, %d blocks, cell noise %.0f %%: cut", k, blocks, 5*wide), cut, 0, 0.1)
				within(t, "  a switch in the middle found there", found, 0.85, 1)
			}
		}
	}
}

func TestSimLaunches(t *testing.T) {
	t.Log("two records of the same, launches that differ by 10 %, blocks by noise: share called different")
	for _, noise := range []float64{0.05, 0.1, 0.2} {
		// Not a property of ours but the reason for launches.
		within(t, fmt.Sprintf("one launch of 10 blocks each, block noise %.0f %%", noise*100), simLaunches(t, 4000, 1, noise), 0.1, 0.9)
		within(t, fmt.Sprintf("6 launches of 10 blocks each, block noise %.0f %%", noise*100), simLaunches(t, 4000, 6, noise), 0.02, 0.06)
	}
}

// simLaunches is the share of comparisons of two equal records of so many launches
// that come out different.
func simLaunches(t *testing.T, reps, launches int, noise float64) float64 {
	rng := newRand(uint64(launches))
	record := func() []float64 {
		var ss []Sample
		for l := range launches {
			effect := 0.1 * rng.NormFloat64()
			for b := range 10 {
				ss = append(ss, Sample{Launch: l, Block: b, Value: 1e6 * math.Exp(effect+noise*rng.NormFloat64())})
			}
		}
		of := BlockMedians
		if launches > 1 {
			of = LaunchMedians
		}
		us, err := of(ss)
		if err != nil {
			t.Fatal(err)
		}
		return Values(us)
	}
	hit := 0
	for range reps {
		v, err := CompareUnpaired(record(), record(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Kind == Different {
			hit++
		}
	}
	return float64(hit) / float64(reps)
}

func TestSimExcursion(t *testing.T) {
	for _, n := range []int{60, 200} {
		for _, rho := range []float64{0, 0.3, 0.6, 0.9} {
			fa, found := simExcursion(t, 300, n, rho)
			within(t, fmt.Sprintf("n %d ρ %v: stationary series with an excursion", n, rho), fa, 0, 0.1)
			within(t, "  11 at 2.3 times found", found, 0, 1)
		}
	}
}

func TestSimGateFull(t *testing.T) {
	for _, n := range []int{6, 10, 20} {
		in, out := simDecide(t, 10_000, n, 1.2, 0.2, 1.05)
		within(t, fmt.Sprintf("20 %% slower, spread 20 %%, limit 5 %%, %d units: passes", n), in, 0, 0.01)
		t.Logf("  slower: %.3f, undecided: %.3f", out, 1-in-out)
		in, _ = simDecide(t, 10_000, n, 1.05, 0.05, 1.05)
		within(t, fmt.Sprintf("slower by the limit itself, spread 5 %%, %d units: passes", n), in, 0, 0.03)
		in, _ = simDecide(t, 10_000, n, 1, 0.02, 1.05)
		within(t, fmt.Sprintf("equal, spread 2 %%, %d units: passes", n), in, 0.9, 1)
	}
}
