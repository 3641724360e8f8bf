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
	"iter"
	"sync/atomic"
	"unsafe"

	"github.com/xferbench/xferbench/cuda"
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
	ctx    *cuda.Context // of the CUDA kinds
}

var allocated atomic.Int64

// Allocated is how many bytes all buffers of this process hold.
func Allocated() int64 { return allocated.Load() }

// New allocates length bytes of kind; device is the CUDA ordinal for the CUDA
// kinds. An error matches [syscall.ENOMEM] or [cuda.ErrorOutOfMemory] where there is
// not as much memory, and [cuda.ErrUnavailable] on a host without CUDA.
// Wraps: mmap(2), madvise(2), cuMemAlloc_v2, cuMemHostAlloc.
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
	huge, hint := C.int(0), ""
	if b.kind == HostHuge {
		huge, hint = 1, fmt.Sprintf("; reserve pages: echo %d > /proc/sys/vm/nr_hugepages", (b.len+(2<<20)-1)/(2<<20))
	}
	fail := func(err error) error { return fmt.Errorf("%d bytes of %s memory: %w%s", b.len, b.kind, err, hint) }
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
// Wraps: munmap(2), cuMemFree_v2, cuMemFreeHost.
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

// Context is the CUDA context of the CUDA kinds, the buffer's own until Free; nil of
// others.
func (b *Buffer) Context() *cuda.Context { return b.ctx }

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
		return b.ctx.CopyToDevice(cuda.Pointer(b.ptr+uint64(off)), part)
	})
}

// Poison overwrites the first n bytes with a byte that no check takes for
// payload but by a chance of 2^-64 a word. It ends with ctx.
func (b *Buffer) Poison(ctx context.Context, n int) error {
	if n < 0 || n > b.len {
		return fmt.Errorf("poison of %d bytes in a buffer of %d", n, b.len)
	}
	if b.kind.OnDevice() {
		return b.ctx.Set(cuda.Pointer(b.ptr), 0xDB, uint64(n))
	}
	return inParts(ctx, n, Part, func(off, n int) error {
		C.memset(unsafe.Add(b.host(), off), 0xDB, C.size_t(n))
		return nil
	})
}

// Span is what a transfer writes: the Len bytes at offset At of a buffer hold what
// the source has at offset From.
type Span struct{ At, From, Len uint64 }

// Mismatch is the first wrong byte that a check found.
type Mismatch struct {
	Piece       int    // number of the span
	Offset      uint64 // byte offset in the destination buffer
	SourceBytes uint64 // byte offset in the source whose payload was expected
}

func (m *Mismatch) Error() string {
	return fmt.Sprintf("data check failed: piece %d, destination byte %d is not source byte %d", m.Piece, m.Offset, m.SourceBytes)
}

// spansPerCall is how many spans are checked in one call into C.
const spansPerCall = 1024

// Check verifies that every span holds the payload of key of its source. A wrong
// byte is a [*Mismatch]. It ends with ctx.
func (b *Buffer) Check(ctx context.Context, spans iter.Seq[Span], key uint64) error {
	check := b.checkSpans
	if b.kind.OnDevice() {
		check = b.checkDevice
	}
	var held [spansPerCall]Span
	first, n, bytes := 0, 0, uint64(0)
	flush := func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := check(ctx, first, held[:n], key)
		first, n, bytes = first+n, 0, 0
		return err
	}
	for s := range spans {
		if s.At > uint64(b.len) || s.Len > uint64(b.len)-s.At {
			return fmt.Errorf("piece %d (offset %d, %d bytes) is outside the buffer of %d", first+n, s.At, s.Len, b.len)
		}
		if n > 0 && (n == spansPerCall || bytes+s.Len > Part) {
			if err := flush(); err != nil {
				return err
			}
		}
		held[n] = s
		n++
		bytes += s.Len
	}
	if n == 0 {
		return nil
	}
	return flush()
}

// checkSpans checks spans, the first of which has the number first, in one call, or
// a single long one in parts.
func (b *Buffer) checkSpans(ctx context.Context, first int, spans []Span, key uint64) error {
	if len(spans) == 1 {
		return b.checkParts(ctx, first, spans[0], Part, key, func(off uint64, n int) (*C.uchar, error) {
			return (*C.uchar)(unsafe.Add(b.host(), off)), nil
		})
	}
	var at C.uint64_t
	i := int(C.xb_pattern_check_spans((*C.uchar)(b.host()), (*C.struct_xb_span)(unsafe.Pointer(&spans[0])),
		C.uint64_t(len(spans)), C.uint64_t(key), &at))
	if i == len(spans) {
		return nil
	}
	return &Mismatch{Piece: first + i, Offset: spans[i].At + uint64(at), SourceBytes: spans[i].From + uint64(at)}
}

// checkDevice checks spans of device memory through a host buffer.
func (b *Buffer) checkDevice(ctx context.Context, first int, spans []Span, key uint64) error {
	host := make([]byte, stage)
	for i, s := range spans {
		err := b.checkParts(ctx, first+i, s, stage, key, func(off uint64, n int) (*C.uchar, error) {
			return (*C.uchar)(unsafe.Pointer(&host[0])), b.ctx.CopyFromDevice(host[:n], cuda.Pointer(b.ptr+off))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkParts checks span number i in parts, of which bytes gives the memory.
func (b *Buffer) checkParts(ctx context.Context, i int, s Span, part int, key uint64, bytes func(off uint64, n int) (*C.uchar, error)) error {
	return inParts(ctx, int(s.Len), part, func(off, n int) error {
		p, err := bytes(s.At+uint64(off), n)
		if err != nil {
			return err
		}
		at := uint64(C.xb_pattern_check(p, C.size_t(n), C.uint64_t(s.From+uint64(off)), C.uint64_t(key)))
		if at == uint64(n) {
			return nil
		}
		at += uint64(off)
		return &Mismatch{Piece: i, Offset: s.At + at, SourceBytes: s.From + at}
	})
}

// loadCUDA is [cuda.Load]; tests put a stand-in there.
var loadCUDA = func() (*cuda.Driver, error) { return cuda.Load("") }

func (b *Buffer) allocCUDA() (err error) {
	d, err := loadCUDA()
	if err != nil {
		return err
	}
	if b.ctx, err = d.Retain(b.device); err != nil {
		return err
	}
	if b.kind == CUDAHost {
		var p unsafe.Pointer
		p, err = b.ctx.AllocHost(uint64(b.len), cuda.Portable)
		b.ptr = uint64(uintptr(p))
	} else {
		err = b.allocDevice()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%d bytes of %s memory on device %d: %w", b.len, b.kind, b.device, err), b.ctx.Close())
	}
	return nil
}

// allocDevice makes synchronous copies end before their call returns: a NIC that
// reads device memory must not overtake one.
func (b *Buffer) allocDevice() error {
	p, err := b.ctx.Alloc(uint64(b.len))
	if err != nil {
		return err
	}
	if err := b.ctx.SyncMemops(p); err != nil {
		return errors.Join(err, b.ctx.Free(p))
	}
	b.ptr = uint64(p)
	return nil
}

func (b *Buffer) freeCUDA() error {
	var err error
	if b.kind == CUDAHost {
		err = b.ctx.FreeHost(b.host())
	} else {
		err = b.ctx.Free(cuda.Pointer(b.ptr))
	}
	if err != nil {
		err = fmt.Errorf("freeing %s memory: %w", b.kind, err)
	}
	return errors.Join(err, b.ctx.Close())
}
