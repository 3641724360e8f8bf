package analysis_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// adviceRecord has two transports at 1 and 3 MB in 10 blocks. In block b p takes
// 1000+10b and 3000+10b ns, q half of that.
func adviceRecord() *record.Record {
	var conds []record.Condition
	var times [][][]int64
	for _, p := range []string{"p", "q"} {
		for _, mb := range []int64{1, 3} {
			c := cond(len(conds), p)
			c.Name, c.Bytes, c.Model = p+string(rune('0'+mb)), uint64(mb*1e6), "m"
			conds = append(conds, c)
			var blocks [][]int64
			for b := range int64(10) {
				ns := mb*1000 + 10*b
				if p == "q" {
					ns /= 2
				}
				blocks = append(blocks, []int64{ns})
			}
			times = append(times, blocks)
		}
	}
	return line(conds, times...)
}

// twoPrompts is one request of 10 tokens and one of 20, at 100,000 bytes a token
// and a price of 1 a second.
func twoPrompts() analysis.Deployment {
	return analysis.Deployment{
		Model: "m", Prompts: []analysis.Prompt{{Tokens: 10, Bytes: 1e6, N: 1}, {Tokens: 20, Bytes: 2e6, N: 1}},
		Concurrency: 2, PricePerHour: 3600, Worth: analysis.Worth{Fraction: 0.05},
	}
}

func advise(t *testing.T, d analysis.Deployment, tt *analysis.Requests, recs ...*record.Record) *analysis.Advice {
	t.Helper()
	var raws []*analysis.Analysis
	for _, r := range recs {
		raws = append(raws, of(t, r))
	}
	a, err := analysis.Advise(d, raws, tt)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func equals(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9*math.Abs(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func withinCI(t *testing.T, what string, iv *stats.Interval, lo, hi float64) {
	t.Helper()
	if iv == nil {
		t.Errorf("%s: no interval, want [%v, %v]", what, lo, hi)
		return
	}
	equals(t, what+" from", iv.Lo, lo)
	equals(t, what+" to", iv.Hi, hi)
}

// All by hand. The interval of a median of ten values is from the second to the
// ninth, at 95 % as at 97.5 %: block 1 and block 8.
func TestAdvise(t *testing.T) {
	d := twoPrompts()
	d.TTFTNs = []float64{10_000}
	a := advise(t, d, nil, adviceRecord())
	if a.Requests != 2 || len(a.Points) != 2 || a.Points[0].Tokens != 10 || a.Points[1].Tokens != 20 || len(a.Transports) != 2 || len(a.Contests) != 1 {
		t.Fatalf("%d requests, points %+v, %d transports, %d contests", a.Requests, a.Points, len(a.Transports), len(a.Contests))
	}
	p, q := a.Transports[0], a.Transports[1]
	if p.Label != "p READ merged" || p.At[0].Basis != analysis.Measured || p.At[1].Basis != analysis.Between || len(p.At[1].Rows) != 2 {
		t.Errorf("%s: %v, %v of %d rows", p.Label, p.At[0].Basis, p.At[1].Basis, len(p.At[1].Rows))
	}
	equals(t, "p at 1 MB", p.At[0].MedianNs, 1045)
	withinCI(t, "p at 1 MB", p.At[0].CI, 1010, 1080)
	equals(t, "p at 2 MB", p.At[1].MedianNs, 2045)
	withinCI(t, "p at 2 MB", p.At[1].CI, 2010, 2080)
	equals(t, "q at 2 MB", q.At[1].MedianNs, 1022.5)
	equals(t, "share", p.At[0].Share.Value, 0.1045)
	withinCI(t, "share", p.At[0].Share.CI, 0.1010, 0.1080)
	// Both requests in block b: 3000+20b ns, of two in flight, for 30 tokens.
	equals(t, "cost", p.Cost.PerMillion, 3090e-9/2/30*1e6)
	withinCI(t, "cost", p.Cost.CI, 3020e-9/2/30*1e6, 3160e-9/2/30*1e6)
	equals(t, "covered", p.Cost.Covered, 1)
	dif := a.Contests[0].Points[1]
	if dif.Answer != analysis.AnswerYes || dif.N != 10 {
		t.Errorf("%+v", dif)
	}
	equals(t, "q over p", dif.Ratio, 0.5)
	withinCI(t, "q over p", dif.RatioCI, 0.5, 0.5)
	equals(t, "q less p", dif.Ns, -1022.5)
	withinCI(t, "q less p", dif.NsCI, -1040, -1005)
}

// The whole interval decides, in either direction.
func TestWorth(t *testing.T) {
	for _, tt := range []struct {
		worth analysis.Worth
		want  analysis.Answer
	}{
		{analysis.Worth{Ns: 1005}, analysis.AnswerYes}, // the difference is 1005 to 1040 ns
		{analysis.Worth{Ns: 1006}, analysis.AnswerUndecided},
		{analysis.Worth{Ns: 1040}, analysis.AnswerUndecided},
		{analysis.Worth{Ns: 1041}, analysis.AnswerNo},
		{analysis.Worth{Fraction: 0.99}, analysis.AnswerYes}, // the slower takes 100 % more
		{analysis.Worth{Fraction: 1.01}, analysis.AnswerNo},
	} {
		d := twoPrompts()
		d.Worth = tt.worth
		if got := advise(t, d, nil, adviceRecord()).Contests[0].Points[1].Answer; got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.worth, got, tt.want)
		}
	}
}

// A TTFT record gives the first token: 10,000+100b ns at 10 tokens in block b.
func TestAdviseTTFT(t *testing.T) {
	rec := &record.Record{Run: record.Run{Schema: 2, Kind: "ttft"}, Conditions: []record.Condition{{ID: 0, Name: "pair", Provider: "pair", Tokens: 10}}, End: &record.End{Status: record.StatusOK}}
	for b := range 10 {
		rec.Requests = append(rec.Requests, record.Request{Arm: "pair", Path: record.PathTwoLeg, Block: b, Sequence: b, Phase: record.PhaseMeasure, Load: record.LoadClosed,
			Concurrency: 2, TTFTNs: int64(10_000 + 100*b), E2ENs: 20_000, Valid: true})
	}
	tt, err := analysis.OfRequests(rec)
	if err != nil {
		t.Fatal(err)
	}
	a := advise(t, twoPrompts(), tt, adviceRecord())
	f := a.Points[0].FirstToken
	if f == nil || f.Basis != analysis.Measured || a.Points[1].FirstToken == nil || a.Points[1].FirstToken.Basis != analysis.Scaled {
		t.Fatalf("first tokens %+v and %+v", f, a.Points[1].FirstToken)
	}
	equals(t, "first token", f.Ns, 10_450)
	p := a.Transports[0].At[0]
	equals(t, "share", p.Share.Value, 1045.0/10_450)
	withinCI(t, "share", p.Share.CI, 1010.0/10_800, 1080.0/10_100)

	d := twoPrompts()
	d.Concurrency = 1
	if a = advise(t, d, tt, adviceRecord()); a.Points[0].FirstToken != nil || a.Points[0].Unknown != "the TTFT record has the loads c2 and not c1" {
		t.Errorf("%+v", a.Points[0])
	}
	d.TTFTNs = []float64{1}
	if _, err := analysis.Advise(d, nil, tt); !errors.Is(err, analysis.ErrAdvice) {
		t.Errorf("two sources of the first token: %v", err)
	}
	// A transfer that takes longer than the first token was not the one before it.
	d.TTFTNs = []float64{1000}
	if e := advise(t, d, nil, adviceRecord()).Transports[0].At[0]; e.Share != nil || e.NoShare == "" {
		t.Errorf("%+v", e)
	}
}

// What must not advise: emulated rows, rows with a failed check, ceilings and
// copies, and sizes out of reach, which also take their tokens out of the cost.
func TestAdviseNothing(t *testing.T) {
	r := adviceRecord()
	r.Conditions[0].Simulated, r.Conditions[1].Simulated = true, true
	bad := false
	edit(r, func(_ int, s *record.Sample) {
		if s.Condition == 2 {
			s.Verified = &bad
		}
	})
	r.Conditions[3].Ceiling = true
	a := advise(t, twoPrompts(), nil, r)
	if len(a.Transports) != 0 || a.Measured() {
		t.Errorf("%d transports", len(a.Transports))
	}
	var codes []string
	for _, w := range a.Warnings {
		codes = append(codes, w.Code)
	}
	if want := []string{"emulated", "data-check-failed", "one-launch", "one-host", "not-concurrent"}; !slices.Equal(codes, want) {
		t.Errorf("warnings %v, want %v", codes, want)
	}

	d := twoPrompts()
	d.Ranks = 8
	d.Prompts = append(d.Prompts, analysis.Prompt{Tokens: 70, Bytes: 7e6, N: 1})
	a = advise(t, d, nil, adviceRecord())
	if e := a.Transports[0].At[1]; e.Basis != analysis.NotMeasured || e.Share != nil {
		t.Errorf("beyond a factor of two: %+v", e)
	}
	if a.Contests[0].Points[1].Answer != analysis.AnswerUnknown {
		t.Errorf("%+v", a.Contests[0].Points[1])
	}
	equals(t, "covered", a.Transports[0].Cost.Covered, 0.3)
	if !slices.ContainsFunc(a.Warnings, func(w analysis.Warning) bool { return w.Code == "one-rank" }) {
		t.Error("nothing about ranks that transfer at once")
	}
}

// From one size alone the truth lies anywhere between that time and one in
// proportion, and so does the ratio.
func TestAdviseOneSize(t *testing.T) {
	r := adviceRecord()
	r.Conditions = []record.Condition{r.Conditions[0], r.Conditions[2]}
	r.Samples = record.PackSamples(slices.DeleteFunc(slices.Collect(r.Samples.All()), func(s record.Sample) bool { return s.Condition%2 == 1 })...)
	d := twoPrompts()
	d.Prompts = []analysis.Prompt{{Tokens: 15, Bytes: 1.5e6, N: 3}}
	a := advise(t, d, nil, r)
	if len(a.Points) != 1 || a.Points[0].Name != "p50=p95" {
		t.Fatalf("%+v", a.Points)
	}
	e := a.Transports[0].At[0]
	equals(t, "p", e.MedianNs, 1045*1.5)
	withinCI(t, "p", e.CI, 1010, 1080*1.5)
	if a.Transports[0].Cost.CI != nil {
		t.Error("the cost has an interval that no data gives")
	}
	dif := a.Contests[0].Points[0]
	withinCI(t, "ratio", dif.RatioCI, 0.5/1.5, 0.5*1.5)
	withinCI(t, "difference", dif.NsCI, 505-1620, 810-1010)
	if dif.Answer != analysis.AnswerYes { // at least 1/0.75 times as fast
		t.Errorf("%s", dif.Answer)
	}
}

func TestAdviseErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*analysis.Deployment)
		want   string
	}{
		"no prompts": {func(d *analysis.Deployment) { d.Prompts = nil }, "0 prompt lengths"},
		"in flight":  {func(d *analysis.Deployment) { d.Concurrency = 0 }, "0 requests in flight"},
		"times":      {func(d *analysis.Deployment) { d.TTFTNs = []float64{1, 2, 3} }, "3 times to first token for 2 prompt lengths"},
	} {
		d := twoPrompts()
		tt.change(&d)
		if _, err := analysis.Advise(d, nil, nil); !errors.Is(err, analysis.ErrAdvice) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// How often the intervals hold the truth, and how often the verdict on a worth is
// wrong: 300 seeded records of 10 blocks, each with an effect of its block on both
// sizes, whose median is 1 (2 % lognormal).
func TestAdviseCoverage(t *testing.T) {
	const runs = 300
	rng := rand.New(rand.NewPCG(11, 4))
	inside := map[string]int{}
	for range runs {
		var conds []record.Condition
		var times [][][]int64
		for _, p := range []string{"p", "q"} {
			for _, mb := range []int64{1, 3} {
				c := cond(len(conds), p)
				c.Name, c.Bytes = p+string(rune('0'+mb)), uint64(mb*1e6)
				conds = append(conds, c)
				times = append(times, make([][]int64, 10))
			}
		}
		for b := range 10 {
			shared := math.Exp(0.02 * rng.NormFloat64())
			for i, truth := range []float64{1e6, 3e6, 1.05e6, 3.15e6} { // q takes 5 % more, exactly the worth
				times[i][b] = []int64{int64(truth * shared * math.Exp(0.01*rng.NormFloat64()))}
			}
		}
		d := twoPrompts()
		d.TTFTNs = []float64{10e6}
		a := advise(t, d, nil, line(conds, times...))
		e := a.Transports[0].At[1]
		for what, ok := range map[string]bool{
			"time":  e.CI.Contains(2e6),
			"share": e.Share.CI.Contains(0.2),
			"cost":  a.Transports[0].Cost.CI.Contains(3e6 * 1e-9 / 2 / 30 * 1e6),
			"ratio": a.Contests[0].Points[1].RatioCI.Contains(1.05),
			// At the very border the answer has to be open.
			"worth": a.Contests[0].Points[1].Answer == analysis.AnswerUndecided,
		} {
			if ok {
				inside[what]++
			}
		}
	}
	// 95 % less three standard errors of 300 runs.
	for what, n := range inside {
		if share := float64(n) / runs; share < 0.95-3*math.Sqrt(0.95*0.05/runs) {
			t.Errorf("%s: %.3f of the runs", what, share)
		} else {
			t.Logf("%s: %.3f", what, share)
		}
	}
	if len(inside) != 5 {
		t.Errorf("only %v", inside)
	}
}

// FuzzAdvise: whatever is asked, no figure is one that no program can read, and
// nothing is told far from what was measured.
func FuzzAdvise(f *testing.F) {
	f.Add(int64(10), int64(1e6), int64(1), int64(20), int64(2e6), int64(3), 2, 98.0, 0.05, 1e4)
	f.Add(int64(1), int64(0), int64(0), int64(1), int64(math.MaxInt64), int64(1), 1, 1e12, 0.0, 1e-300)
	a, err := analysis.Of(adviceRecord())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, t1, b1, n1, t2, b2, n2 int64, flight int, price, worth, ttft float64) {
		positive := func(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }
		if min(t1, b1, n1, t2, b2, n2) < 0 || n1 > 1e12 || n2 > 1e12 || !positive(price) || price > 1e12 || !positive(worth) || !positive(ttft) || ttft == 0 {
			return // what the command refuses
		}
		d := analysis.Deployment{Prompts: []analysis.Prompt{{Tokens: t1, Bytes: b1, N: n1}, {Tokens: t2, Bytes: b2, N: n2}}, Concurrency: flight,
			PricePerHour: price, Worth: analysis.Worth{Fraction: worth}, TTFTNs: []float64{ttft}}
		out, err := analysis.Advise(d, []*analysis.Analysis{a}, nil)
		if err != nil {
			if flight > 0 {
				t.Error(err)
			}
			return
		}
		for _, c := range out.Transports {
			for i, e := range c.At {
				far := out.Points[i].Bytes < 500_000 || out.Points[i].Bytes > 6_000_000
				if far != (e.Basis == analysis.NotMeasured) || !far && (!(e.MedianNs > 0) || e.Share != nil && !(e.Share.Value <= 1)) {
					t.Errorf("%d bytes: %+v", out.Points[i].Bytes, e)
				}
			}
		}
	})
}
