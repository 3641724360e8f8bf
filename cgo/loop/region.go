package loop

import (
	"runtime"
	"unsafe"
)

// Region is memory that operations read and write: a piece's offset counts from
// Address. Transport packages register it. It must stay where it is until the
// endpoint is closed: memory from C does, and that of Go while it is [Pinned].
type Region struct {
	Address, Len uint64 // Len in bytes
	CUDA         bool   // device memory of CUDA
	Device       int    // its CUDA ordinal
}

// Pinned is the region of b, which p holds in place. Unpin p once the endpoint is
// closed, not before.
func Pinned(p *runtime.Pinner, b []byte) Region {
	if len(b) == 0 {
		return Region{}
	}
	p.Pin(&b[0])
	return Region{Address: uint64(uintptr(unsafe.Pointer(&b[0]))), Len: uint64(len(b))}
}

// Kind is "cuda" or "host".
func (r Region) Kind() string {
	if r.CUDA {
		return "cuda"
	}
	return "host"
}
