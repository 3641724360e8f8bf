package schedule

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/stats"
)

// ErrOther is matched by the error of a run that would go on with the record of
// another experiment; nothing was written to that. It is of kind Usage.
var ErrOther = fault.New(fault.Usage, "another experiment")

// Resume completes s to go on with the record r: the same seed, so that blocks and
// payloads are those that it would have had. It is an error when s is another
// experiment, with the key that differs.
func Resume(r *record.Record, s *spec.Spec) error {
	if len(r.Run.Spec) == 0 {
		return fault.Usagef("%s was made by xferbench %s, which kept no spec: nothing tells what it measured; give another --record", r.Path, r.Run.ToolVersion)
	}
	there, err := spec.Parse(r.Run.Spec)
	if err != nil {
		return fault.Usagef("%s: its spec: %w", r.Path, err)
	}
	if s.Seed == nil {
		s.Seed = there.Seed
	}
	if err := s.Complete(); err != nil {
		return err
	}
	if d, err := spec.Difference(there, s); err != nil {
		return err
	} else if d != "" {
		return &fault.Error{Kind: fault.Usage, Err: fmt.Errorf("%s: %s: its samples would be pooled", r.Path, d),
			Hint: "resume with the command that made the record, or give another --record"}
	}
	if s.Design.Launches > 1 && there.Design.Blocks != nil && *there.Design.Blocks != *s.Design.Blocks {
		return fault.Usagef("%s: its launches have %d blocks and this command's %d: a launch's blocks are of one process; give --blocks %d, or another --record",
			r.Path, *there.Design.Blocks, *s.Design.Blocks, *there.Design.Blocks)
	}
	last := 0
	for _, p := range Earlier(r, -1) {
		for b := range p.Count {
			last = max(last, b+1)
		}
	}
	if last > *s.Design.Blocks && (s.TTFT == nil || s.Design.Budget == 0) {
		return fault.Usagef("%s has %d blocks, this command asks for %d: give --blocks %d or more", r.Path, last, *s.Design.Blocks, last)
	}
	return nil
}

// Earlier is what a record has measured, by condition, of one launch; -1: of all.
func Earlier(r *record.Record, launch int) map[int]Past {
	if r == nil {
		return nil
	}
	out := map[int]Past{}
	add := func(condition, of, block int, phase string, ns int64, counts bool) {
		if launch >= 0 && of != launch {
			return
		}
		p := out[condition]
		p.Sent++
		if phase == record.PhaseMeasure {
			if p.Count == nil {
				p.Count = map[int]int{}
			}
			p.Count[block]++
			if counts {
				p.Values = append(p.Values, stats.Sample{Block: block, Value: float64(ns)})
			}
		}
		out[condition] = p
	}
	for s := range r.Samples.All() {
		add(s.Condition, s.Launch, s.Block, s.Phase, s.TotalNs, true)
	}
	for _, q := range r.Requests {
		add(q.Condition, q.Launch, q.Block, q.Phase, q.TTFTNs, q.Valid)
	}
	return out
}

// Gate holds the lines of a run that goes on with a record until they show that
// hosts, libraries and conditions are the same, which only a started run knows.
type Gate struct {
	r    *record.Record
	held []record.Line
	seen int // conditions
}

// NewGate returns a gate before the record r; nil for no record, which lets all
// lines through.
func NewGate(r *record.Record) *Gate {
	if r == nil {
		return nil
	}
	return &Gate{r: r}
}

// Take returns the lines that may be written now that l has come. Its error
// matches [ErrOther].
func (g *Gate) Take(l record.Line) ([]record.Line, error) {
	if g == nil {
		return []record.Line{l}, nil
	}
	var what, diff string
	hold := true
	switch l := l.(type) {
	case record.Run:
		what, diff = "the run", spec.FirstDifference("", experiment(g.r.Run), experiment(l))
	case record.Condition:
		old, there := g.r.Condition(l.ID)
		if !there {
			break
		}
		g.seen++
		hold = false // the record has it
		what = fmt.Sprintf("condition %d (%s)", l.ID, l.Name)
		// What follows from a transport's settings, such as operations, comes after them.
		diff = cmp.Or(spec.FirstDifference("transport", values(old)["transport"], values(l)["transport"]), spec.FirstDifference("", values(old), values(l)))
	}
	if diff != "" {
		return nil, fmt.Errorf("%w: %s of %s: %s: its samples would be pooled; resume where and with what the record was made, or give another --record",
			ErrOther, what, g.r.Path, diff)
	}
	if hold {
		g.held = append(g.held, l)
	}
	if g.seen < len(g.r.Conditions) {
		return nil, nil
	}
	return g.Rest(), nil
}

// Rest returns what is still held, for a run that fails before it has shown all.
func (g *Gate) Rest() []record.Line {
	if g == nil {
		return nil
	}
	lines := g.held
	g.held = nil
	return lines
}

// experiment is what a run line says of the experiment beyond its spec, and not of
// one start of it.
func experiment(r record.Run) map[string]any {
	return map[string]any{"kind": r.Kind, "xferbench": r.ToolVersion + " " + r.ToolCommit, "isolation": r.Isolation,
		"host": hostOf(&r.Host), "peer host": hostOf(r.Peer), "environment": values(r.Env)}
}

func hostOf(h *record.Host) string {
	if h == nil {
		return ""
	}
	return h.Hostname + ", Linux " + h.Kernel
}

// values is what v has as JSON, without what a library says of one start.
func values(v any) map[string]any {
	b, err := json.Marshal(v)
	var out map[string]any
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return map[string]any{"error": err.Error()} // not reached: record lines are JSON
	}
	if t, is := out["transport"].(map[string]any); is {
		delete(t, "notes")
		delete(t, "protocol")
	}
	return out
}
