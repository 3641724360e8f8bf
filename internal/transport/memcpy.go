package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/cgo/copier"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/cuda"
)

const (
	// copyPiece bounds one copy: its thread cannot be stopped meanwhile.
	copyPiece = 1 << 30
	// copyDepth is how many pieces a lane is handed at once; host memory is copied
	// one piece after the other all the same.
	copyDepth = 4096
)

// memcpyEndpoint is the memory ceiling: one copy from a buffer of its own.
type memcpyEndpoint struct {
	cfg      Config
	dst, src *mem.Buffer
	lanes    []*copier.Lane
	group    *loop.Group
}

// OpenMemcpy opens provider "memcpy": a transfer is one copy in this process's
// memory, or on its GPU, piece by piece, from a second buffer of the same kind
// that Connect allocates. Streams is the number of copying threads. There is no
// peer: Address is empty.
func OpenMemcpy(_ context.Context, cfg Config) (Endpoint, error) {
	if cfg.Provider != "memcpy" {
		return nil, fmt.Errorf("provider %q: memcpy takes no options", cfg.Provider)
	}
	cfg.Streams = max(cfg.Streams, 1)
	return &memcpyEndpoint{cfg: cfg}, nil
}

func (e *memcpyEndpoint) Info() Info {
	info := Info{
		Provider: "memcpy", API: "memcpy",
		Landing: map[string]string{"read": "copy", "write": "copy", "send": "copy"},
		Streams: e.cfg.Streams, Rails: 1, Depth: 1, Chunk: e.cfg.Chunk, Poll: e.cfg.Poll.String(),
	}
	if cmp.Or(e.cfg.Chunk, copyPiece+1) > copyPiece {
		info.MaxPiece = map[string]uint64{"read": copyPiece, "write": copyPiece, "send": copyPiece}
	}
	return info
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
	var lanes []loop.Lane
	for range e.cfg.Streams {
		l, err := e.lane()
		if err != nil {
			return err
		}
		e.lanes, lanes = append(e.lanes, l), append(lanes, l.Lane())
	}
	g, err := loop.NewGroup(lanes, loop.Config{Poll: e.cfg.Poll, Timeout: e.cfg.Timeout})
	if err != nil {
		return err
	}
	e.group = g
	return g.Start()
}

func (e *memcpyEndpoint) lane() (*copier.Lane, error) {
	dst, src, n := e.dst.Address(), e.src.Address(), uint64(e.dst.Len())
	if e.dst.Kind().OnDevice() {
		return copier.NewCUDA(e.dst.Context(), cuda.Pointer(dst), cuda.Pointer(src), n)
	}
	return copier.New(dst, src, n)
}

func (e *memcpyEndpoint) Arm(context.Context, loop.Op, []*loop.Plan, int) error { return nil }

func (e *memcpyEndpoint) Settle(context.Context) (int, error) { return 0, nil }

func (e *memcpyEndpoint) Fault() error {
	if e.group == nil {
		return nil
	}
	return e.group.Fault()
}

func (e *memcpyEndpoint) Transfer(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) ([]loop.Sample, error) {
	if e.group == nil {
		return nil, errNotConnected
	}
	return e.group.Transfer(ctx, op, plans, iters, copyDepth)
}

// Close may be called twice.
func (e *memcpyEndpoint) Close() error {
	if e.group != nil {
		err := e.group.Close()
		e.group = nil
		if err != nil { // a thread still copies
			e.lanes, e.src = nil, nil
			return fmt.Errorf("memcpy: %w: %w", ErrNotClosed, err)
		}
	}
	var errs []error
	for _, l := range e.lanes {
		errs = append(errs, l.Close())
	}
	e.lanes = nil
	if e.src != nil {
		errs = append(errs, e.src.Free())
		e.src = nil
	}
	return errors.Join(errs...)
}
