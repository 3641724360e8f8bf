package transport

import (
	"cmp"
	"context"
	"encoding/binary"
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

// memcpyEndpoint is the memory ceiling: a copy between two regions of this process.
// The initiator's copies; the target's only says where its region is.
type memcpyEndpoint struct {
	looped
	cfg   Config
	buf   *mem.Buffer
	lanes []*copier.Lane
}

// OpenMemcpy opens provider "memcpy": a transfer is one copy per piece, in this
// process's memory or on its GPU. Streams is the number of copying threads. Its two
// endpoints are of one process: see [Side.opposite].
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

func (e *memcpyEndpoint) Register(buf *mem.Buffer) error {
	if e.buf != nil {
		return errors.New("the endpoint has its region already")
	}
	e.buf = buf
	return nil
}

// Address is where the region begins and its length, in bytes.
func (e *memcpyEndpoint) Address() ([]byte, error) {
	b := binary.BigEndian.AppendUint64(nil, e.buf.Address())
	return binary.BigEndian.AppendUint64(b, uint64(e.buf.Len())), nil
}

func (e *memcpyEndpoint) Connect(_ context.Context, to []byte) error {
	switch {
	case e.cfg.Role == Target:
		return nil
	case e.buf == nil || e.group != nil:
		return errors.New("a copy needs one region, once")
	case len(to) != 16 || binary.BigEndian.Uint64(to[8:]) != uint64(e.buf.Len()):
		return errors.New("the other region is not of the same length")
	}
	var lanes []loop.Lane
	for range e.cfg.Streams {
		l, err := e.lane(binary.BigEndian.Uint64(to))
		if err != nil {
			return err
		}
		e.lanes, lanes = append(e.lanes, l), append(lanes, l.Lane())
	}
	return e.start(e.cfg, lanes, copyDepth, nil)
}

func (e *memcpyEndpoint) lane(remote uint64) (*copier.Lane, error) {
	local, n := e.buf.Address(), uint64(e.buf.Len())
	if e.buf.Kind().OnDevice() {
		return copier.NewCUDA(e.buf.Context(), cuda.Pointer(local), cuda.Pointer(remote), n)
	}
	return copier.New(local, remote, n)
}

func (e *memcpyEndpoint) Arm(context.Context, loop.Op, []*loop.Plan, int) error { return nil }

func (e *memcpyEndpoint) Settle(context.Context) (int, error) { return 0, nil }

// Close may be called twice.
func (e *memcpyEndpoint) Close() error {
	if e.group != nil {
		err := e.group.Close()
		e.group = nil
		if err != nil { // a thread still copies
			e.lanes = nil
			return fmt.Errorf("memcpy: %w: %w", ErrNotClosed, err)
		}
	}
	var errs []error
	for _, l := range e.lanes {
		errs = append(errs, l.Close())
	}
	e.lanes = nil
	return errors.Join(errs...)
}
