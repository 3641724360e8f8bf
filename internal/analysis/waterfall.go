package analysis

import (
	"fmt"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// Step is what one level of the path adds to the time until the first token.
type Step struct {
	Kind string // one of the constants
	Name string // of the rung or arm that it ends at
	// Ns is the difference of two medians, negative where a level is faster than the
	// one before, and SumNs the sum up to here.
	Ns, SumNs float64
	// CI is its interval. Those of all steps of a row hold together at [Level].
	CI *stats.Interval
}

// Kinds of steps, in the order of the path.
const (
	StepMemory   = "memory"   // copying the bytes
	StepSocket   = "socket"   // kernel TCP takes longer than that by
	StepRaw      = "raw"      // the engines' transport, bare
	StepNIXL     = "nixl"     // the transfer as NIXL counts it
	StepWait     = "wait"     // the decode queue beside the transfer
	StepResidual = "residual" // what the increment over the unified arm has besides
	StepBase     = "base"     // the first token on the unified arm
	StepEngines  = "engines"  // without a unified arm: all that is not the decode queue
	StepTotal    = "total"    // the first token
)

// Cause is what may explain a step, with the sign of it in the record.
type Cause struct {
	Step, Name, Evidence string
}

// waterfall fills in Steps and Causes. Each step is a difference of medians, so
// that they add up to the median TTFT exactly.
func (row *LadderRow) waterfall(tt *Requests) error {
	type level struct {
		kind, name string
		at         signed
	}
	var levels []level
	for _, l := range []struct {
		kind string
		rung *Rung
	}{{StepMemory, row.rung(RungCeiling, "memcpy")}, {StepSocket, row.rung(RungCeiling, "socket")}, {StepRaw, row.Used}, {StepNIXL, row.Connector()}} {
		if l.rung != nil {
			levels = append(levels, level{l.kind, l.rung.Name, l.rung.plus()})
		}
	}
	if len(levels) == 0 {
		return nil
	}
	if row.queue != nil {
		levels = append(levels, level{StepWait, partQueue, plus(row.queue)})
	}
	top := levels[len(levels)-1].at
	steps, ends := []Step{{Kind: levels[0].kind, Name: levels[0].name}}, [][]signed{{levels[0].at}}
	for i, l := range levels[1:] {
		steps, ends = append(steps, Step{Kind: l.kind, Name: l.name}), append(ends, []signed{l.at, levels[i].at.negative()})
	}
	rest := []signed{plus(row.Units), top.negative()}
	if row.base == nil {
		steps, ends = append(steps, Step{Kind: StepEngines, Name: row.Arm}), append(ends, rest)
	} else {
		steps = append(steps, Step{Kind: StepResidual}, Step{Kind: StepBase, Name: row.Base})
		ends = append(ends, append(rest, minus(row.base.Units)), []signed{plus(row.base.Units)})
	}
	// Bonferroni's correction: the intervals are read together.
	confidence, sum := 1-(1-Level)/float64(len(steps)), 0.0
	for i := range steps {
		e, err := contrast(confidence, ends[i]...)
		if err != nil {
			return err
		}
		sum += e.Value
		steps[i].Ns, steps[i].SumNs, steps[i].CI = e.Value, sum, e.Interval
	}
	row.Steps = append(steps, Step{Kind: StepTotal, Name: row.Arm, Ns: row.TTFT.Median, SumNs: row.TTFT.Median, CI: row.TTFT.CI})
	return row.causes(tt)
}

// Step is the step of a kind, nil when there is none.
func (row *LadderRow) Step(kind string) *Step {
	for i := range row.Steps {
		if row.Steps[i].Kind == kind {
			return &row.Steps[i]
		}
	}
	return nil
}

// Signs of causes.
const (
	// slowNIXL is by which factor NIXL's transfer must be slower than the raw row of
	// its transport, with the whole interval, to look like another backend.
	slowNIXL = 1.5
	// pollSteps is within how many steps of the engine a wait looks like one for its
	// next step.
	pollSteps = 2
)

// causes finds in the record what may explain a step. A cause without a sign is
// not named.
func (row *LadderRow) causes(tt *Requests) error {
	add := func(step, name, format string, args ...any) {
		row.Causes = append(row.Causes, Cause{step, name, fmt.Sprintf(format, args...)})
	}
	if err := row.slowBackend(add); err != nil {
		return err
	}
	if s := row.Step(StepWait); s != nil && s.CI != nil && s.CI.Lo > 0 && row.ITL > 0 && s.Ns <= pollSteps*row.ITL {
		add(StepWait, "polling", "an engine looks for the end of a transfer once a step, which takes %s here", units.FormatNanos(row.ITL))
	}
	step := StepResidual
	if row.base == nil {
		step = StepEngines
	}
	if err := row.slowParts(step, add); err != nil {
		return err
	}
	if s := row.Condition.Serving; s != nil && s.BatchTokens > 0 && row.Tokens > s.BatchTokens {
		add(step, "chunked prefill", "prompts of %s tokens, of which an engine computes %s at once", units.FormatCount(int64(row.Tokens)), units.FormatCount(int64(s.BatchTokens)))
	}
	row.mishaps(tt, step, add)
	row.lapped(tt, add)
	return nil
}

type addCause func(step, name, format string, args ...any)

// slowBackend is the sign of another backend than the raw row's.
func (row *LadderRow) slowBackend(add addCause) error {
	c := row.Connector()
	if c == nil || row.Used == nil {
		return nil
	}
	r, err := share(c.plus(), row.Used.plus())
	if err != nil {
		return err
	}
	if r.Interval != nil && r.Interval.Lo > slowNIXL {
		add(StepNIXL, "wrong backend", "NIXL's transfer takes %s [%s, %s] times that of %s", units.Digits(r.Value, 3), units.Digits(r.Interval.Lo, 3), units.Digits(r.Interval.Hi, 3), row.Used.Name)
	}
	return nil
}

// slowParts names the parts that take longer than on the unified arm.
func (row *LadderRow) slowParts(step string, add addCause) error {
	if row.base == nil || !row.FromEngines || row.base.Split == nil || row.base.Split.Engine == 0 {
		return nil
	}
	for _, p := range ladderParts {
		if p.name == partQueue {
			continue
		}
		ours, err := row.RequestRow.part(p)
		if err != nil {
			return err
		}
		base, err := row.base.part(p)
		if err != nil {
			return err
		}
		if len(ours) == 0 || len(base) == 0 {
			continue
		}
		d, err := contrast(Level, plus(ours), minus(base))
		if err != nil {
			return err
		}
		if d.Interval != nil && d.Interval.Lo > 0 {
			add(step, p.name, "%s [%s, %s] more than on %s", units.FormatNanos(d.Value), units.FormatNanos(d.Interval.Lo), units.FormatNanos(d.Interval.Hi), row.Base)
		}
	}
	return nil
}

// mishaps names what requests of the row met.
func (row *LadderRow) mishaps(tt *Requests, step string, add addCause) {
	seen := map[record.Reason]int{}
	n := 0
	for _, q := range tt.Record.Requests {
		if q.Condition != row.Condition.ID || q.Phase != record.PhaseMeasure {
			continue
		}
		if n++; !q.Valid {
			seen[q.Reason]++
		}
	}
	for _, m := range []struct {
		name   string
		reason record.Reason
	}{{"recompute", record.ReasonLocalRecompute}, {"recompute", record.ReasonFailedTransfer}, {"prefix hit", record.ReasonPrefixHit}} {
		if k := seen[m.reason]; k > 0 {
			add(step, m.name, "%d of %d requests were %s; they are in no figure, but the engines do it", k, n, m.reason)
		}
	}
	if row.Cold > 0 {
		add(step, "cold connection", "%d of %d requests had to open a connection", row.Cold, row.N())
	}
}

// lapped tells of a block pool that wrapped around: more and shorter descriptors.
func (row *LadderRow) lapped(tt *Requests, add addCause) {
	for _, s := range tt.Series {
		if s.Arm != row.Arm || s.Tokens != row.Tokens {
			continue
		}
		for _, c := range s.Changes {
			if c.Component == ComponentDescriptors && c.After > c.Before {
				add(StepNIXL, "pool lap", "from request %d on NIXL posts %s descriptors, before %s", c.Sequence+1, units.FormatCount(int64(c.After)), units.FormatCount(int64(c.Before)))
				return
			}
		}
	}
}
