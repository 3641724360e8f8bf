package analysis_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

var simTruth = synth.SimTruth{Prefill: 420e6, HandOver: 4e6, Step: 9e6, Network: 3e6, Memory: 53e6, Socket: 190e6, Transfer: 280e6, Delay: 20e6, Notice: 5e6}

// waterfalls analyses 100 seeded runs by the simulator's formula.
func waterfalls(t *testing.T, truth synth.SimTruth, blocks int, each func(analysis.LadderRow)) {
	t.Helper()
	for seed := range uint64(100) {
		raw, tt := synth.MakeSim(seed, truth, blocks, 3)
		res, err := analysis.NewLadder(of(t, raw), ofRequests(t, tt), nil)
		if err != nil {
			t.Fatal(err)
		}
		each(res.Rows[1])
	}
}

// Each component of the waterfall is inside its interval in at least 95 of 100 runs,
// and all of them together as well, which the intervals are made for.
func TestWaterfallCoversTheTruth(t *testing.T) {
	slow := simTruth
	slow.Socket = 400e6 // kernel TCP takes longer than the transport: a negative step
	for _, truth := range []synth.SimTruth{simTruth, slow} {
		for _, blocks := range []int{6, 10} {
			want := map[string]float64{analysis.StepMemory: truth.Memory, analysis.StepSocket: truth.Socket - truth.Memory, analysis.StepRaw: truth.Transfer - truth.Socket, analysis.StepNIXL: truth.Delay,
				analysis.StepWait: truth.Notice, analysis.StepResidual: truth.HandOver + truth.Step, analysis.StepBase: truth.Prefill + truth.Network}
			hit, all, told := map[string]int{}, 0, 0
			waterfalls(t, truth, blocks, func(row analysis.LadderRow) {
				held := 0
				for kind, ns := range want {
					if s := row.Step(kind); s == nil || s.CI == nil {
						t.Fatalf("no %s with an interval in %+v", kind, row.Steps)
					} else if s.CI.Contains(ns) {
						hit[kind]++
						held++
					}
				}
				if s := row.Step(analysis.StepSocket); s.CI.Lo > 0 {
					told++ // the interval is not only there to hold everything
				}
				if held == len(want) {
					all++
				}
			})
			for kind := range want {
				if hit[kind] < 95 {
					t.Errorf("%d blocks: %s is inside its interval in %d of 100 runs", blocks, kind, hit[kind])
				}
			}
			if all < 95 || told < 95 {
				t.Errorf("%d blocks: all steps are inside their intervals in %d of 100 runs, that of the socket is told from zero in %d", blocks, all, told)
			}
		}
	}
}

// A cause is named where the record has its sign, and nowhere else.
func TestCauses(t *testing.T) {
	causes := func(change func(raw, tt *record.Record), truth synth.SimTruth) []string {
		raw, tt := synth.MakeSim(3, truth, 10, 4)
		if change != nil {
			change(raw, tt)
		}
		res, err := analysis.NewLadder(of(t, raw), ofRequests(t, tt), nil)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range res.Rows[1].Causes {
			out = append(out, c.Step+" "+c.Name)
		}
		return out
	}
	// The formula itself: a pass and a hand-over more, and an engine that polls.
	always := []string{"wait polling", "residual hand-over", "residual one token"}
	of := func(tt *record.Record, i int) *record.Request { return &tt.Requests[i] }
	for name, c := range map[string]struct {
		change func(raw, tt *record.Record)
		truth  func(*synth.SimTruth)
		want   string
	}{
		"none":       {},
		"recompute":  {change: func(_, tt *record.Record) { fail(tt, record.ReasonLocalRecompute) }, want: "residual recompute"},
		"prefix hit": {change: func(_, tt *record.Record) { fail(tt, record.ReasonPrefixHit) }, want: "residual prefix hit"},
		"chunked":    {change: func(_, tt *record.Record) { tt.Conditions[1].Serving.BatchTokens = 2048 }, want: "residual chunked prefill"},
		"one chunk":  {change: func(_, tt *record.Record) { tt.Conditions[1].Serving.BatchTokens = 8192 }},
		"cold": {change: func(_, tt *record.Record) {
			for i := range tt.Requests {
				of(tt, i).ConnReused = i%7 != 0
			}
		}, want: "residual cold connection"},
		"backend": {truth: func(s *synth.SimTruth) { s.Delay, s.Notice = 250e6, 16e6 }, want: "nixl wrong backend"},
		"lap": {change: func(_, tt *record.Record) {
			for i := range tt.Requests {
				if q := of(tt, i); q.Moved != nil && q.Sequence >= 20 {
					q.Moved.Descriptors = 28_000
				}
			}
		}, want: "nixl pool lap"},
	} {
		truth := simTruth
		if c.truth != nil {
			c.truth(&truth)
		}
		got := map[string]bool{}
		for _, s := range causes(c.change, truth) {
			got[s] = true
		}
		want := map[string]bool{}
		for _, s := range append(always, c.want) {
			if s != "" {
				want[s] = true
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	truth := simTruth
	truth.Notice = 60e6 // six steps: not the next one
	if s := strings.Join(causes(nil, truth), ", "); strings.Contains(s, "polling") {
		t.Errorf("a wait of six steps is called %s", s)
	}
}

// fail makes the pair's first request of each third block invalid.
func fail(tt *record.Record, reason record.Reason) {
	seen := map[int]bool{}
	for i := range tt.Requests {
		if q := &tt.Requests[i]; q.Condition == 1 && q.Block%3 == 0 && !seen[q.Block] {
			seen[q.Block] = true
			q.Valid, q.Reason = false, reason
		}
	}
}

// Without what a step needs, the next one goes on from the one before; without a
// unified arm the rest is the engines'.
func TestWaterfallOfLess(t *testing.T) {
	steps := func(change func(raw, tt *record.Record)) string {
		raw, tt := synth.MakeSim(3, simTruth, 8, 3)
		change(raw, tt)
		res, err := analysis.NewLadder(of(t, raw), ofRequests(t, tt), nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range res.Rows[1].Steps {
			got = append(got, s.Kind)
		}
		return strings.Join(got, " ")
	}
	for want, change := range map[string]func(raw, tt *record.Record){
		"memory socket nixl wait residual base total": func(_, tt *record.Record) { tt.Conditions[1].Serving.Provider = "efa" }, // not in the raw record
		"memory socket raw nixl residual base total": func(_, tt *record.Record) {
			for i := range tt.Requests {
				tt.Requests[i].Split.Engine = false // whole legs: no queue
			}
		},
		"memory socket raw nixl wait engines total": func(_, tt *record.Record) { tt.Conditions[0].Tokens = 10 },
		"nixl wait residual base total":             func(raw, _ *record.Record) { raw.Conditions, raw.Samples = nil, record.Samples{} },
	} {
		if got := steps(change); got != want {
			t.Errorf("steps %s, want %s", got, want)
		}
	}
}
