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
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/engine"
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
// Wraps: mmap(2), cuMemAlloc, cuMemHostAlloc.
func New(kind Kind, device, length int) (*Buffer, error) {
	if length <= 0 {
		return nil, fmt.Errorf("a buffer of %d bytes", length)
	}
	b := &Buffer{kind: kind, device: device, len: length}
	switch kind {
	case Host, HostHuge:
		if err := fits(length); kind == Host && err != nil {
			return nil, err
		}
		huge := 0
		if kind == HostHuge {
			huge = 1
		}
		p, err := C.xb_mem_map(C.size_t(length), C.int(huge))
		if p == nil {
			hint := "choose a smaller --size"
			if kind == HostHuge {
				hint = fmt.Sprintf("reserve pages: echo %d > /proc/sys/vm/nr_hugepages", (length+(2<<20)-1)/(2<<20))
			}
			return nil, fmt.Errorf("%d bytes of %s memory: %w; %s", length, kind, err, hint)
		}
		b.ptr = uint64(uintptr(p))
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

// Free returns the memory; it may be called twice.
func (b *Buffer) Free() error {
	if b.ptr == 0 {
		return nil
	}
	var err error
	if b.kind == CUDA || b.kind == CUDAHost {
		err = b.freeCUDA()
	} else if rc, e := C.xb_mem_unmap(b.host(), C.size_t(b.len)); rc != 0 {
		err = fmt.Errorf("munmap: %w", e)
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

// Fill writes the payload of key over the first n bytes.
func (b *Buffer) Fill(n int, key uint64) error {
	if n < 0 || n > b.len {
		return fmt.Errorf("fill of %d bytes in a buffer of %d", n, b.len)
	}
	if !b.kind.OnDevice() {
		C.xb_pattern_fill((*C.uchar)(b.host()), C.size_t(n), 0, C.uint64_t(key))
		return nil
	}
	host := make([]byte, min(n, stage))
	for off := 0; off < n; off += len(host) {
		part := host[:min(len(host), n-off)]
		C.xb_pattern_fill((*C.uchar)(unsafe.Pointer(&part[0])), C.size_t(len(part)), C.uint64_t(off), C.uint64_t(key))
		if err := b.copyIn(off, part); err != nil {
			return err
		}
	}
	return nil
}

// Poison overwrites the first n bytes with a byte that no check takes for
// payload but by a chance of 2^-64 a word.
func (b *Buffer) Poison(n int) error {
	if n < 0 || n > b.len {
		return fmt.Errorf("poison of %d bytes in a buffer of %d", n, b.len)
	}
	if b.kind.OnDevice() {
		return b.set(0xDB, n)
	}
	C.memset(b.host(), 0xDB, C.size_t(n))
	return nil
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
// (READ); otherwise it is the Remote side. A wrong byte is a [*Mismatch].
func (b *Buffer) Check(plan *engine.Plan, toLocal bool, key uint64) error {
	pieces := plan.Pieces()
	if len(pieces) == 0 {
		return nil
	}
	if b.kind.OnDevice() {
		return b.checkDevice(pieces, toLocal, key)
	}
	for i, p := range pieces {
		if dst, _ := sides(p, toLocal); dst > uint64(b.len) || p.Len > uint64(b.len)-dst {
			return fmt.Errorf("piece %d (offset %d, %d bytes) is outside the buffer of %d", i, dst, p.Len, b.len)
		}
	}
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
	return &Mismatch{Piece: int(i), Offset: dst + uint64(at), SourceBytes: src + uint64(at)}
}

func sides(p engine.Piece, toLocal bool) (dst, src uint64) {
	if toLocal {
		return p.Local, p.Remote
	}
	return p.Remote, p.Local
}

func (b *Buffer) checkDevice(pieces []engine.Piece, toLocal bool, key uint64) error {
	host := make([]byte, stage)
	for i, p := range pieces {
		dst, src := sides(p, toLocal)
		if dst > uint64(b.len) || p.Len > uint64(b.len)-dst {
			return fmt.Errorf("piece %d (offset %d, %d bytes) is outside the buffer of %d", i, dst, p.Len, b.len)
		}
		for off := uint64(0); off < p.Len; off += stage {
			part := host[:min(stage, p.Len-off)]
			if err := b.copyOut(part, dst+off); err != nil {
				return err
			}
			at := uint64(C.xb_pattern_check((*C.uchar)(unsafe.Pointer(&part[0])), C.size_t(len(part)),
				C.uint64_t(src+off), C.uint64_t(key)))
			if at != uint64(len(part)) {
				return &Mismatch{Piece: i, Offset: dst + off + at, SourceBytes: src + off + at}
			}
		}
	}
	return nil
}

// CopyPieces copies every piece from src's Remote side to b's Local side with
// the host's memcpy, or the driver's copies where one is device memory. It is
// the memory ceiling that transfers are compared to.
func (b *Buffer) CopyPieces(src *Buffer, plan *engine.Plan) error {
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
