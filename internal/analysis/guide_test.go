package analysis_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

// costs are lines over sizes: from the i-th limit on holds the i-th cost.
type costs struct {
	limits []int64
	lines  []synth.Truth
}

func (c costs) of(n int64) synth.Truth {
	i := 0
	for i+1 < len(c.limits) && n >= c.limits[i+1] {
		i++
	}
	return c.lines[i]
}

// grid is a sweep of two transports of such costs.
func grid(seed uint64, a, b costs, sizes []int64, blocks int) synth.Spec {
	s := synth.Spec{Name: "grid", Seed: seed, Kind: "sweep", Hosts: 1, Blocks: blocks, Iters: 1, Unchecked: true, End: &record.End{Status: record.StatusOK}}
	for _, n := range sizes {
		s.Cells = append(s.Cells, synth.Cell{Condition: synth.KV("tcp", "read", kv.Contiguous, 1, n), Truth: a.of(n)},
			synth.Cell{Condition: synth.KV("ucx:tcp", "read", kv.Contiguous, 1, n), Truth: b.of(n)})
	}
	return s
}

var sizesBy4 = []int64{1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24}

// kept holds that no zone recommends a transport that the table shows to be slower at
// a size in it, that zones cover every size, and that a crossing lies between sizes
// of opposite verdicts.
func kept(a *analysis.Analysis) error {
	for _, g := range a.Guides {
		covered := 0
		for _, p := range a.Pairs {
			n := int64(p.A.Bytes)
			for _, z := range g.Zones {
				if n < z.FromBytes || n > z.ToBytes {
					continue
				}
				covered++
				if p.Verdict.Kind == stats.Different && (z.Standing == stats.AFaster && p.Verdict.Ratio < 1 || z.Standing == stats.BFaster && p.Verdict.Ratio > 1) {
					return fmt.Errorf("zone %+v, but at %d bytes %v", z, n, p.Verdict)
				}
			}
		}
		if covered != len(a.Pairs) {
			return fmt.Errorf("zones %+v cover %d of %d sizes", g.Zones, covered, len(a.Pairs))
		}
		for _, c := range g.Crossings {
			if l := c.Lines; l != nil && (l.Interval.Lo < float64(c.FromBytes) || l.Interval.Hi > float64(c.ToBytes)) {
				return fmt.Errorf("the lines cross in %v, outside of %+v", l.Interval, c.Turn)
			}
		}
	}
	if len(a.Guides) != 1 {
		return fmt.Errorf("%d guides", len(a.Guides))
	}
	return nil
}

// TestGuideKeepsVerdicts: over transports that switch their protocols at random sizes,
// the advice never contradicts a verdict.
func TestGuideKeepsVerdicts(t *testing.T) {
	turns, sharp := 0, 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 77))
		protocols := func(switches int) costs {
			c := costs{limits: []int64{0}}
			for range switches {
				c.limits = append(c.limits, 1<<(11+rng.IntN(12)))
			}
			slices.Sort(c.limits)
			for range c.limits {
				c.lines = append(c.lines, synth.Truth{AlphaNs: 5e3 * math.Pow(20, rng.Float64()), NsPerByte: 0.1 * math.Pow(12, rng.Float64()), Noise: 0.03, Block: 0.02})
			}
			return c
		}
		a := synthetic(t, grid(seed, protocols(rng.IntN(2)), protocols(1+rng.IntN(2)), sizesBy4, 10))
		if err := kept(a); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		for _, g := range a.Guides {
			turns += len(g.Crossings)
			for _, c := range g.Crossings {
				if c.Lines != nil {
					sharp++
				}
			}
		}
	}
	// Advice that says nothing contradicts nothing: most of these sweeps cross.
	if turns < 150 || sharp == 0 {
		t.Errorf("%d crossings in 200 sweeps, %d of them placed by lines", turns, sharp)
	}
}

// TestGuideOfASwitch is the case that a single line gets wrong: tcp is 1.5 times as
// fast at 64 KiB, and ucx:tcp below and above it.
func TestGuideOfASwitch(t *testing.T) {
	a := synthetic(t, synth.Specs()["switch.jsonl"])
	g := a.Guides[0]
	var got []string
	for _, z := range g.Zones {
		got = append(got, fmt.Sprintf("%d-%d %v", z.FromBytes, z.ToBytes, z.Standing))
	}
	if want := []string{"1024-16384 b-faster", "65536-65536 a-faster", "262144-262144 equal", "1048576-16777216 b-faster"}; !slices.Equal(got, want) {
		t.Errorf("zones %q, want %q", got, want)
	}
	// The lines from 64 KiB on cross where 18 + 0.8 n = 64 + 0.62 n: 255,556 B. No line
	// of ucx:tcp spans its switch.
	if c := g.Crossings; len(c) != 2 || c[0].Lines != nil || c[0].FromBytes != 16384 || c[0].ToBytes != 65536 ||
		c[1].Lines == nil || !c[1].Lines.Interval.Contains(255_556*1.05) || c[1].FromBytes != 65536 || c[1].ToBytes != 1048576 {
		t.Errorf("crossings %+v", c)
	}
	var parts []int64
	for _, m := range a.Models {
		parts = append(parts, m.Cost.MinBytes)
	}
	if want := []int64{1024, 1024, 65536}; !slices.Equal(parts, want) {
		t.Errorf("lines from %v, want %v", parts, want)
	}
}

// smooth is how often the crossing of two lines, at 44,444 B, is found and placed by
// the lines, and how often its interval then holds the truth.
func smooth(t *testing.T, reps, blocks int, sizes []int64) (found, placed, covered float64) {
	const truth = 40e3 / 0.9
	one := func(alpha, slope float64) costs {
		return costs{[]int64{0}, []synth.Truth{{AlphaNs: alpha, NsPerByte: slope, Noise: 0, Block: 0.05}}}
	}
	for seed := range uint64(reps) {
		g := synthetic(t, grid(seed+1, one(20e3, 1), one(60e3, 0.1), sizes, blocks)).Guides[0]
		if len(g.Crossings) != 1 {
			continue
		}
		c := g.Crossings[0]
		if float64(c.FromBytes) < truth && truth < float64(c.ToBytes) {
			found++
		}
		if c.Lines != nil {
			placed++
			if c.Lines.Interval.Contains(truth) {
				covered++
			}
		}
	}
	return found / float64(reps), placed / float64(reps), covered / placed
}

// TestGuideFindsCrossings: where lines do cross, the sizes bracket it and the
// interval of the lines keeps its coverage.
func TestGuideFindsCrossings(t *testing.T) {
	found, placed, covered := smooth(t, 200, 10, sizesBy4[1:6])
	t.Logf("found %.3f, placed by lines %.3f, covered %.3f", found, placed, covered)
	if found < 0.97 || placed < 0.9 || covered < 0.9 {
		t.Errorf("found %.3f, placed by lines %.3f, covered %.3f", found, placed, covered)
	}
}

// TestLaunchesAreFitted: with several launches their medians are the points of cost
// models and of advice; two launches give neither, and the report says so.
func TestLaunchesAreFitted(t *testing.T) {
	s := grid(3, costs{[]int64{0}, []synth.Truth{{AlphaNs: 20e3, NsPerByte: 1, Block: 0.01}}}, costs{[]int64{0}, []synth.Truth{{AlphaNs: 60e3, NsPerByte: 0.1, Block: 0.01}}}, sizesBy4[1:5], 2)
	s.Launches = 8
	a := synthetic(t, s)
	if len(a.Models) != 2 || a.Models[0].Cost.Blocks != 8 || !a.Models[0].Cost.AlphaCI.Contains(20e3) || len(a.Guides) != 1 || len(a.Guides[0].Crossings) != 1 {
		t.Fatalf("models %+v, guides %+v", a.Models, a.Guides)
	}
	s.Launches = 2
	a = synthetic(t, s)
	if len(a.Models) != 0 || !slices.Contains(a.Warnings, analysis.Warning{Code: "few-launches", Text: "2 launches give no interval, no verdict and no cost model: use --launches 6 or more"}) {
		t.Errorf("models %+v, warnings %v", a.Models, a.Warnings)
	}
}
