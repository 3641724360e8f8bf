package transport

import (
	"context"

	"github.com/xferbench/xferbench/cgo/loop"
)

// Probe is a link that is brought up beside a run's own, over the same buffers,
// to try a setting before the run is made. Its transfers carry whatever lies in
// the buffers, and nothing checks them.
type Probe struct {
	*Link
	r     *Run
	plans map[Spec]*Plan
}

// Probe opens cfg on both sides. It is for [Run.Prepare]; the caller closes it.
func (r *Run) Probe(ctx context.Context, cfg Config) (*Probe, error) {
	l, err := r.pair.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Probe{Link: l, r: r, plans: map[Spec]*Plan{}}, nil
}

// Ops is how many operations a transfer of s takes.
func (p *Probe) Ops(ctx context.Context, s Spec) (int, error) {
	plan, err := p.plan(ctx, s)
	if err != nil {
		return 0, err
	}
	return plan.Ops, nil
}

func (p *Probe) plan(ctx context.Context, s Spec) (*Plan, error) {
	if p.plans[s] == nil {
		plan, err := p.Plan(ctx, p.r.move("", s))
		if err != nil {
			return nil, err
		}
		p.plans[s] = plan
	}
	return p.plans[s], nil
}

// Transfer runs s iters times, back to back.
func (p *Probe) Transfer(ctx context.Context, s Spec, iters int) ([]loop.Sample, error) {
	plan, err := p.plan(ctx, s)
	if err != nil {
		return nil, err
	}
	out, err := plan.Transfer(ctx, Batch{Iters: iters, Unchecked: true})
	return out.Samples, err
}
