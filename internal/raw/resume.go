package raw

import (
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/xfer"
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
func (o *Options) enough(r *xfer.Run) func([]record.Sample) bool {
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
