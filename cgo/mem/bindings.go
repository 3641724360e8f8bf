// Package mem allocates the buffers that transfers move, fills them with a
// payload that betrays any wrong byte, and checks it.
//
// Buffers come from C (mmap, huge pages, the CUDA driver), never from the Go
// heap: the garbage collector does not know them, and a registration cache may
// hook their release.
package mem

/*
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "mem.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/loop"
)

// Kind is where a buffer's memory is.
type Kind string

const (
	Host     Kind = "host"      // anonymous pages, touched before use
	HostHuge Kind = "host-huge" // 2 MiB pages from the hugetlb pool
	CUDA     Kind = "cuda"      // device memory: cuMemAlloc
	CUDAHost Kind = "cuda-host" // host memory pinned by the driver: cuMemHostAlloc
)

// Kinds lists all kinds.
func Kinds() []Kind { return []Kind{Host, HostHuge, CUDA, CUDAHost} }

// OnDevice reports whether the CPU cannot read the memory.
func (k Kind) OnDevice() bool { return k == CUDA }

// Buffer is a piece of memory owned by its maker, who calls Free once nothing
// has it registered. It is for one goroutine at a time.
type Buffer struct {
	kind   Kind
	device int
	len    int
	ptr    uint64
	ctx    unsafe.Pointer
}

var allocated atomic.Int64

// Allocated is how many bytes all buffers of this process hold.
func Allocated() int64 { return allocated.Load() }

// New allocates length bytes of kind; device is the CUDA ordinal for the CUDA
// kinds. The error says what the system said and what to do about it.
// Wraps: mmap(2), madvise(2), cuMemAlloc, cuMemHostAlloc.
func New(kind Kind, device, length int) (*Buffer, error) {
	return NewContext(context.Background(), kind, device, length)
}

// NewContext is [New] that ends with ctx, within [Part] bytes: the kernel takes
// seconds to find gigabytes of host memory. CUDA's calls cannot be ended.
func NewContext(ctx context.Context, kind Kind, device, length int) (*Buffer, error) {
	if length <= 0 {
		return nil, fmt.Errorf("a buffer of %d bytes", length)
	}
	b := &Buffer{kind: kind, device: device, len: length}
	switch kind {
	case Host, HostHuge:
		if err := b.allocHost(ctx); err != nil {
			return nil, err
		}
	case CUDA, CUDAHost:
		if err := b.allocCUDA(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("memory kind %q: want one of %v", kind, Kinds())
	}
	allocated.Add(int64(length))
	return b, nil
}

// Part is how many bytes of a buffer a method works on at most before it looks
// at its context. Host memory is allocated in smaller ones.
const Part = 64 << 20

// inParts calls f for each part of n bytes, until ctx ends.
func inParts(ctx context.Context, n, part int, f func(off, n int) error) error {
	for off := 0; off < n; off += part {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := f(off, min(part, n-off)); err != nil {
			return err
		}
	}
	return nil
}

func (b *Buffer) allocHost(ctx context.Context) error {
	huge, hint := C.int(0), "choose a smaller --size"
	if b.kind == HostHuge {
		huge, hint = 1, fmt.Sprintf("reserve pages: echo %d > /proc/sys/vm/nr_hugepages", (b.len+(2<<20)-1)/(2<<20))
	}
	fail := func(err error) error { return fmt.Errorf("%d bytes of %s memory: %w; %s", b.len, b.kind, err, hint) }
	p, err := C.xb_mem_map(C.size_t(b.len), huge)
	if p == nil {
		return fail(err)
	}
	b.ptr = uint64(uintptr(p))
	err = inParts(ctx, b.len, C.XB_MEM_PART, func(off, n int) error {
		if rc, err := C.xb_mem_populate(p, C.size_t(off), C.size_t(n), huge); rc != 0 {
			return fail(err)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, b.unmap())
	}
	return nil
}

func (b *Buffer) unmap() error {
	if rc, err := C.xb_mem_unmap(b.host(), C.size_t(b.len)); rc != 0 {
		return fmt.Errorf("munmap: %w", err)
	}
	return nil
}

// Free returns the memory; it may be called twice.
func (b *Buffer) Free() error {
	if b.ptr == 0 {
		return nil
	}
	var err error
	if b.kind == CUDA || b.kind == CUDAHost {
		err = b.freeCUDA()
	} else {
		err = b.unmap()
	}
	b.ptr = 0
	allocated.Add(-int64(b.len))
	return err
}

// Kind is where the memory is.
func (b *Buffer) Kind() Kind { return b.kind }

// Device is the CUDA ordinal of the CUDA kinds.
func (b *Buffer) Device() int { return b.device }

// Len is the size in bytes.
func (b *Buffer) Len() int { return b.len }

// Address is the buffer's virtual (or device) address, for registration.
func (b *Buffer) Address() uint64 { return b.ptr }

// Bytes is a view of memory that the CPU can read, nil for device memory. It
// is valid until Free.
func (b *Buffer) Bytes() []byte {
	if b.ptr == 0 || b.kind.OnDevice() {
		return nil
	}
	return unsafe.Slice((*byte)(b.host()), b.len)
}

// host is the buffer's first byte as a pointer. The memory is not Go's, so the
// conversion cannot outlive anything that the collector moves.
func (b *Buffer) host() unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&b.ptr))
}

// Key is the payload's key for one seed and iteration: the payload at a byte
// offset is a function of offset and key alone, and no two keys share it.
func Key(seed, iteration uint64) uint64 {
	x := seed*0x9E3779B97F4A7C15 + iteration + 1
	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
	x = (x ^ (x >> 27)) * 0x94D049BB133111EB
	return x ^ (x >> 31)
}

// stage is the size of the host buffer through which device memory is filled
// and checked.
const stage = 4 << 20

// Fill writes the payload of key over the first n bytes. It ends with ctx.
func (b *Buffer) Fill(ctx context.Context, n int, key uint64) error {
	if n < 0 || n > b.len {
		return fmt.Errorf("fill of %d bytes in a buffer of %d", n, b.len)
	}
	if !b.kind.OnDevice() {
		return inParts(ctx, n, Part, func(off, n int) error {
			C.xb_pattern_fill((*C.uchar)(unsafe.Add(b.host(), off)), C.size_t(n), C.uint64_t(off), C.uint64_t(key))
			return nil
		})
	}
	host := make([]byte, min(n, stage))
	return inParts(ctx, n, stage, func(off, n int) error {
		part := host[:n]
		C.xb_pattern_fill((*C.uchar)(unsafe.Pointer(&part[0])), C.size_t(n), C.uint64_t(off), C.uint64_t(key))
		return b.copyIn(off, part)
	})
}

// Poison overwrites the first n bytes with a byte that no check takes for
// payload but by a chance of 2^-64 a word. It ends with ctx.
func (b *Buffer) Poison(ctx context.Context, n int) error {
	if n < 0 || n > b.len {
		return fmt.Errorf("poison of %d bytes in a buffer of %d", n, b.len)
	}
	if b.kind.OnDevice() {
		return b.set(0xDB, n)
	}
	return inParts(ctx, n, Part, func(off, n int) error {
		C.memset(unsafe.Add(b.host(), off), 0xDB, C.size_t(n))
		return nil
	})
}

// Mismatch is the first wrong byte that a check found.
type Mismatch struct {
	Piece       int    // index in the plan
	Offset      uint64 // byte offset in the destination buffer
	SourceBytes uint64 // byte offset in the source whose payload was expected
}

func (m *Mismatch) Error() string {
	return fmt.Sprintf("data check failed: piece %d, destination byte %d is not source byte %d", m.Piece, m.Offset, m.SourceBytes)
}

// Check verifies that every piece holds the payload of key of its source:
// toLocal says that the pieces' Local side, in this buffer, is the destination
// (READ); otherwise it is the Remote side. A wrong byte is a [*Mismatch]. It ends
// with ctx.
func (b *Buffer) Check(ctx context.Context, plan *loop.Plan, toLocal bool, key uint64) error {
	pieces := plan.Pieces()
	for i, p := range pieces {
		if dst, _ := sides(p, toLocal); dst > uint64(b.len) || p.Len > uint64(b.len)-dst {
			return fmt.Errorf("piece %d (offset %d, %d bytes) is outside the buffer of %d", i, dst, p.Len, b.len)
		}
	}
	if b.kind.OnDevice() {
		return b.checkDevice(ctx, pieces, toLocal, key)
	}
	for i := 0; i < len(pieces); {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if pieces[i].Len > Part {
			if err := b.checkPiece(ctx, i, pieces[i], toLocal, key); err != nil {
				return err
			}
			i++
			continue
		}
		n, bytes := 0, uint64(0)
		for i+n < len(pieces) && bytes+pieces[i+n].Len <= Part {
			bytes += pieces[i+n].Len
			n++
		}
		if err := b.checkPieces(i, pieces[i:i+n], toLocal, key); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// checkPieces checks pieces, the first of which is the plan's piece first, in
// one call.
func (b *Buffer) checkPieces(first int, pieces []loop.Piece, toLocal bool, key uint64) error {
	var at C.uint64_t
	to := 0
	if toLocal {
		to = 1
	}
	i := uint64(C.xb_pattern_check_pieces((*C.uchar)(b.host()), (*C.struct_xb_piece)(unsafe.Pointer(&pieces[0])),
		C.uint64_t(len(pieces)), C.int(to), C.uint64_t(key), &at))
	if i == uint64(len(pieces)) {
		return nil
	}
	dst, src := sides(pieces[i], toLocal)
	return &Mismatch{Piece: first + int(i), Offset: dst + uint64(at), SourceBytes: src + uint64(at)}
}

// checkPiece checks piece i in parts.
func (b *Buffer) checkPiece(ctx context.Context, i int, p loop.Piece, toLocal bool, key uint64) error {
	dst, src := sides(p, toLocal)
	return inParts(ctx, int(p.Len), Part, func(off, n int) error {
		at := uint64(C.xb_pattern_check((*C.uchar)(unsafe.Add(b.host(), dst+uint64(off))), C.size_t(n),
			C.uint64_t(src+uint64(off)), C.uint64_t(key)))
		if at == uint64(n) {
			return nil
		}
		at += uint64(off)
		return &Mismatch{Piece: i, Offset: dst + at, SourceBytes: src + at}
	})
}

func sides(p loop.Piece, toLocal bool) (dst, src uint64) {
	if toLocal {
		return p.Local, p.Remote
	}
	return p.Remote, p.Local
}

func (b *Buffer) checkDevice(ctx context.Context, pieces []loop.Piece, toLocal bool, key uint64) error {
	host := make([]byte, stage)
	for i, p := range pieces {
		dst, src := sides(p, toLocal)
		err := inParts(ctx, int(p.Len), stage, func(off, n int) error {
			part, o := host[:n], uint64(off)
			if err := b.copyOut(part, dst+o); err != nil {
				return err
			}
			at := uint64(C.xb_pattern_check((*C.uchar)(unsafe.Pointer(&part[0])), C.size_t(n),
				C.uint64_t(src+o), C.uint64_t(key)))
			if at == uint64(n) {
				return nil
			}
			return &Mismatch{Piece: i, Offset: dst + o + at, SourceBytes: src + o + at}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// CopyPieces copies every piece from src's Remote side to b's Local side with
// the host's memcpy, or the driver's copies where one is device memory. It is
// the memory ceiling that transfers are compared to.
func (b *Buffer) CopyPieces(src *Buffer, plan *loop.Plan) error {
	pieces := plan.Pieces()
	if len(pieces) == 0 {
		return nil
	}
	for i, p := range pieces {
		if p.Local > uint64(b.len) || p.Len > uint64(b.len)-p.Local || p.Remote > uint64(src.len) || p.Len > uint64(src.len)-p.Remote {
			return fmt.Errorf("piece %d is outside the buffers of %d and %d bytes", i, b.len, src.len)
		}
	}
	if b.kind == CUDA || src.kind == CUDA {
		return b.copyPiecesCUDA(src, pieces)
	}
	C.xb_mem_copy_pieces((*C.uchar)(b.host()), (*C.uchar)(src.host()), (*C.struct_xb_piece)(unsafe.Pointer(&pieces[0])),
		C.uint64_t(len(pieces)))
	return nil
}

// ErrNoCUDA is matched by the error of a host without a usable CUDA driver.
var ErrNoCUDA = errors.New("no CUDA memory on this host")
