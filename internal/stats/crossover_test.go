package stats

import (
	"math"
	"strings"
	"testing"
)

// lines makes a sweep from α, 1/β and noise of a block and a cell, deterministic.
func lines(alpha, perByte, noise float64, blocks int, sizes ...int64) []CostPoint {
	var ps []CostPoint
	for b := range blocks {
		for k, n := range sizes {
			z := noise * wave(b*31+k*7+int(alpha))
			ps = append(ps, CostPoint{Block: b, Bytes: n, TimeNS: (alpha + float64(n)*perByte) * (1 + z)})
		}
	}
	return ps
}

func mustFit(t *testing.T, ps []CostPoint) CostModel {
	t.Helper()
	m, err := FitCost(ps, 0.95)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var grid = []int64{4096, 16384, 65536, 262144, 1048576}

func TestCrossoverKinds(t *testing.T) {
	tests := []struct {
		name   string
		a, b   []CostPoint
		kind   CrossoverKind
		faster Side
		codes  string
	}{
		{"crosses", lines(20e3, 1, .01, 10, grid...), lines(60e3, .1, .01, 10, grid...), CrossesAt, Neither, ""},
		{"A throughout", lines(20e3, .1, .01, 10, grid...), lines(60e3, 1, .01, 10, grid...), NoneInRange, SideA, ""},
		{"B throughout, parallel", lines(90e3, .1, .01, 10, grid...), lines(20e3, .1, .01, 10, grid...), NoneInRange, SideB, ""},
		{"crosses beyond the range", lines(20e3, 1, .001, 10, grid...), lines(9e6, .1, .001, 10, grid...), NoneInRange, SideA, ""},
		{"the same", lines(20e3, 1, .01, 10, grid...), lines(20e3, 1, .012, 10, grid...), Unbounded, Neither, "crossover-unbounded"},
		{"noise hides the slope", lines(20e3, .1, .3, 5, grid...), lines(30e3, .09, .3, 5, grid...), Unbounded, Neither, "crossover-unbounded"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			x, err := FindCrossover(mustFit(t, c.a), mustFit(t, c.b), 0)
			if err != nil {
				t.Fatal(err)
			}
			if x.Kind != c.kind || x.Faster != c.faster || codes(x.Warnings) != c.codes {
				t.Errorf("%v, faster %v, warnings %v; want %v, %v, %q (%.6g in %v)", x.Kind, x.Faster, x.Warnings, c.kind, c.faster, c.codes, x.Bytes, x.Interval)
			}
			if c.kind == CrossesAt {
				if math.Abs(x.Bytes-40e3/.9) > 2e3 || !x.Interval.Contains(40e3/.9) {
					t.Errorf("n* %v in %v", x.Bytes, x.Interval)
				}
			}
			if c.kind == Unbounded && !math.IsInf(x.Interval.Lo, -1) && !math.IsInf(x.Interval.Hi, 1) {
				t.Errorf("unbounded with %v", x.Interval)
			}
		})
	}
}

func TestFiellerShapes(t *testing.T) {
	tests := []struct {
		name                string
		mp, mq, vp, vq, cov float64
		bounded, outside    bool
	}{
		{name: "bounded", mp: 2, mq: 1, vp: .01, vq: .01, bounded: true},
		{name: "two rays", mp: 2, mq: .1, vp: .01, vq: .01, outside: true},
		{name: "whole line", mp: .1, mq: .1, vp: 1, vq: 1},
		{name: "correlated", mp: 2, mq: 1, vp: .02, vq: .03, cov: .02, bounded: true},
	}
	const tq = 2.0
	for _, c := range tests {
		f := fiellerOf(c.mp, c.mq, c.vp, c.vq, c.cov, tq)
		if f.bounded != c.bounded || f.outside != c.outside || f.empty {
			t.Errorf("%s: %+v", c.name, f)
		}
		for r := -60.0; r <= 60; r += 0.37 {
			in := (c.mp-r*c.mq)*(c.mp-r*c.mq) <= tq*tq*(c.vp-2*r*c.cov+r*r*c.vq)
			got := f.lo <= r && r <= f.hi
			if f.outside {
				got = r <= f.lo || r >= f.hi
			}
			if in != got || f.touches(r, r) != in {
				t.Errorf("%s: r = %v: in the set %v, says %v (%+v)", c.name, r, in, got, f)
			}
		}
	}
}

func TestFitCost(t *testing.T) {
	var ps []CostPoint
	for b := range 4 {
		for _, n := range []int64{1 << 20, 1 << 24} {
			for _, d := range []int64{1, 64, 4096} {
				ps = append(ps, CostPoint{Block: b, Bytes: n, Descriptors: d, TimeNS: 15e3 + float64(n)*.2 + float64(d)*350})
			}
		}
	}
	m := mustFit(t, ps)
	near(t, "α", m.AlphaNS, 15e3, 1e-6)
	near(t, "1/β", m.NSPerByte, .2, 1e-9)
	near(t, "γ", m.GammaNS, 350, 1e-9)
	near(t, "time", m.TimeNS(1<<22, 100), 15e3+float64(1<<22)*.2+35e3, 1e-9)
	if beta, ci := m.BytesPerSecond(); math.Abs(beta-5e9) > 10 || m.GammaCI == nil || ci.Lo > beta+10 || ci.Hi < beta-10 {
		t.Errorf("β %v %v, γ interval %v", beta, ci, m.GammaCI)
	}

	// A block that broke off is left out and said so.
	m = mustFit(t, append(ps, CostPoint{Block: 9, Bytes: 1 << 20, Descriptors: 1, TimeNS: 1}))
	if m.Blocks != 4 || codes(m.Warnings) != "incomplete-blocks" {
		t.Errorf("%d blocks, %v", m.Blocks, m.Warnings)
	}
	near(t, "α without the broken block", m.AlphaNS, 15e3, 1e-6)

	// A change of protocol inside of the range is no line.
	steps := lines(20e3, 1, .01, 10, grid...)
	for i := range steps {
		if steps[i].Bytes >= 262144 {
			steps[i].TimeNS *= 2
		}
	}
	if m := mustFit(t, steps); codes(m.Warnings) == "" || m.Warnings[0].Code != "not-a-line" {
		t.Errorf("a step at 256 KiB: %v, residual %v at %d", m.Warnings, m.WorstResidual, m.WorstBytes)
	}
	if m := mustFit(t, lines(20e3, 1e-6, .2, 4, grid...)); !strings.Contains(codes(m.Warnings), "rate-unbounded") {
		t.Errorf("no slope: %v", m.Warnings)
	} else if _, ci := m.BytesPerSecond(); !math.IsInf(ci.Hi, 1) {
		t.Errorf("β bounded above: %v", ci)
	}
}

// TestFitCostCoinciding: two conditions of the same bytes and descriptors are one
// point of the model, their mean in each block.
func TestFitCostCoinciding(t *testing.T) {
	// Through (1000, 200) (3000, 600), (1000, 300) (3000, 600) and (1000, 150)
	// (3000, 600): 0.2, 0.15 and 0.225 ns a byte, and 0, 150 and -75 ns to start.
	ps := []CostPoint{
		{0, 1000, 4, 100}, {0, 3000, 4, 600}, {0, 1000, 4, 300},
		{1, 1000, 4, 400}, {1, 1000, 4, 200}, {1, 3000, 4, 600},
		{2, 3000, 4, 600}, {2, 1000, 4, 100}, {2, 1000, 4, 200},
	}
	m := mustFit(t, ps)
	near(t, "α", m.AlphaNS, 25, 1e-9)
	near(t, "1/β", m.NSPerByte, .575/3, 1e-9)
	if m.Blocks != 3 || m.GammaCI != nil || len(m.Warnings) > 0 {
		t.Errorf("%d blocks, γ in %v, %v", m.Blocks, m.GammaCI, m.Warnings)
	}

	// A block that lacks one of the two is not complete.
	m = mustFit(t, append(ps, CostPoint{3, 1000, 4, 1}, CostPoint{3, 3000, 4, 600}))
	near(t, "α without the broken block", m.AlphaNS, 25, 1e-9)
	if m.Blocks != 3 || !strings.Contains(codes(m.Warnings), "incomplete-blocks") {
		t.Errorf("%d blocks, %v", m.Blocks, m.Warnings)
	}
}

// TestCrossoverOneSided: the slopes are not separated, but small sizes are: the
// crossing is bounded on one side only.
func TestCrossoverOneSided(t *testing.T) {
	model := func(alpha float64, slopes ...float64) CostModel {
		m := CostModel{MinBytes: 4096, MaxBytes: 1 << 20, level: 0.95}
		for b, s := range slopes {
			m.perBlock = append(m.perBlock, []float64{alpha + 100*wave(b), s})
			m.blockIDs = append(m.blockIDs, b)
		}
		return m
	}
	a, b := model(20e3, .9, 1.2, 1.1, .8, 1.0, 1.3), model(60e3, 1, 1, 1, 1, 1, 1)
	c, err := FindCrossover(a, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	// D(n) = -40e3 + n·{-.1 … .3}: t.test of these six in R has the upper limit
	// .05 + 2.5706·.1871/√6 = .24634 for the slope; 40e3/.24634 = 162,377.
	if c.Kind != Unbounded || !math.IsInf(c.Interval.Hi, 1) || math.Abs(c.Interval.Lo-162377) > 500 {
		t.Errorf("%v in %v", c.Kind, c.Interval)
	}
	c, err = FindCrossover(b, a, 0)
	if err != nil || c.Kind != Unbounded || !math.IsInf(c.Interval.Hi, 1) || math.Abs(c.Interval.Lo-162377) > 500 {
		t.Errorf("sides exchanged: %v in %v, %v", c.Kind, c.Interval, err)
	}
}
