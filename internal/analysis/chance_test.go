package analysis_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// equalTransports is a record of so many transports that do not differ: every block of each
// takes 1 ms with 3 % noise.
func equalTransports(rng *rand.Rand, providers, blocks int) *record.Record {
	var conds []record.Condition
	times := make([][][]int64, providers)
	for i := range providers {
		conds = append(conds, cond(i, fmt.Sprint("p", i)))
		for range blocks {
			times[i] = append(times[i], []int64{int64(1e6 * math.Exp(0.03*rng.NormFloat64()))})
		}
	}
	return line(conds, times...)
}

// equalArms is a TTFT record of so many arms and prompt lengths that do not differ.
func equalArms(rng *rand.Rand, arms, lengths, blocks int) *record.Record {
	r := &record.Record{Run: record.Run{Schema: 1, Kind: "ttft", Seed: 3}, End: &record.End{Status: record.StatusOK}}
	for i := range arms * lengths {
		arm, tokens := fmt.Sprint("arm", i%arms), 1000*(1+i/arms)
		r.Conditions = append(r.Conditions, record.Condition{ID: i, Name: fmt.Sprint(arm, tokens), Provider: arm, Tokens: int64(tokens)})
		for b := range blocks {
			r.Requests = append(r.Requests, record.Request{Condition: i, Arm: arm, Path: record.PathTwoLeg, Block: b, Sequence: b, Phase: record.PhaseMeasure, PromptTokens: tokens,
				MaxTokens: 2, Completion: 2, Load: record.LoadClosed, Concurrency: 1, Valid: true, TTFTNs: int64(1e8 * math.Exp(0.03*rng.NormFloat64())), E2ENs: 2e8})
		}
	}
	return r
}

// falseDifferences is how many questions of a run of equal transports come out
// different on average, in which share of runs any does, and in which share any does
// with Holm's correction over the run; and the same share of TTFT runs.
func falseDifferences(t *testing.T, runs int) (chance analysis.Chance, mean, some, over, ttft float64) {
	rng := rand.New(rand.NewPCG(4, 0x5eed))
	for range runs {
		a := of(t, equalTransports(rng, 7, 10))
		chance = a.Chance
		mean += float64(chance.Different)
		if chance.Different > 0 {
			some++
		}
		if chance.Held > 0 {
			over++
		}
		r, err := analysis.OfRequests(equalArms(rng, 5, 4, 10))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Comparisons {
			if c.Verdict.Kind == stats.Different {
				ttft++
				break
			}
		}
	}
	n := float64(runs)
	return chance, mean / n, some / n, over / n, ttft / n
}

// TestChance: what a run says to expect of chance is what chance does.
func TestChance(t *testing.T) {
	const runs = 150
	c, mean, some, over, ttft := falseDifferences(t, runs)
	t.Logf("%.2f false differences of %d questions, any in %.3f of runs, over the run %.3f, TTFT %.3f", mean, c.Questions, some, over, ttft)
	// Seven transports make 21 pairs, a question each: 1.05 false ones to expect, and
	// 1 - 0.95^21 = 0.659.
	if c.Questions != 21 || c.Verdicts != 21 || math.Abs(c.Expected()-1.05) > 1e-9 || math.Abs(c.Any()-0.6594) > 1e-4 {
		t.Errorf("%+v, expects %v, any %v", c, c.Expected(), c.Any())
	}
	slack := func(p float64) float64 { return p + 3*math.Sqrt(p*(1-p)/runs) }
	if mean > 1.05*1.35 || mean < 0.5 || some > slack(c.Any()) || over > slack(0.05) || ttft > slack(0.05) {
		t.Errorf("%.2f false differences, any in %.3f of runs, over the run %.3f, TTFT %.3f", mean, some, over, ttft)
	}
}

// TestChanceCounts by hand: of two pairs, one of transports three times apart; ten
// blocks that agree have p = 2/2^10, twice that over two verdicts.
func TestChanceCounts(t *testing.T) {
	slow, fast, same := make([][]int64, 10), make([][]int64, 10), make([][]int64, 10)
	for b := range int64(10) {
		slow[b], fast[b], same[b] = []int64{3000 + b}, []int64{1000 + b}, []int64{1000 + b + (b%2)*2 - 1}
	}
	write := func(id int, provider string) record.Condition {
		c := cond(id, provider)
		c.Op = "write"
		return c
	}
	a := of(t, line([]record.Condition{cond(0, "slow"), cond(1, "fast"), write(2, "fast"), write(3, "same")}, slow, fast, fast, same))
	if (a.Chance != analysis.Chance{Questions: 2, Verdicts: 2, Different: 1, Held: 1}) || len(a.Pairs) != 2 || a.Pairs[0].PRun == nil || *a.Pairs[0].PRun != 4.0/1024 {
		t.Errorf("%+v, pairs %+v", a.Chance, a.Pairs)
	}
	// Three blocks are no verdict.
	a = of(t, line([]record.Condition{cond(0, "slow"), cond(1, "fast")}, slow[:3], fast[:3]))
	if (a.Chance != analysis.Chance{}) || a.Pairs[0].PRun != nil {
		t.Errorf("%+v, pairs %+v", a.Chance, a.Pairs)
	}
}

func TestUnits(t *testing.T) {
	blocks := func(launch int) []stats.Unit {
		return []stats.Unit{{Key: stats.UnitKey{Launch: launch, Block: 0}}, {Key: stats.UnitKey{Launch: launch, Block: 1}}}
	}
	launches := []stats.Unit{{Key: stats.UnitKey{Launch: 0, Block: -1}}, {Key: stats.UnitKey{Launch: 1, Block: -1}}}
	tests := []struct {
		name   string
		a, b   []stats.Unit
		unlike bool
	}{
		{"blocks", blocks(0), blocks(1), false},
		{"launches", launches, launches, false},
		{"launches against blocks", launches, blocks(0), true},
		{"blocks against launches", blocks(0), launches, true},
		{"nothing", nil, launches, false},
		{"nothing and blocks", nil, blocks(0), false},
	}
	for _, c := range tests {
		if got := analysis.UnlikeUnits(c.a, c.b); (got != "") != c.unlike {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// TestUnlikeUnitsAreRefused: in one run, where a launch was cut off, and between two.
func TestUnlikeUnitsAreRefused(t *testing.T) {
	blocks := [][]int64{{100}, {101}, {102}, {103}, {104}, {105}, {106}}
	r := line([]record.Condition{cond(0, "x"), cond(1, "y")}, blocks, blocks)
	again := line([]record.Condition{cond(0, "x"), cond(1, "y")}, blocks, blocks)
	edit(again, func(_ int, s *record.Sample) {
		if s.Condition == 0 {
			s.Launch = s.Block
		}
	})
	two := of(t, again)
	const want = "the units are launches on one side and blocks of one launch on the other: measure both with the same --launches"
	if p := two.Pairs[0]; p.Refused != want {
		t.Errorf("in one run: %+v", p)
	}
	var sources []*analysis.Source
	for _, rec := range []*record.Record{r, again} {
		src, err := analysis.NewSource(rec)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, src)
	}
	c, err := analysis.Compare(sources[0], sources[1])
	if err != nil {
		t.Fatal(err)
	}
	if c.Rows[0].Refused != want || c.Rows[1].Refused != "" || (c.Chance != analysis.Chance{Questions: 1, Verdicts: 1}) {
		t.Errorf("between runs: %+v, %+v, %+v", c.Rows[0], c.Rows[1], c.Chance)
	}
}
