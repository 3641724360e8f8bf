package transport

import (
	"context"
	"errors"

	"github.com/xferbench/xferbench/cgo/loop"
)

var errNotConnected = errors.New("the endpoint is not connected")

// looped is the part of an endpoint that the measuring loop does.
type looped struct {
	group *loop.Group // nil before the endpoint is connected and once it is closed
	depth int         // operations in flight per lane
	// seen reports whether the target takes part in an operation beyond progress.
	seen  func(loop.Op) bool
	armed loop.Op
}

// start brings the loop up on lanes that are connected.
func (l *looped) start(cfg Config, lanes []loop.Lane, depth int, seen func(loop.Op) bool) error {
	g, err := loop.NewGroup(lanes, loop.Config{Poll: cfg.Poll, Timeout: cfg.Timeout})
	if err != nil {
		return err
	}
	l.group, l.depth, l.seen = g, depth, seen
	return g.Start()
}

// Arm readies the target: for what it does not see, only polling without rest,
// which providers with manual progress live on.
func (l *looped) Arm(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) error {
	if l.group == nil {
		return errNotConnected
	}
	l.armed = op
	l.group.Hot(true)
	if !l.seen(op) {
		return l.group.Fault()
	}
	return l.group.Arm(ctx, op, plans, iters)
}

func (l *looped) Settle(ctx context.Context) (int, error) {
	if l.group == nil {
		return 0, errNotConnected
	}
	defer l.group.Hot(false)
	if !l.seen(l.armed) {
		return 0, l.group.Fault()
	}
	return l.group.Settle(ctx)
}

func (l *looped) Transfer(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) ([]loop.Sample, error) {
	if l.group == nil {
		return nil, errNotConnected
	}
	return l.group.Transfer(ctx, op, plans, iters, l.depth)
}

func (l *looped) Fault() error {
	if l.group == nil {
		return nil
	}
	return l.group.Fault()
}
