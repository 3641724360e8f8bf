package stats

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
)

// rOracle is testdata/oracle_r.json.
type rOracle struct {
	SignedRank []struct {
		D                   []float64
		Estimate, Lo, Hi, P float64
	} `json:"signed_rank"`
	SignFlip []struct {
		D []float64
		P float64
	} `json:"sign_flip"`
	RankSum []struct {
		A, B                []float64
		Estimate, Lo, Hi, P float64
	} `json:"rank_sum"`
	QuantileSample []float64 `json:"quantile_sample"`
	Quantile       []struct{ P, Value float64 }
	MedianRank     []struct {
		N, K  int
		Level float64
	} `json:"median_rank"`
	Holm []struct{ P, Adjusted []float64 }
	ACF  []struct {
		X   []float64
		Rho float64
	} `json:"acf"`
	SignRankNull []struct {
		N, Q int
		P    float64
	} `json:"signrank_null"`
	TMDE []struct {
		N      int
		Factor float64
	} `json:"t_mde"`
	CostBytes []float64 `json:"cost_bytes"`
	CostA     costCase  `json:"cost_a"`
	CostB     costCase  `json:"cost_b"`
	Crossover struct{ Estimate, Lo, Hi float64 }
}

type costCase struct {
	Times     [][]float64
	Alpha     float64
	PerByte   float64   `json:"per_byte"`
	AlphaCI   []float64 `json:"alpha_ci"`
	PerByteCI []float64 `json:"per_byte_ci"`
}

func (c costCase) points(bytes []float64) []CostPoint {
	var ps []CostPoint
	for b, row := range c.Times {
		for k, t := range row {
			ps = append(ps, CostPoint{Block: b, Bytes: int64(bytes[k]), TimeNS: t})
		}
	}
	return ps
}

func load[T any](t *testing.T, path string) T {
	t.Helper()
	var v T
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// near fails unless got is want to a relative tolerance.
func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol*math.Max(1e-300, math.Abs(want))) {
		t.Errorf("%s = %.17g, want %.17g", what, got, want)
	}
}

func TestAgainstR(t *testing.T) {
	o := load[rOracle](t, "testdata/oracle_r.json")
	for i, c := range o.SignedRank {
		// R reports min and max for n = 6 too, with the same ranks.
		near(t, "Hodges-Lehmann", hodgesLehmann(c.D), c.Estimate, 1e-12)
		iv, ok := signedRankInterval(c.D, 0.95)
		if !ok {
			t.Fatalf("case %d: no interval", i)
		}
		near(t, "signed-rank lo", iv.Lo, c.Lo, 1e-12)
		near(t, "signed-rank hi", iv.Hi, c.Hi, 1e-12)
		if iv.Level < 0.95 {
			t.Errorf("case %d: level %v below 0.95", i, iv.Level)
		}
	}
	for _, c := range o.SignFlip {
		got, err := SignFlipTest(c.D, 1)
		if err != nil || !got.Exact {
			t.Fatalf("sign-flip of %v: %+v, %v", c.D, got, err)
		}
		near(t, "sign-flip p", got.P, c.P, 1e-12)
	}
	for _, c := range o.RankSum {
		a, b := sorted(c.A), sorted(c.B)
		est := middle(len(a)*len(b), func(k int) float64 { return difference(a, b, k) })
		near(t, "rank-sum shift", est, c.Estimate, 1e-12)
		iv, ok := rankSumInterval(c.A, c.B, 0.95)
		if !ok {
			t.Fatal("no rank-sum interval")
		}
		near(t, "rank-sum lo", iv.Lo, c.Lo, 1e-12)
		near(t, "rank-sum hi", iv.Hi, c.Hi, 1e-12)
		p, exact := rankSumP(c.A, c.B)
		if !exact {
			t.Error("p not exact")
		}
		near(t, "rank-sum p", p, c.P, 1e-9)
	}
	for _, c := range o.Quantile {
		// The guard is about the tails; here it would refuse 0.58 of 12 values.
		q, err := Quantile(o.QuantileSample, c.P)
		if err != nil {
			t.Fatal(err)
		}
		if need := 5 / math.Min(c.P, 1-c.P); float64(len(o.QuantileSample)) < need-1e-6 {
			if !q.Guarded {
				t.Errorf("p%v of 12 not guarded", c.P)
			}
			continue
		}
		near(t, "quantile", q.Value, c.Value, 1e-12)
	}
	for _, c := range o.MedianRank {
		k, level := medianRank(c.N, 0.95)
		if k != c.K {
			t.Errorf("median rank n=%d: %d, want %d", c.N, k, c.K)
		}
		near(t, "median level", level, c.Level, 1e-9)
	}
	for _, c := range o.Holm {
		got, err := Holm(c.P)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			near(t, "Holm", got[i], c.Adjusted[i], 1e-12)
		}
	}
	for _, c := range o.ACF {
		got, err := Autocorrelate(c.X)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "lag-1", got.Rho, c.Rho, 1e-9)
	}
	for _, c := range o.SignRankNull {
		null := signedRankNull(c.N)
		var cdf float64
		q := -1
		for w, p := range null {
			cdf += p
			if q < 0 && cdf >= 0.025 {
				q = w
			}
			if w == c.N*(c.N+1)/6 {
				near(t, "psignrank", cdf, c.P, 1e-12)
			}
		}
		if q != c.Q {
			t.Errorf("qsignrank(.025, %d) = %d, want %d", c.N, q, c.Q)
		}
	}
	for _, c := range o.TMDE {
		near(t, "MDE factor", detectable(c.N, 0.05), c.Factor, 1e-9)
	}
}

func TestMediansAgainstPython(t *testing.T) {
	type interval struct{ Value, Lo, Hi float64 }
	o := load[struct {
		Shares []struct {
			Part, Whole []float64
			Paired      bool
			interval
		}
		Contrasts []struct {
			To, From, Other []float64
			interval
		}
	}](t, "testdata/oracle_medians.json")
	check := func(what string, value float64, got *Interval, want interval) {
		t.Helper()
		near(t, what, value, want.Value, 1e-12)
		if got == nil {
			t.Fatalf("%s: no interval", what)
		}
		near(t, what+" lo", got.Lo, want.Lo, 1e-9)
		near(t, what+" hi", got.Hi, want.Hi, 1e-9)
	}
	for i, c := range o.Shares {
		set := 1
		if c.Paired {
			set = 0
		}
		s, err := ShareOf([]Term{{1, c.Part, 0}}, []Term{{1, c.Whole, set}}, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("share %d", i), s.Value, s.Interval, c.interval)
	}
	for _, c := range o.Contrasts {
		e, err := Contrast([]Term{{1, c.To, 0}, {-1, c.From, 0}, {-1, c.Other, 1}}, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		check("contrast", e.Value, e.Interval, c.interval)
	}
}

func TestCostAgainstR(t *testing.T) {
	o := load[rOracle](t, "testdata/oracle_r.json")
	fit := func(c costCase) CostModel {
		m, err := FitCost(c.points(o.CostBytes), 0.95)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "alpha", m.AlphaNS, c.Alpha, 1e-9)
		near(t, "per byte", m.NSPerByte, c.PerByte, 1e-9)
		near(t, "alpha lo", m.AlphaCI.Lo, c.AlphaCI[0], 1e-9)
		near(t, "alpha hi", m.AlphaCI.Hi, c.AlphaCI[1], 1e-9)
		near(t, "per byte lo", m.NSPerByteCI.Lo, c.PerByteCI[0], 1e-9)
		near(t, "per byte hi", m.NSPerByteCI.Hi, c.PerByteCI[1], 1e-9)
		if len(m.Warnings) > 0 {
			t.Errorf("warnings: %v", m.Warnings)
		}
		return m
	}
	a, b := fit(o.CostA), fit(o.CostB)
	c, err := FindCrossover(a, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kind != CrossesAt || len(c.Warnings) > 0 {
		t.Errorf("crossover %v, warnings %v", c.Kind, c.Warnings)
	}
	near(t, "n*", c.Bytes, o.Crossover.Estimate, 1e-9)
	near(t, "n* lo", c.Interval.Lo, o.Crossover.Lo, 1e-6)
	near(t, "n* hi", c.Interval.Hi, o.Crossover.Hi, 1e-6)
}

func TestAgainstPython(t *testing.T) {
	o := load[struct {
		PELT []struct {
			Name   string
			X      []float64
			Factor float64
			Starts []int
		}
		MSER5 []struct {
			X    []float64
			Drop int
		}
		RankSumTies []struct {
			A, B  []float64
			P     float64
			Exact bool
		} `json:"rank_sum_ties"`
	}](t, "testdata/oracle_py.json")
	for _, c := range o.PELT {
		got, err := PELT(c.X, c.Factor*math.Log(float64(len(c.X))), MinSegment)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Starts, c.Starts) {
			t.Errorf("PELT %q ×%v: %v, want %v", c.Name, c.Factor, got.Starts, c.Starts)
		}
	}
	for i, c := range o.MSER5 {
		if got, err := MSER5(c.X); err != nil || got != c.Drop {
			t.Errorf("MSER-5 case %d: %d, %v, want %d", i, got, err, c.Drop)
		}
	}
	for _, c := range o.RankSumTies {
		p, exact := rankSumP(c.A, c.B)
		if exact != c.Exact {
			t.Errorf("exact %v, want %v", exact, c.Exact)
		}
		near(t, "p with ties", p, c.P, 1e-9)
	}
}
