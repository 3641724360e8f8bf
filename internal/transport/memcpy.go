package transport

import (
	"context"
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
)

// memcpyEndpoint is the memory ceiling: one copy from a buffer of its own.
type memcpyEndpoint struct {
	cfg      Config
	dst, src *mem.Buffer
}

// OpenMemcpy opens provider "memcpy": a transfer is one copy in this process's
// memory, or on its GPU, piece by piece, from a second buffer of the same kind
// that Connect allocates ([mem.Buffer.CopyPieces]). Streams is the number of
// copying threads. There is no peer: Address is empty.
func OpenMemcpy(_ context.Context, cfg Config) (Endpoint, error) {
	if cfg.Provider != "memcpy" {
		return nil, fmt.Errorf("provider %q: memcpy takes no options", cfg.Provider)
	}
	cfg.Streams = max(cfg.Streams, 1)
	return &memcpyEndpoint{cfg: cfg}, nil
}

func (e *memcpyEndpoint) Info() Info {
	return Info{
		Provider: "memcpy", API: "memcpy",
		Landing: map[string]string{"read": "copy", "write": "copy", "send": "copy"},
		Streams: e.cfg.Streams, Rails: 1, Depth: 1, Chunk: e.cfg.Chunk, Poll: "none",
	}
}

func (e *memcpyEndpoint) Lanes() int { return e.cfg.Streams }

// Source is the buffer that transfers copy from.
func (e *memcpyEndpoint) Source() *mem.Buffer { return e.src }

func (e *memcpyEndpoint) Register(buf *mem.Buffer) error {
	if e.dst != nil {
		return errors.New("the endpoint has its region already")
	}
	e.dst = buf
	return nil
}

func (e *memcpyEndpoint) Address() ([]byte, error) { return nil, nil }

func (e *memcpyEndpoint) Connect(ctx context.Context, _ []byte) error {
	if e.dst == nil || e.src != nil {
		return errors.New("a copy needs one region, once")
	}
	var err error
	if e.src, err = mem.NewContext(ctx, e.dst.Kind(), e.dst.Device(), e.dst.Len()); err != nil {
		return fmt.Errorf("memcpy's source: %w", err)
	}
	return nil
}

func (e *memcpyEndpoint) Arm(context.Context, loop.Op, []*loop.Plan, int) error { return nil }

func (e *memcpyEndpoint) Settle(context.Context) (int, error) { return 0, nil }

func (e *memcpyEndpoint) Fault() error { return nil }

func (e *memcpyEndpoint) Transfer(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) ([]loop.Sample, error) {
	if e.src == nil {
		return nil, errNotConnected
	}
	if len(plans) != e.cfg.Streams {
		return nil, fmt.Errorf("%d plans for %d lanes", len(plans), e.cfg.Streams)
	}
	if op != loop.Read { // the data goes to the pieces' remote side
		swapped, err := swap(plans)
		if err != nil {
			return nil, err
		}
		defer freePlans(swapped)
		plans = swapped
	}
	return runLanes(ctx, len(plans), iters, func(lane int, s *loop.Sample) error {
		p := plans[lane]
		s.BeginNs = clock.Now()
		if err := e.dst.CopyPieces(e.src, p); err != nil {
			return err
		}
		s.DoneNs = clock.Now()
		s.PostedNs, s.LocalNs = s.DoneNs, s.DoneNs
		s.Bytes, s.Ops = p.Bytes(), uint64(p.Len())
		return nil
	}, func() {}) // a copy ends by itself
}

func swap(plans []*loop.Plan) ([]*loop.Plan, error) {
	var out []*loop.Plan
	for _, p := range plans {
		pieces := make([]loop.Piece, p.Len())
		for i, q := range p.Pieces() {
			pieces[i] = loop.Piece{Local: q.Remote, Remote: q.Local, Len: q.Len}
		}
		s, err := loop.NewPlan(pieces)
		if err != nil {
			freePlans(out)
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (e *memcpyEndpoint) Close() error {
	if e.src == nil {
		return nil
	}
	err := e.src.Free()
	e.src = nil
	return err
}
