// Package copier is the simplest transport of the measuring loop: its lanes copy
// between two regions of one process, with the CPU's memcpy or the GPU's copies. It
// is the memory ceiling that other transports are compared to, timed as they are.
package copier

/*
#include <stdlib.h>
#include "copier.h"
*/
import "C"

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cuda"
)

// Lane copies between a local and a remote region of the same length: [loop.Read]
// from the remote one at a piece's Remote offset to the local one at its Local offset,
// [loop.Write] and [loop.Send] the other way. It cannot be armed. Its regions stay its maker's, and outlive it.
type Lane struct {
	c      *C.struct_xb_copier
	stream *cuda.Stream
	n      uint64
}

// New makes a lane between the n bytes at the addresses local and remote, of host memory
// that is not the Go heap's. Close frees it, once its group is closed.
func New(local, remote, n uint64) (*Lane, error) {
	l := &Lane{c: (*C.struct_xb_copier)(C.calloc(1, C.sizeof_struct_xb_copier)), n: n}
	if l.c == nil {
		return nil, fmt.Errorf("a copying lane: %w", syscall.ENOMEM)
	}
	l.c.local, l.c.remote = C.uint64_t(local), C.uint64_t(remote)
	return l, nil
}

// NewCUDA is [New] for memory of ctx's device; the copies are queued on a stream of
// the lane's own. Wraps: cuMemcpyDtoDAsync_v2, cuStreamQuery.
func NewCUDA(ctx *cuda.Context, local, remote cuda.Pointer, n uint64) (*Lane, error) {
	l, err := New(uint64(local), uint64(remote), n)
	if err != nil {
		return nil, err
	}
	if l.stream, err = ctx.NewStream(); err != nil {
		C.free(unsafe.Pointer(l.c))
		return nil, err
	}
	l.c.cuda = (*C.struct_xb_cuda)(ctx.Driver().Table())
	l.c.ctx, l.c.stream = ctx.Handle(), l.stream.Handle()
	return l, nil
}

// Lane is what a group takes.
func (l *Lane) Lane() loop.Lane {
	return loop.Lane{Impl: unsafe.Pointer(l.c), Ops: unsafe.Pointer(&C.xb_copier_ops), Own: l.n, Peer: l.n}
}

// Close frees the lane. It may be called twice.
func (l *Lane) Close() error {
	if l.c == nil {
		return nil
	}
	C.free(unsafe.Pointer(l.c))
	l.c = nil
	if l.stream == nil {
		return nil
	}
	return l.stream.Close()
}
