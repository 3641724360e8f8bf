package raw

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/transport"
)

// batchKey names a batch within a record.
type batchKey struct{ condition, block int }

// Resume makes o go on with a record that was cut off: the same seed, so that
// blocks and payloads are those it would have had, and only the batches that
// the record lacks. It is an error when o describes another experiment.
func (o *Options) Resume(r *record.Record) error {
	if r.Run.Kind != o.Kind {
		return usage("%s is a record of kind %s, not %s", r.Path, r.Run.Kind, o.Kind)
	}
	last := 0
	for _, s := range r.Samples {
		if s.Phase == record.PhaseMeasure {
			last = max(last, s.Block+1)
		}
	}
	if last > o.Blocks {
		return usage("%s has %d blocks, this command asks for %d: give --blocks %d or more", r.Path, last, o.Blocks, last)
	}
	o.Seed = r.Run.Seed
	p, err := o.plan()
	if err != nil {
		return err
	}
	if len(r.Conditions) != 0 && len(r.Conditions) != len(p.specs) {
		return usage("%s has %d conditions, this command %d: resume with the command that made it", r.Path, len(r.Conditions), len(p.specs))
	}
	for i, c := range r.Conditions {
		want := p.describe(i)
		if (Cell{c.Provider, c.Op, c.Shape, c.Bytes, c.Block, c.Tokens, c.Descs}) != want {
			return usage("%s: condition %d is %s %s %s of %d bytes, this command's is %s %s %s of %d bytes: resume with the command that made it",
				r.Path, i, c.Provider, c.Op, c.Shape, c.Bytes, want.Provider, want.Op, want.Shape, want.Bytes)
		}
	}
	o.resumed = r
	o.done = map[batchKey]bool{}
	for _, s := range r.Samples {
		if s.Phase == record.PhaseMeasure {
			o.done[batchKey{s.Condition, s.Block}] = true
		}
	}
	return nil
}

// Left is how many of the batches of all blocks are still to be run.
func (o *Options) Left() (left, total int, err error) {
	p, err := o.plan()
	if err != nil {
		return 0, 0, err
	}
	total = len(p.specs) * o.Blocks
	return total - len(o.done), total, nil
}

func (o *Options) skip(condition, block int) bool { return o.done[batchKey{condition, block}] }

// enough is the declared sequential stop: every condition's interval is narrow
// enough. It looks at widths alone.
func (o *Options) enough(r *transport.Run) func([]record.Sample) bool {
	if o.UntilCI == 0 {
		return nil
	}
	return func(samples []record.Sample) bool {
		by := map[int][]stats.Sample{}
		for _, s := range samples {
			by[s.Condition] = append(by[s.Condition], stats.Sample{Block: s.Block, Value: float64(s.TotalNs)})
		}
		for _, c := range r.Conditions() {
			if c.Ceiling {
				continue
			}
			units, err := stats.BlockMedians(by[c.ID])
			if err != nil {
				return false
			}
			w, err := stats.UntilWidth(stats.Values(units), o.UntilCI, stats.Options{Seed: o.Seed})
			if err != nil || !w.Reached {
				return false
			}
		}
		return true
	}
}

// Cell is what tells one condition from another before it is run.
type Cell struct {
	Provider, Op, Shape string
	Bytes               uint64
	Block               int // tokens a block
	Tokens              int64
	Descriptors         int
}

// Cells are the conditions that o will measure, in their order.
func (o *Options) Cells() ([]Cell, error) {
	p, err := o.plan()
	if err != nil {
		return nil, err
	}
	out := make([]Cell, len(p.specs))
	for i := range out {
		out[i] = p.describe(i)
	}
	return out, nil
}

// errOther is matched by the error of a run that would go on with the record of
// another experiment; nothing was written to that.
var errOther = errors.New("another experiment")

// going holds the lines of a run that goes on with the record r until they show
// that it is the same experiment: its samples will be pooled with the record's.
type going struct {
	r    *record.Record
	held []record.Line
	seen int // conditions
}

// take is the lines that may be written now, l the last of them.
func (g *going) take(l record.Line) ([]record.Line, error) {
	var what, diff string
	hold := true
	switch l := l.(type) {
	case record.Run:
		what, diff = "the run", difference("", experiment(g.r.Run), experiment(l))
	case record.Condition:
		old, there := g.r.Condition(l.ID)
		g.seen++
		if !there {
			break
		}
		hold = false // the record has it
		what = fmt.Sprintf("condition %d (%s)", l.ID, l.Name)
		// What follows from a transport's settings, such as operations, comes after them.
		diff = cmp.Or(difference("transport", values(old)["transport"], values(l)["transport"]), difference("", values(old), values(l)))
	}
	if diff != "" {
		return nil, fmt.Errorf("%w: %w: %s of %s: %s: its samples would be pooled; resume with the command that made the record, or give another --record",
			ErrUsage, errOther, what, g.r.Path, diff)
	}
	if hold {
		g.held = append(g.held, l)
	}
	if !g.known() {
		return nil, nil
	}
	lines := g.held
	g.held = nil
	return lines, nil
}

// known reports whether every condition of the record was compared.
func (g *going) known() bool { return g.seen >= len(g.r.Conditions) }

// experiment is what a run line says of the experiment, and not of one start of it.
func experiment(r record.Run) map[string]any {
	m := map[string]any{"kind": r.Kind, "seed": r.Seed, "xferbench": r.ToolVersion + " " + r.ToolCommit, "isolation": r.Isolation,
		"launches": r.Launches, "host": hostOf(&r.Host), "peer host": hostOf(r.Peer), "environment": values(r.Env)}
	if d := r.Design; d != nil {
		m["design"] = map[string]any{"order": d.Order, "iterations": d.Iterations, "reuse": d.Reuse, "unchecked": d.Unchecked}
	}
	return m
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

// difference names the first value in which two of [values] differ, "" for none.
func difference(path string, there, here any) string {
	a, isA := there.(map[string]any)
	b, isB := here.(map[string]any)
	if (isA || there == nil) && (isB || here == nil) { // a record leaves empty ones out
		keys := slices.Sorted(maps.Keys(a))
		for k := range b {
			if _, both := a[k]; !both {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			if d := difference(strings.TrimPrefix(path+"."+k, "."), a[k], b[k]); d != "" {
				return d
			}
		}
		return ""
	}
	if reflect.DeepEqual(there, here) {
		return ""
	}
	return fmt.Sprintf("%s is %s there and %s here", path, word(there), word(here))
}

func word(v any) string {
	switch v {
	case nil:
		return "not set"
	case "":
		return "empty"
	}
	return fmt.Sprint(v)
}
