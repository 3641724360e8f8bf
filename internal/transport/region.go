package transport

import (
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
)

// region is a buffer as the bindings register it.
func region(b *mem.Buffer) loop.Region {
	return loop.Region{Address: b.Address(), Len: uint64(b.Len()), CUDA: b.Kind().OnDevice(), Device: b.Device()}
}
