package analysis_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

func ofRequests(t *testing.T, r *record.Record) *analysis.Requests {
	t.Helper()
	res, err := analysis.OfRequests(r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// A first chunk with several tokens is late for the first one: that is counted.
func TestMergedChunksAreCounted(t *testing.T) {
	r := synth.MakeLap([]string{"tcp"}, 10, 4, record.LoadClosed, 1)
	for i := range 3 {
		r.Requests[i].ITLNs = nil // two tokens in one chunk
	}
	if n := ofRequests(t, r).Rows[0].Merged; n != 3 {
		t.Errorf("%d merged, want 3", n)
	}
}

// With several launches the launch is the unit, as in a raw run.
func TestLaunchesAreTheUnits(t *testing.T) {
	r := synth.MakeLap([]string{"tcp", "efa"}, 6, 4, record.LoadClosed, 1)
	for i := range r.Requests {
		q := &r.Requests[i]
		q.Launch, q.Block = q.Block/2, q.Block%2
	}
	res := ofRequests(t, r)
	if row := res.Rows[0]; len(row.Units) != 3 || row.Blocks != 6 || row.TTFT.N != 3 || row.TTFT.CI != nil {
		t.Errorf("%d units of %d blocks, TTFT %+v; want 3 of 6 without an interval", len(row.Units), row.Blocks, row.TTFT)
	}
	if v := res.Comparisons[0].Verdict; v.NA != 3 {
		t.Errorf("verdict over %d units, want 3", v.NA)
	}
}

// The jump of the study, on made-up data: the lap is predicted where TTFT and
// descriptors change.
func TestSeriesFindsTheStep(t *testing.T) {
	got := map[string]int{}
	for _, s := range ofRequests(t, synth.MakeLap([]string{"tcp", "efa"}, 10, 4, record.LoadClosed, 1)).Series {
		if s.Lap == nil || s.Lap.Sequence != 16 || s.Lap.PerRequest != 500 {
			t.Errorf("%s: lap %+v", s.Arm, s.Lap)
		}
		for _, c := range s.Changes {
			got[s.Arm+" "+c.Component] = c.Sequence
		}
	}
	want := map[string]int{"tcp descriptors": 16, "efa descriptors": 16, "efa ttft": 16, "efa decode-queue": 16}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
}

// Eleven requests in a row that take 2.3 times as long are a stretch, in one arm.
func TestSeriesFindsAStretch(t *testing.T) {
	r := equalArms(rand.New(rand.NewPCG(5, 5)), 2, 1, 60)
	for i := range r.Requests {
		if q := &r.Requests[i]; q.Arm == "arm1" && q.Sequence >= 19 && q.Sequence < 30 {
			q.TTFTNs = q.TTFTNs * 23 / 10
		}
	}
	for _, s := range ofRequests(t, r).Series {
		want := stats.Flat
		if s.Arm == "arm1" {
			want = stats.Excursions
			if len(s.Stretches) != 1 || s.Stretches[0].First != 19 || s.Stretches[0].Last != 29 || s.Stretches[0].N != 11 || math.Abs(s.Stretches[0].Factor-2.3) > 0.1 {
				t.Errorf("stretches %+v", s.Stretches)
			}
		}
		if got := s.Class(analysis.ComponentTTFT); got != want {
			t.Errorf("%s is %v, want %v", s.Arm, got, want)
		}
	}
}

// Layer groups share one pool, and each rank counts descriptors of its own. The first
// two counts are twice those of a real engine with windows (testdata/engines, 0.32.0,
// windows-1000), whose prompt takes 2 x 32 blocks of 1,170, and of which 5 + 32 cross;
// the third follows by hand, since a free list turned round twice is as it was.
func TestSeriesOfGroupsAndRanks(t *testing.T) {
	var lines []record.Request
	for i, descs := range []int64{28, 1036, 28} {
		lines = append(lines, record.Request{Arm: "tcp", Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Sequence: i, Phase: record.PhaseMeasure, Load: record.LoadClosed,
			Concurrency: 1, PromptTokens: 1000, MaxTokens: 4, TTFTNs: 1e9, Valid: true, PoolBlocks: 1170, BlockTokens: 32, KVBlocks: []int{5, 32}, DecodeTP: 2,
			Rule: record.RuleBlocks, Moved: &record.Moved{Scope: record.ProofSample, Transfers: 2, Bytes: 67_895_296, Descriptors: descs}})
	}
	series := func() analysis.Series {
		return ofRequests(t, &record.Record{Conditions: []record.Condition{{Name: "c", Provider: "tcp"}}, Requests: lines}).Series[0]
	}
	want := &analysis.Lap{PoolBlocks: 1170, PerRequest: 64, Sequence: 18, DecodeSequence: 31, Model: "lifo", Agree: 3, Of: 3}
	if diff := cmp.Diff(want, series().Lap); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for why, groups := range map[string][]int{
		"how many KV blocks of each layer group a request takes is not known":     nil,
		"a layer group of one KV block may be a state, which takes no others":     {1, 32},
		"layer groups that hand over 5 to 33 KV blocks are not of a prompt of 32": {5, 33},
	} {
		for i := range lines {
			lines[i].KVBlocks = groups
		}
		if s := series(); s.Lap != nil || s.NoLap != why {
			t.Errorf("%v: lap %+v, %q; want %q", groups, s.Lap, s.NoLap, why)
		}
	}
	for i := range lines {
		lines[i].KVBlocks = []int{5, 32 - min(i, 1)}
	}
	if s := series(); s.Lap != nil || s.NoLap != "requests of one length hand over different numbers of KV blocks" {
		t.Errorf("lap %+v, %q", s.Lap, s.NoLap)
	}
}

// What an engine did not count leaves the rest of the figures as they are: without
// descriptors nothing is said of the order of the free list.
func TestWithoutDescriptors(t *testing.T) {
	r := synth.MakeLap([]string{"tcp"}, 10, 4, record.LoadClosed, 1)
	want := ofRequests(t, r).Rows[0].Moved.Bytes
	for i := range r.Requests {
		r.Requests[i].Moved.Descriptors = 0
	}
	r.Requests[7].Moved.Transfers = 0
	res := ofRequests(t, r)
	if lap := res.Series[0].Lap; lap == nil || lap.Sequence != 16 || lap.Model != "" || lap.Of != 0 {
		t.Errorf("lap %+v", lap)
	}
	if m := res.Rows[0].Moved; m == nil || m.Bytes != want || m.Transfers != 39 {
		t.Errorf("moved %+v", m)
	}
}

// OfRequests takes whatever a record may hold without breaking down.
func FuzzOfRequests(f *testing.F) {
	f.Add(uint64(1), 5, 3)
	f.Fuzz(func(t *testing.T, seed uint64, arms, n int) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var lines []record.Request
		var conds []record.Condition
		for c := range max(min(arms, 5), 0) {
			conds = append(conds, record.Condition{ID: c, Name: "c", Provider: fmt.Sprint(c)})
		}
		for i := range max(min(n, 60), 0) {
			l := record.Request{Condition: rng.IntN(6), Arm: fmt.Sprint(rng.IntN(3)), Load: []string{record.LoadClosed, record.LoadOpen, record.LoadOffline}[rng.IntN(3)], Concurrency: rng.IntN(3),
				Block: rng.IntN(4), Sequence: i, Phase: []string{record.PhaseMeasure, record.PhaseWarmup}[rng.IntN(2)], PromptTokens: rng.IntN(200), MaxTokens: rng.IntN(4),
				TTFTNs: 1 + rng.Int64N(1e9), E2ENs: 1 + rng.Int64N(1e9), Valid: rng.IntN(3) > 0, PoolBlocks: rng.IntN(50), BlockTokens: rng.IntN(17), Path: record.PathTwoLeg}
			for range rng.IntN(3) {
				l.KVBlocks = append(l.KVBlocks, rng.IntN(20)-1)
			}
			if rng.IntN(2) == 0 {
				l.Split = &record.Split{Prefill: rng.Int64N(100), Engine: rng.IntN(2) == 0}
				l.Moved = &record.Moved{Scope: "sample", Transfers: rng.Int64N(3), Descriptors: rng.Int64N(50)}
			}
			lines = append(lines, l)
		}
		if _, err := analysis.OfRequests(&record.Record{Run: record.Run{Seed: seed}, Conditions: conds, Requests: lines}); err != nil {
			t.Fatal(err)
		}
	})
}
