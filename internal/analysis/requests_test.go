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
