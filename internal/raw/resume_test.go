package raw

import (
	"errors"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/record"
)

// A run goes on with a record of its own experiment only: what differs is named,
// and nothing is to be written before all conditions were compared.
func TestGoing(t *testing.T) {
	run := func() record.Run {
		return record.Run{ID: "x", Kind: "sweep", Seed: 3, Argv: []string{"a"}, Host: record.Host{Hostname: "h", Kernel: "6"},
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
		"settings":                      {func(_ *record.Run, c *record.Condition) { c.Transport.Settings = nil }, "transport.settings.FI_TCP_X is 1 there and not set here"},
		"memory":                        {func(_ *record.Run, c *record.Condition) { c.Memory = "cuda:0" }, "memory is host there and cuda:0 here"},
		"library":                       {func(_ *record.Run, c *record.Condition) { c.Transport.Version = "2.1" }, "transport.library_version is empty there and 2.1 here"},
		"environment":                   {func(r *record.Run, _ *record.Condition) { r.Env = nil }, "environment.FI_LOG_LEVEL is warn there and not set here"},
		"build":                         {func(r *record.Run, _ *record.Condition) { r.ToolCommit = "abc" }, "xferbench is"},
		"peer":                          {func(r *record.Run, _ *record.Condition) { r.Peer.Hostname = "q" }, "peer host is p, Linux  there and q, Linux  here"},
		"isolation":                     {func(r *record.Run, _ *record.Condition) { r.Isolation = "namespace" }, "isolation is empty there and namespace here"},
		"checks":                        {func(r *record.Run, _ *record.Condition) { r.Design.Unchecked = true }, "design.unchecked is false there and true here"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &going{r: &record.Record{Path: "f.jsonl", Run: run(), Conditions: []record.Condition{cond(0), cond(1)}}}
			r, c := run(), cond(1)
			tt.change(&r, &c)
			var lines []record.Line
			var err error
			for i, l := range []record.Line{r, cond(0), record.Event{Message: "e"}, c} {
				if lines, err = g.take(l); err != nil || i < 3 && len(lines) > 0 {
					break
				}
			}
			if tt.says != "" {
				if !errors.Is(err, ErrUsage) || !errors.Is(err, errOther) || !strings.Contains(err.Error(), tt.says) || len(lines) > 0 {
					t.Errorf("%v with %v to write, want %q", err, lines, tt.says)
				}
				return
			}
			if err != nil || len(lines) != 2 || !g.known() {
				t.Errorf("%v with %v to write, want the run line and the event", err, lines)
			}
		})
	}
}
