package schedule

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/stats"
)

// A run goes on with a record of its own experiment only: what differs is named,
// and nothing is to be written before all conditions were compared.
func TestGate(t *testing.T) {
	run := func() record.Run {
		return record.Run{ID: "x", Kind: "sweep", Argv: []string{"a"}, Host: record.Host{Hostname: "h", Kernel: "6"},
			Peer: &record.Host{Hostname: "p"}, Env: map[string]string{"FI_LOG_LEVEL": "warn"}, Design: &record.Design{Order: "random", Blocks: 6}}
	}
	cond := func(id int) record.Condition {
		return record.Condition{ID: id, Name: "tcp read merged", Memory: "host", Ops: 28,
			Transport: record.Transport{Streams: 1, Depth: 16, Settings: map[string]string{"FI_TCP_X": "1"}}}
	}
	for name, tt := range map[string]struct {
		change func(*record.Run, *record.Condition)
		says   string // "": the same experiment
	}{
		"the same":    {func(*record.Run, *record.Condition) {}, ""},
		"more blocks": {func(r *record.Run, _ *record.Condition) { r.Design.Blocks, r.StartUnixNs, r.Argv = 9, 7, nil }, ""},
		"what the library says": {func(_ *record.Run, c *record.Condition) {
			c.Transport.Notes, c.Transport.Protocol = []string{"n"}, map[string]string{"read": "x"}
		}, ""},
		"streams, and their operations": {func(_ *record.Run, c *record.Condition) { c.Transport.Streams, c.Ops = 4, 56 }, "condition 1 (tcp read merged) of f.jsonl: transport.streams is 1 there and 4 here"},
		"settings":                      {func(_ *record.Run, c *record.Condition) { c.Transport.Settings = nil }, `transport.settings.FI_TCP_X is "1" there and not set here`},
		"memory":                        {func(_ *record.Run, c *record.Condition) { c.Memory = "cuda:0" }, `memory is "host" there and "cuda:0" here`},
		"library":                       {func(_ *record.Run, c *record.Condition) { c.Transport.Version = "2.1" }, `transport.library_version is "" there and "2.1" here`},
		"environment":                   {func(r *record.Run, _ *record.Condition) { r.Env = nil }, `environment.FI_LOG_LEVEL is "warn" there and not set here`},
		"build":                         {func(r *record.Run, _ *record.Condition) { r.ToolCommit = "abc" }, "xferbench is"},
		"peer":                          {func(r *record.Run, _ *record.Condition) { r.Peer.Hostname = "q" }, `peer host is "p, Linux " there and "q, Linux " here`},
		"isolation":                     {func(r *record.Run, _ *record.Condition) { r.Isolation = "namespace" }, `isolation is "" there and "namespace" here`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGate(&record.Record{Path: "f.jsonl", Run: run(), Conditions: []record.Condition{cond(0), cond(1)}})
			r, c := run(), cond(1)
			tt.change(&r, &c)
			var lines []record.Line
			var err error
			for i, l := range []record.Line{r, cond(0), record.Event{Message: "e"}, c} {
				if lines, err = g.Take(l); err != nil || i < 3 && len(lines) > 0 {
					break
				}
			}
			if tt.says != "" {
				if !errors.Is(err, ErrOther) || fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), tt.says) || len(lines) > 0 {
					t.Errorf("%v with %v to write, want %q", err, lines, tt.says)
				}
				return
			}
			if err != nil || len(lines) != 2 || len(g.Rest()) != 0 {
				t.Errorf("%v with %v to write, want the run line and the event", err, lines)
			}
		})
	}
}

// A record of one experiment is gone on with by the same one, with its seed, and by
// no other.
func TestResume(t *testing.T) {
	n := func(n int) *int { return &n }
	seed := uint64(9)
	made := spec.Default(spec.Sweep)
	made.Seed, made.Design.Blocks = &seed, n(8)
	if err := made.Complete(); err != nil {
		t.Fatal(err)
	}
	text, err := made.JSON()
	if err != nil {
		t.Fatal(err)
	}
	rec := func() *record.Record {
		r := &record.Record{Path: "f.jsonl", Run: record.Run{Kind: spec.Sweep, Seed: seed, Spec: text, ToolVersion: "0.1"}}
		for b := range 7 {
			r.Samples.Add(record.Sample{Block: b, Phase: record.PhaseMeasure, TotalNs: 5})
		}
		return r
	}
	for name, tt := range map[string]struct {
		record func(*record.Record)
		change func(*spec.Spec)
		says   string // "": goes on
	}{
		"the same":        {change: func(s *spec.Spec) { s.Design.Blocks = n(8) }},
		"more blocks":     {change: func(s *spec.Spec) { s.Design.Blocks = n(20) }},
		"fewer than done": {change: func(s *spec.Spec) { s.Design.Blocks = n(6) }, says: "f.jsonl has 7 blocks, this command asks for 6: give --blocks 7 or more"},
		"streams":         {change: func(s *spec.Spec) { s.Raw.Streams = spec.List[int]{4} }, says: "raw.streams is not set there and [4] here: its samples would be pooled"},
		"another seed":    {change: func(s *spec.Spec) { other := uint64(3); s.Seed = &other }, says: "seed is 9 there and 3 here"},
		"launches of more blocks": {record: func(r *record.Record) {
			r.Run.Spec = []byte(strings.Replace(string(text), `"launches":1`, `"launches":2`, 1))
		},
			change: func(s *spec.Spec) { s.Design.Launches, s.Design.Blocks = 2, n(20) }, says: "give --blocks 8, or another --record"},
		"of an older build":  {record: func(r *record.Record) { r.Run.Spec = nil }, change: func(*spec.Spec) {}, says: "which kept no spec"},
		"with a broken spec": {record: func(r *record.Record) { r.Run.Spec = []byte("{}") }, change: func(*spec.Spec) {}, says: "its spec: its key spec is 0"},
	} {
		r, s := rec(), spec.Default(spec.Sweep)
		if tt.record != nil {
			tt.record(r)
		}
		tt.change(s)
		err := Resume(r, s)
		switch {
		case tt.says != "" && (fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		case tt.says == "" && (err != nil || *s.Seed != seed):
			t.Errorf("%s: %v, seed %d", name, err, *s.Seed)
		}
	}
}

func TestEarlier(t *testing.T) {
	r := &record.Record{
		Samples: record.PackSamples([]record.Sample{
			{Condition: 1, Block: 2, Phase: record.PhaseMeasure, TotalNs: 5},
			{Condition: 1, Block: 2, Launch: 1, Phase: record.PhaseMeasure, TotalNs: 6},
			{Condition: 1, Block: -1, Phase: record.PhaseWarmup, TotalNs: 7},
		}...),
		Requests: []record.Request{{Condition: 0, Block: 3, Phase: record.PhaseMeasure, TTFTNs: 8, Valid: true},
			{Condition: 0, Block: 3, Phase: record.PhaseMeasure}, {Phase: record.PhaseWarmup}},
	}
	of := func(v float64, b int) stats.Sample { return stats.Sample{Block: b, Value: v} }
	zero := Past{Values: []stats.Sample{of(8, 3)}, Count: map[int]int{3: 2}, Sent: 3}
	for launch, want := range map[int]map[int]Past{
		-1: {0: zero, 1: {Values: []stats.Sample{of(5, 2), of(6, 2)}, Count: map[int]int{2: 2}, Sent: 3}},
		0:  {0: zero, 1: {Values: []stats.Sample{of(5, 2)}, Count: map[int]int{2: 1}, Sent: 2}},
		1:  {1: {Values: []stats.Sample{of(6, 2)}, Count: map[int]int{2: 1}, Sent: 1}},
		2:  {},
	} {
		if d := cmp.Diff(want, Earlier(r, launch)); d != "" {
			t.Errorf("launch %d: %s", launch, d)
		}
	}
}
