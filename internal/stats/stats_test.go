package stats

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func codes(ws []Warning) string {
	var s []string
	for _, w := range ws {
		s = append(s, w.Code)
	}
	return strings.Join(s, ",")
}

func TestSummarize(t *testing.T) {
	s, err := Summarize([]float64{5, 1, 4, 2, 3}, 0.95)
	if err != nil {
		t.Fatal(err)
	}
	if s.N != 5 || s.Min != 1 || s.Max != 5 || s.Median != 3 || s.CI != nil || codes(s.Warnings) != "no-median-interval" {
		t.Errorf("n=5: %+v", s)
	}
	if !strings.Contains(s.Warnings[0].Text, "at least 6") {
		t.Errorf("warning: %s", s.Warnings[0].Text)
	}
	s, err = Summarize([]float64{6, 5, 1, 4, 2, 3}, 0.95)
	if err != nil || s.Median != 3.5 || s.CI == nil || *s.CI != (Interval{1, 6, 0.96875}) {
		t.Errorf("n=6: %+v, CI %v, %v", s, s.CI, err)
	}
}

func TestQuantileGuard(t *testing.T) {
	seq := make([]float64, 1000)
	for i := range seq {
		seq[i] = float64((i * 7) % 1000)
	}
	tests := []struct {
		n     int
		p     float64
		label string
	}{
		{500, 0.99, "p99"}, {499, 0.99, "max"}, {100, 0.95, "p95"}, {99, 0.95, "max"},
		{10, 0.5, "p50"}, {9, 0.5, "max"}, {50, 0.1, "p10"}, {49, 0.1, "min"}, {1000, 0.999, "max"},
	}
	for _, c := range tests {
		q, err := Quantile(seq[:c.n], c.p)
		if err != nil {
			t.Fatal(err)
		}
		if q.Label() != c.label || q.Guarded != (len(q.Warnings) == 1) {
			t.Errorf("n=%d p=%v: %s, warnings %v", c.n, c.p, q.Label(), q.Warnings)
		}
		want := q.Value
		switch s := sorted(seq[:c.n]); c.label {
		case "max":
			want = s[len(s)-1]
		case "min":
			want = s[0]
		}
		if q.Value != want {
			t.Errorf("n=%d p=%v: %v, want %v", c.n, c.p, q.Value, want)
		}
	}
	if q, err := Quantile(seq, 0.99); err != nil || math.Abs(q.Value-989.01) > 1e-9 {
		t.Errorf("p99 of 0…999 = %v, %v, want 989.01", q.Value, err)
	}
}

func TestRate(t *testing.T) {
	// 1 GB in 1 s and 1 GB in 3 s are 0.5 GB/s; the mean of rates would say 0.667.
	r, err := Rate([]int64{1e9, 1e9}, []float64{1e9, 3e9})
	if err != nil || r != 5e8 {
		t.Errorf("rate %v, %v", r, err)
	}
}

func TestVerdicts(t *testing.T) {
	a := []float64{100, 102, 98, 101, 99, 103, 97, 100, 104, 96}
	scaled := func(f float64, jitter ...float64) []float64 {
		out := make([]float64, len(a))
		for i := range a {
			out[i] = a[i] * f * (1 + jitter[i%len(jitter)])
		}
		return out
	}
	v, err := ComparePaired(a, scaled(1.5, 0.001, -0.001, 0.002), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != Different || v.NA != 10 || v.P != 2.0/1024 || math.Abs(v.Ratio-1.5) > 0.003 || !v.Interval.Contains(v.Ratio) || len(v.Warnings) > 0 {
		t.Errorf("1.5 times slower: %+v", v)
	}
	if got := v.String(); !strings.HasPrefix(got, "different: ratio 1.50") || !strings.HasSuffix(got, "p 0.00195, n 10") {
		t.Error(got)
	}
	v, err = ComparePaired(a, scaled(1, 0.01, -0.01), Options{})
	if err != nil || v.Kind != NoDifference {
		t.Errorf("alternating ±1 %%: %+v, %v", v, err)
	}
	// s_d of ±1 % alternating over 10 is .01·√(10/9); 10 blocks see ≈ 1 SD.
	if v.MDE < 0.0104 || v.MDE > 0.0116 {
		t.Errorf("MDE %v", v.MDE)
	}
	v, err = ComparePaired(a[:5], scaled(2, 0)[:5], Options{})
	if err != nil || v.Kind != TooFew || v.Need != 6 || codes(v.Warnings) != "too-few-units" || !math.IsInf(v.MDE, 1) {
		t.Errorf("5 blocks: %+v, %v", v, err)
	}
	v, err = ComparePaired(a, a, Options{})
	if err != nil || v.Kind != NoDifference || v.P != 1 || v.Ratio != 1 || v.MDE != 0 || codes(v.Warnings) != "many-zero-differences" {
		t.Errorf("the same data twice: %+v, %v", v, err)
	}
	v, err = CompareUnpaired(a, scaled(1.2, 0), Options{})
	if err != nil || v.Kind != Different || !v.NotInterleaved || v.Paired || codes(v.Warnings) != "not-interleaved" {
		t.Errorf("unpaired: %+v, %v", v, err)
	}
	v, err = CompareUnpaired(a[:3], scaled(1.2, 0), Options{})
	if err != nil || v.Kind != TooFew || v.Need != 4 {
		t.Errorf("unpaired with 3: %+v, %v", v, err)
	}
}

func TestFamily(t *testing.T) {
	a := make([]float64, 6)
	b := make([]float64, 6)
	for i := range a {
		a[i], b[i] = 100+float64(i), 110+float64(i*i)
	}
	one, err := ComparePaired(a, b, Options{})
	if err != nil || one.Kind != Different {
		t.Fatalf("alone: %+v, %v", one, err)
	}
	// Over two sizes the smallest p of 6 blocks, .03125, cannot reach .025.
	two, err := AdjustFamily([]Verdict{one, one})
	if err != nil || two[0].Kind != TooFew || two[0].Need != 7 || one.Kind != Different {
		t.Errorf("family of 2: %+v, %v", two[0], err)
	}
	for m, want := range map[int]int{1: 6, 2: 7, 25: 10, 26: 11} {
		if n, err := MinUnits(0.05, m); err != nil || n != want {
			t.Errorf("MinUnits(.05, %d) = %d, %v, want %d", m, n, err, want)
		}
	}
	ten := make([]float64, 10)
	tenB := make([]float64, 10)
	for i := range ten {
		ten[i] = 100
		tenB[i] = 103
		if i == 3 || i == 7 {
			tenB[i] = 99
		}
	}
	v, err := ComparePaired(ten, tenB, Options{})
	if err != nil || v.Kind != Different {
		t.Fatalf("8 of 10: %+v, %v", v, err)
	}
	fam, err := AdjustFamily(slices.Repeat([]Verdict{v}, 7))
	if err != nil || fam[0].Kind != NoDifference || fam[0].Family != 7 || math.Abs(fam[0].PAdjusted-7*v.P) > 1e-12 ||
		!strings.Contains(codes(fam[0].Warnings), "borderline") || fam[0].MDE <= v.MDE {
		t.Errorf("family of 7: %+v, %v", fam[0], err)
	}
}

func TestSignFlipMonteCarlo(t *testing.T) {
	// With 24 equal differences |Σ| is largest for two patterns of 2^24.
	d := slices.Repeat([]float64{1}, 24)
	got, err := SignFlipTest(d, 1)
	if err != nil || got.Exact || got.Draws != 99_999 || got.P > 3e-5 {
		t.Errorf("%+v, %v", got, err)
	}
	// 21 differences: against full enumeration.
	for i := range d {
		d[i] = math.Sin(float64(i)*1.3) + 0.3
	}
	d = d[:21]
	hit := 0
	obs := 0.0
	for _, x := range d {
		obs += x
	}
	for s := range 1 << 20 {
		sum := d[20]
		for i := range 20 {
			sum += d[i] * float64(1-2*(s>>i&1))
		}
		if math.Abs(sum) >= math.Abs(obs)-1e-12 {
			hit++
		}
	}
	want := float64(hit) / (1 << 20)
	got, err = SignFlipTest(d, 7)
	if err != nil || math.Abs(got.P-want) > 4*math.Sqrt(want*(1-want)/99_999) {
		t.Errorf("Monte Carlo p %v, enumeration %v, %v", got.P, want, err)
	}
	again, _ := SignFlipTest(d, 7)
	if again != got {
		t.Error("the same seed gives another p")
	}
}

// Beyond 512 differences the smaller ones are drawn at once: against a sign for each
// of them from another stream, where all are alike, and where a few outweigh the rest.
func TestSignFlipOfManyDifferences(t *testing.T) {
	const n, draws = 700, 8_000
	for name, size := range map[string]func(i int) float64{
		"alike": func(int) float64 { return 1 },
		"heavy": func(i int) float64 { return 1 / float64(1+i) },
	} {
		rng := rand.New(rand.NewPCG(3, 4))
		d := make([]float64, n)
		obs := 0.0
		for i := range d {
			d[i] = size(i) * (1 + 0.1*rng.Float64())
			if rng.IntN(100) < 48 {
				d[i] = -d[i]
			}
			obs += d[i]
		}
		hit := 0
		for range draws {
			sum := 0.0
			for _, x := range d {
				if rng.IntN(2) == 0 {
					x = -x
				}
				sum += x
			}
			if math.Abs(sum) >= math.Abs(obs) {
				hit++
			}
		}
		want := float64(hit) / draws
		got, err := SignFlipTest(d, 7)
		if err != nil || got.Exact || math.Abs(got.P-want) > 4*math.Sqrt(want*(1-want)*(1./draws+1./99_999)) {
			t.Errorf("%s: p %v, with a sign for each %v, %v", name, got.P, want, err)
		}
	}
}

func TestDetectableFloor(t *testing.T) {
	// For 6 blocks the test rejects only when all agree: Φ(δ)^6 = .8 (one side;
	// the other is negligible), δ = 1.793.
	near(t, "n=6", detectable(6, 0.05), 1.793, 0.03)
	if f := detectable(6, 0.025); !math.IsInf(f, 1) {
		t.Errorf("6 blocks at .025 can see %v", f)
	}
}

func TestUnits(t *testing.T) {
	samples := []Sample{
		{0, 1, 5}, {0, 0, 3}, {0, 0, 1}, {0, 0, 2}, {0, 1, 7}, {1, 0, 10}, {1, 0, 30}, {1, 1, 40},
	}
	blocks, err := BlockMedians(samples)
	want := []Unit{{UnitKey{0, 0}, 2, 3}, {UnitKey{0, 1}, 6, 2}, {UnitKey{1, 0}, 20, 2}, {UnitKey{1, 1}, 40, 1}}
	if err != nil || !slices.Equal(blocks, want) {
		t.Errorf("blocks %v, %v", blocks, err)
	}
	launches, err := LaunchMedians(samples)
	if err != nil || !slices.Equal(launches, []Unit{{UnitKey{0, -1}, 4, 2}, {UnitKey{1, -1}, 30, 2}}) {
		t.Errorf("launches %v, %v", launches, err)
	}
	as, bs, dropped, err := PairUnits(blocks, blocks[1:3])
	if err != nil || dropped != 2 || !slices.Equal(as, []float64{6, 20}) || !slices.Equal(bs, as) {
		t.Errorf("pairs %v %v, dropped %d, %v", as, bs, dropped, err)
	}
	if _, _, _, err := PairUnits(blocks, append(blocks, blocks[0])); !errors.Is(err, ErrShape) {
		t.Errorf("a key twice: %v", err)
	}
	if _, _, _, err := PairUnits(append(blocks, blocks[0]), blocks); !errors.Is(err, ErrShape) {
		t.Errorf("a key twice in a: %v", err)
	}
}

func TestOrder(t *testing.T) {
	// Golden: a printed seed must replay the same run in every later version.
	if got := fmt.Sprint(Order(1, 0, 6), Order(1, 1, 6), Order(2, 0, 6)); got != orderGolden {
		t.Errorf("Order = %s, want %s", got, orderGolden)
	}
	if Order(1, 0, 0) != nil || Order(1, 0, -3) != nil {
		t.Error("empty order")
	}
	// Uniform over the 6 orders of 3: χ² with 5 df, 1e-6 point 35.9.
	count := map[string]float64{}
	const n = 6000
	for block := range n {
		count[fmt.Sprint(Order(42, block, 3))]++
	}
	chi := 0.0
	for _, c := range count {
		chi += (c - n/6) * (c - n/6) / (n / 6)
	}
	if len(count) != 6 || chi > 35.9 {
		t.Errorf("%d orders, χ² %.1f: %v", len(count), chi, count)
	}
}

func TestAutocorrelationWarns(t *testing.T) {
	drift := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	ac, err := Autocorrelate(drift)
	if err != nil || ac.Effective > 3 || codes(ac.Warnings) != "few-effective-samples" {
		t.Errorf("drift: %+v, %v", ac, err)
	}
	ac, err = Autocorrelate([]float64{1, -1, 1, -1, 1, -1, 1, -1})
	if err != nil || ac.Effective != 8 || len(ac.Warnings) > 0 {
		t.Errorf("alternating: %+v, %v", ac, err)
	}
	ac, err = Autocorrelate([]float64{0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1})
	if err != nil || ac.Rho != 0 || ac.Effective != 7 {
		t.Errorf("constant: %+v, %v", ac, err)
	}
}

// wave is deterministic noise of amplitude 1 without a level or trend.
func wave(i int) float64 { return math.Sin(float64(i)*2.399) * 1.4 }

func TestClassify(t *testing.T) {
	series := func(levels ...float64) []float64 { // pairs: count, level
		var xs []float64
		for i := 0; i < len(levels); i += 2 {
			for range int(levels[i]) {
				xs = append(xs, levels[i+1]+wave(len(xs)))
			}
		}
		return xs
	}
	spike := series(60, 100)
	spike[31], spike[0] = 900, 700
	tests := []struct {
		name  string
		xs    []float64
		class Class
		start int
		trans []int
		out   []int
	}{
		{"flat", series(60, 100), Flat, 0, nil, nil},
		{"flat with outliers", spike, Flat, 0, nil, []int{0, 31}},
		{"warm-up", series(8, 160, 52, 100), WarmUp, 8, []int{8}, nil},
		{"warm-up of 5, far away", series(5, 900, 95, 100), WarmUp, 5, []int{5}, nil},
		{"warm-up of 3, far away", series(3, 900, 57, 100), WarmUp, 3, []int{3}, nil},
		{"warm-up in two steps", series(20, 160, 20, 130, 80, 100), WarmUp, 40, []int{20, 40}, nil},
		{"slowdown", series(50, 100, 70, 140), Slowdown, 50, []int{50}, nil},
		{"fast phase before the end level", series(20, 160, 40, 80, 60, 100), Slowdown, 60, []int{20, 60}, nil},
		{"change in the last quarter", series(90, 100, 12, 140), NoSteadyState, 90, []int{90}, nil},
		{"slow stretch that comes back", series(119, 100, 11, 230, 70, 100), Excursions, 0, []int{119, 130}, nil},
		{"two slow stretches", series(60, 100, 11, 230, 60, 100, 9, 300, 60, 100), Excursions, 0, []int{60, 71, 131, 140}, nil},
		{"slow stretch of 5 % more", series(60, 1000, 11, 1050, 60, 1000), Flat, 0, []int{60, 71}, nil},
		{"slow stretch at the end", series(119, 100, 11, 230), NoSteadyState, 119, []int{119}, nil},
		{"dip that comes back", series(40, 100, 10, 60, 70, 100), Slowdown, 50, []int{40, 50}, nil},
		{"step within 1 %", series(100, 5000, 100, 5040), Flat, 0, nil, nil},
		{"constant", slices.Repeat([]float64{7}, 50), Flat, 0, nil, nil},
		{"constant zero", make([]float64, 50), Flat, 0, nil, nil},
		{"too short", series(19, 100), Unclassified, 0, nil, nil},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			st, err := Classify(c.xs)
			if err != nil {
				t.Fatal(err)
			}
			var trans []int
			for _, tr := range st.Transitions {
				trans = append(trans, tr.Iteration)
			}
			if st.Class != c.class || st.Start != c.start || !slices.Equal(trans, c.trans) || !slices.Equal(st.Outliers, c.out) {
				t.Errorf("%v from %d, transitions %v, outliers %v; want %v from %d, %v, %v\n%+v",
					st.Class, st.Start, trans, st.Outliers, c.class, c.start, c.trans, c.out, st.Segments)
			}
			at := 0
			for _, s := range st.Segments {
				if s.Start != at {
					t.Errorf("segments leave a gap at %d: %+v", at, st.Segments)
				}
				at = s.End
			}
			if len(st.Segments) > 0 && at != len(c.xs) {
				t.Errorf("segments end at %d of %d", at, len(c.xs))
			}
		})
	}
	st, err := Classify(series(8, 160, 52, 100))
	if err != nil || len(st.Transitions) != 1 || math.Abs(st.Transitions[0].Before-160) > 2 || math.Abs(st.Transitions[0].After-100) > 1 {
		t.Fatalf("levels: %+v, %v", st.Transitions, err)
	}
	if w := st.Warnings[0].Text; !strings.HasPrefix(w, "the level changes at iteration 8 of 60, from ") {
		t.Error(w)
	}
	if st.MSER5 != 10 {
		t.Errorf("MSER-5 drops %d, want 10", st.MSER5)
	}
}

// TestExcursions: 11 iterations, from the 120th to the 130th, take 2.3 times as long.
func TestExcursions(t *testing.T) {
	// Without much noise the change points show them; a spread of 70 to 145 hides them
	// from PELT, not from ranks: 2.3 × 70 = 161 is above all others.
	for name, usual := range map[string][]float64{"quiet": {99, 100, 101}, "noisy": {100, 145, 70, 85, 120, 145, 100, 85, 70, 120, 85}} {
		for _, n := range []int{200, 2000, 20_000} {
			xs := make([]float64, n)
			for i := range xs {
				xs[i] = usual[i%len(usual)]
				if i >= 119 && i < 130 {
					xs[i] *= 2.3
				}
			}
			st, err := Classify(xs)
			if err != nil {
				t.Fatal(err)
			}
			// The medians are 230 and 100. In a long series neighbours are put together.
			off := n / searchMost
			if st.Class != Excursions || st.Start != 0 || len(st.Excursions) != 1 || max(119-st.Excursions[0].Start, st.Excursions[0].End-130) > off ||
				st.Excursions[0].Start > 119 || st.Excursions[0].End < 130 || math.Abs(st.Excursions[0].Factor-2.3) > 1e-9+float64(off)/100 || st.Longest() != st.Excursions[0] {
				t.Errorf("%s, %d: %v %+v", name, n, st.Class, st.Excursions)
			}
		}
	}
	flat := make([]float64, 300)
	for i := range flat {
		flat[i] = 100 * math.Exp(0.3*wave(i))
	}
	if st, err := Classify(flat); err != nil || st.Class != Flat || st.Excursions != nil {
		t.Errorf("noise alone: %v %+v, %v", st.Class, st.Excursions, err)
	}
}

// TestLastChange: a warm-up ends at a faster level, whatever came before, and its last
// change is the one into the steady state.
func TestLastChange(t *testing.T) {
	// 52, 108, 75 and 60 whose spread is 45: 108 to 75 lies within the spread, 52 to 108
	// does not, and 52 is no faster than the last level less its spread.
	var xs []float64
	for i := range 240 {
		switch {
		case i < 60:
			xs = append(xs, 52+wave(i))
		case i < 120:
			xs = append(xs, 108+wave(i))
		case i < 180:
			xs = append(xs, 75+wave(i))
		default:
			xs = append(xs, 60+45*float64(i%2*2-1))
		}
	}
	st, err := Classify(xs)
	if err != nil || len(st.Transitions) == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	last := st.Transitions[len(st.Transitions)-1]
	if last.Iteration != 120 || math.Abs(last.Before-108) > 1 || math.Abs(last.After-75) > 1 {
		t.Errorf("%v, last change %+v, of %+v", st.Class, last, st.Segments)
	}
	if st.Class == WarmUp && last.After > last.Before {
		t.Errorf("a warm-up from %v to %v", last.Before, last.After)
	}
}

// TestPELTIsOptimal compares with plain O(n²) partitioning, where pruning could
// lose the optimum: small penalties and minimum segments of different lengths.
func TestPELTIsOptimal(t *testing.T) {
	for seed := range uint64(60) {
		rng := newRand(seed)
		xs := make([]float64, 40)
		for i := range xs {
			xs[i] = 50 + float64(rng.IntN(3))*5 + rng.NormFloat64()
			if seed%3 == 0 {
				xs[i] = math.Round(xs[i]) // ties: the variance floor at work
			}
		}
		minSeg := 2 + int(seed%4)
		pen := float64(seed%7) * 1.5
		got, err := PELT(xs, pen, minSeg)
		if err != nil {
			t.Fatal(err)
		}
		cost := newGaussCost(xs)
		n := len(xs)
		best := slices.Repeat([]float64{math.Inf(1)}, n+1)
		best[0] = -pen
		for e := minSeg; e <= n; e++ {
			for s := 0; s <= e-minSeg; s++ {
				best[e] = math.Min(best[e], best[s]+cost.of(s, e)+pen)
			}
		}
		total, from := -pen, 0
		for _, to := range append(slices.Clone(got.Starts), n) {
			if to-from < minSeg {
				t.Errorf("seed %d: segment %d–%d shorter than %d", seed, from, to, minSeg)
			}
			total += cost.of(from, to) + pen
			from = to
		}
		if math.Abs(total-best[n]) > 1e-9*math.Max(1, math.Abs(total)) {
			t.Errorf("seed %d: cost %v, optimum %v (starts %v)", seed, total, best[n], got.Starts)
		}
	}
}

func TestVarianceFloor(t *testing.T) {
	// Median 1000, so the floor of σ² is 1; five equal values, then variance 2: the
	// whole has variance 1. Costs are in units of the largest deviation, r.
	r := math.Sqrt2 * math.Sqrt(5.0/4)
	xs := []float64{1000, 1000, 1000, 1000, 1000, 1000 - r, 1000 + r, 1000, 1000 - r, 1000 + r}
	c := newGaussCost(xs)
	near(t, "floor", c.floor, 1/(r*r), 1e-9)
	near(t, "constant", c.of(0, 5), 5*math.Log(2*math.Pi*c.floor), 1e-9)
	near(t, "above the floor", c.of(5, 10), 5*(math.Log(2*math.Pi*2*c.floor)+1), 1e-9)
	if whole, parts := c.of(0, 10), c.of(0, 5)+c.of(5, 10); whole < parts {
		t.Errorf("the whole costs %v, its parts %v", whole, parts)
	}
}

func TestUntilWidth(t *testing.T) {
	var units []float64
	for i := range 40 {
		units = append(units, 1000+20*wave(i))
	}
	w, err := UntilWidth(units[:5], 0.5, Options{})
	if err != nil || w.Reached || w.Interval != nil || !math.IsInf(w.Relative, 1) {
		t.Errorf("5 units: %+v, %v", w, err)
	}
	w, err = UntilWidth(units[:9], 0.5, Options{})
	if err != nil || w.Reached || w.Relative > 0.5 {
		t.Errorf("9 units stop too early: %+v, %v", w, err)
	}
	w, err = UntilWidth(units, 0.01, Options{})
	if err != nil || !w.Reached || math.Abs(w.Estimate-1000) > 5 {
		t.Errorf("40 units: %+v, %v", w, err)
	}
	w, err = UntilWidth(units, 0.0001, Options{})
	if err != nil || w.Reached {
		t.Errorf("0.01 %%: %+v, %v", w, err)
	}
	double := slices.Clone(units)
	for i := range double {
		double[i] *= 2
	}
	w, err = UntilRatioWidth(units, double, 0.001, Options{})
	if err != nil || !w.Reached || math.Abs(w.Estimate-2) > 1e-12 {
		t.Errorf("ratio: %+v, %v", w, err)
	}
}

func TestShare(t *testing.T) {
	part := []float64{40, 42, 38, 41, 39, 40}
	of := func(part, whole []float64) (Share, error) {
		return ShareOf([]Term{{1, part, 0}}, []Term{{1, whole, 1}}, 0.95)
	}
	s, err := of(part, []float64{160, 158, 162, 161, 159, 160, 160})
	if err != nil || s.Interval == nil || s.Value != 0.25 || !s.Interval.Contains(0.25) || s.Interval.Hi-s.Interval.Lo > 0.03 {
		t.Errorf("%+v %v, %v", s, s.Interval, err)
	}
	// An increment that is not told from zero bounds no share.
	s, err = of(part, []float64{50, -60, 30, -20, 45, -10})
	if err != nil || s.Interval != nil || codes(s.Warnings) != "share-unbounded" {
		t.Errorf("%+v, %v", s, err)
	}
	// Of times no share is below zero, however they vary.
	s, err = of([]float64{1, 1, 1, 90, 90, 1}, []float64{100, 100, 100, 110, 90, 100})
	if err != nil || s.Interval == nil || s.Interval.Lo != 0 {
		t.Errorf("%+v %v, %v", s, s.Interval, err)
	}
	// Too few blocks have a share without an interval.
	if s, err = of(part[:5], part); err != nil || s.Interval != nil || s.Value != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// Of a median less itself nothing is left to doubt, and of one less its like in the same
// blocks little; of two records it is √2 times as much, by 12 degrees of freedom in place of
// 6. Samples whose pairwise correlations leave no variance count as independent.
func TestContrast(t *testing.T) {
	xs := []float64{1, 2, 3, 4, 5, 6, 7}
	width := func(terms ...Term) float64 {
		e, err := Contrast(terms, 0.95)
		if err != nil || e.Interval == nil {
			t.Fatalf("%+v, %v", e, err)
		}
		return e.Interval.Hi - e.Interval.Lo
	}
	alone := width(Term{1, xs, 0})
	ys := []float64{2, 3, 4, 5, 6, 7, 8}
	if paired, apart := width(Term{1, ys, 0}, Term{-1, xs, 0}), width(Term{1, ys, 0}, Term{-1, xs, 1}); paired >= alone || math.Abs(apart/alone-math.Sqrt2*2.1788128/2.4469119) > 1e-6 {
		t.Errorf("widths: %v alone, %v paired, %v apart", alone, paired, apart)
	}
	if w := width(Term{1, xs, 0}, Term{-1, xs, 0}); w <= 0 {
		t.Errorf("a width of %v", w)
	}
}

func TestBadInput(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	ok := []float64{1, 2, 3, 4, 5, 6}
	fit := func(times ...float64) error {
		var ps []CostPoint
		for i, x := range times {
			ps = append(ps, CostPoint{Block: i / 2, Bytes: int64(1 + i%2), TimeNS: x})
		}
		_, err := FitCost(ps, 0.95)
		return err
	}
	drop := func(_ any, err error) error { return err }
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"median of nothing", drop(Median(nil)), ErrEmpty},
		{"summary of NaN", drop(Summarize([]float64{nan}, 0.95)), ErrNotFinite},
		{"summary at 1", drop(Summarize(ok, 1)), ErrOption},
		{"quantile 1", drop(Quantile(ok, 1)), ErrOption},
		{"quantile NaN", drop(Quantile(ok, nan)), ErrOption},
		{"quantile of Inf", drop(Quantile([]float64{inf}, 0.5)), ErrNotFinite},
		{"rate without time", drop(Rate([]int64{1}, []float64{0})), ErrNotPositive},
		{"rate of nothing", drop(Rate(nil, nil)), ErrEmpty},
		{"rate negative", drop(Rate([]int64{-1}, []float64{1})), ErrNotPositive},
		{"rate lengths", drop(Rate([]int64{1, 2}, []float64{1})), ErrShape},
		{"sign-flip of nothing", drop(SignFlipTest(nil, 1)), ErrEmpty},
		{"paired lengths", drop(ComparePaired(ok, ok[1:], Options{})), ErrShape},
		{"paired zero", drop(ComparePaired(ok, []float64{1, 2, 3, 4, 5, 0}, Options{})), ErrNotPositive},
		{"paired level", drop(ComparePaired(ok, ok, Options{Level: 2})), ErrOption},
		{"unpaired negative", drop(CompareUnpaired([]float64{-1}, ok, Options{})), ErrNotPositive},
		{"unpaired NaN", drop(CompareUnpaired(ok, []float64{nan}, Options{})), ErrNotFinite},
		{"Holm above 1", drop(Holm([]float64{1.5})), ErrOption},
		{"Holm NaN", drop(Holm([]float64{nan})), ErrNotFinite},
		{"min units", drop(MinUnits(0, 1)), ErrOption},
		{"min units family", drop(MinUnits(0.05, 0)), ErrOption},
		{"autocorrelation of 2", drop(Autocorrelate(ok[:2])), ErrTooFew},
		{"PELT NaN", drop(PELT([]float64{nan}, 1, 2)), ErrNotFinite},
		{"PELT penalty", drop(PELT(ok, nan, 2)), ErrOption},
		{"PELT segment", drop(PELT(ok, 1, 1)), ErrOption},
		{"classify nothing", drop(Classify(nil)), ErrEmpty},
		{"MSER-5 short", drop(MSER5(ok)), ErrTooFew},
		{"blocks of nothing", drop(BlockMedians(nil)), ErrEmpty},
		{"negative block", drop(BlockMedians([]Sample{{0, -1, 1}})), ErrOption},
		{"block of NaN", drop(LaunchMedians([]Sample{{0, 0, nan}})), ErrNotFinite},
		{"fit of nothing", fit(), ErrEmpty},
		{"fit of 2 blocks", fit(1, 2, 1, 2), ErrTooFew},
		{"fit of NaN", fit(1, nan), ErrNotFinite},
		{"fit of zero", fit(1, 0), ErrNotPositive},
		{"fit of one size", drop(FitCost([]CostPoint{{0, 1, 0, 1}, {0, 1, 0, 1}, {1, 1, 0, 1}, {1, 1, 0, 1}, {2, 1, 0, 1}, {2, 1, 0, 1}}, 0.95)), ErrTooFew},
		{"crossover of nothing", drop(FindCrossover(CostModel{}, CostModel{}, 0)), ErrEmpty},
		{"share of nothing", drop(ShareOf(nil, []Term{{1, ok, 0}}, 0.95)), ErrEmpty},
		{"share of zero", drop(ShareOf([]Term{{1, ok, 0}}, []Term{{1, make([]float64, 6), 0}}, 0.95)), ErrNotFinite},
		{"contrast beyond floats", drop(Contrast([]Term{{1, []float64{1e308}, 0}, {1, []float64{1e308}, 0}}, 0.95)), ErrNotFinite},
		{"width target", drop(UntilWidth(ok, 0, Options{})), ErrOption},
		{"width zero", drop(UntilWidth([]float64{0}, 0.1, Options{})), ErrNotPositive},
		{"width lengths", drop(UntilRatioWidth(ok, ok[1:], 0.1, Options{})), ErrShape},
	}
	for _, c := range tests {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
}

// orderGolden was written down from the first version of Order.
const orderGolden = "[0 1 2 4 3 5] [3 5 0 2 1 4] [2 4 0 5 3 1]"

// A series of any length is searched in about the same time; the step is found
// to within the values that were put together.
func TestClassifyLong(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	xs := make([]float64, 500_000)
	const step = 300_000
	for i := range xs {
		xs[i] = 20 + rng.NormFloat64()
		if i < step {
			xs[i] += 10
		}
	}
	st, err := Classify(xs)
	if err != nil {
		t.Fatal(err)
	}
	within := len(xs)/searchMost + 1
	if st.Class != WarmUp || len(st.Transitions) != 1 || math.Abs(float64(st.Start-step)) > float64(within) {
		t.Errorf("class %v from %d, transitions %v; want a warm-up that ends at %d, within %d", st.Class, st.Start, st.Transitions, step, within)
	}
	if last := st.Segments[len(st.Segments)-1]; last.End != len(xs) || math.Abs(last.SD-1) > 0.1 {
		t.Errorf("the last segment ends at %d with a standard deviation of %.3g, want %d and 1, that of single values", last.End, last.SD, len(xs))
	}
}
