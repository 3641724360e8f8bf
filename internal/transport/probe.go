package transport

import (
	"context"
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/cgo/loop"
)

// Probe is a transport that is opened beside a run's own, over the same buffers,
// to try a setting before the run is made. Its transfers carry whatever lies in
// the buffers, and nothing checks them.
type Probe struct {
	r     *Run
	id    int // of the endpoint, on both sides
	o     *opened
	plans map[Spec]probePlan
}

type probePlan struct{ id, ops int }

// probeBase is where the numbers of probes' endpoints and plans begin: beyond
// those of any run.
const probeBase = 1 << 24

// Probe opens cfg on both sides. It is for [Run.Prepare]; the caller closes it.
func (r *Run) Probe(ctx context.Context, cfg Config) (*Probe, error) {
	p := &Probe{r: r, id: probeBase + r.probes, plans: map[Spec]probePlan{}}
	r.probes++
	var err error
	if p.o, err = r.open(ctx, p.id, cfg, cfg.Provider); err != nil {
		if r.Local.endpoints[p.id] != nil {
			_, cerr := r.Local.Shut(ctx, EndpointRequest{p.id})
			err = errors.Join(err, cerr)
		}
		return nil, err // what the peer opened closes with its side
	}
	return p, nil
}

// Info is what the transport is made of.
func (p *Probe) Info() Info { return p.o.local.Info }

// Ops is how many operations a transfer of s takes.
func (p *Probe) Ops(ctx context.Context, s Spec) (int, error) {
	plan, err := p.plan(ctx, s)
	return plan.ops, err
}

func (p *Probe) plan(ctx context.Context, s Spec) (probePlan, error) {
	if plan, ok := p.plans[s]; ok {
		return plan, nil
	}
	id := probeBase + p.r.probePlans
	p.r.probePlans++
	rep, err := p.r.layOut(ctx, p.o, p.id, id, s)
	if err != nil {
		return probePlan{}, err
	}
	plan := probePlan{id, rep.Ops}
	p.plans[s] = plan
	return plan, nil
}

// Transfer runs s iters times, back to back.
func (p *Probe) Transfer(ctx context.Context, s Spec, iters int) ([]loop.Sample, error) {
	plan, err := p.plan(ctx, s)
	if err != nil {
		return nil, err
	}
	if !p.o.alone {
		if _, err := p.r.Peer.Arm(ctx, ArmRequest{plan.id, iters}); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	ss, err := p.r.Local.transfer(ctx, plan.id, iters)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTransfer, err)
	}
	if !p.o.alone {
		if _, err := p.r.Peer.Settle(ctx, SettleRequest{plan.id}); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	return ss, nil
}

// Close closes both sides' endpoints.
func (p *Probe) Close(ctx context.Context) error {
	_, err := p.r.Local.Shut(ctx, EndpointRequest{p.id})
	if p.o.alone {
		return err
	}
	if _, perr := p.r.Peer.Shut(ctx, EndpointRequest{p.id}); perr != nil {
		err = errors.Join(err, fmt.Errorf("peer: %w", perr))
	}
	return err
}
