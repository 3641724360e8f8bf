package loop_test

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/loop"
)

func TestPinned(t *testing.T) {
	var p runtime.Pinner
	defer p.Unpin()
	b := make([]byte, 100)
	if r := loop.Pinned(&p, b[10:30]); r.Address != uint64(uintptr(unsafe.Pointer(&b[10]))) || r.Len != 20 || r.Kind() != "host" {
		t.Errorf("%+v", r)
	}
	if r := loop.Pinned(&p, nil); r != (loop.Region{}) {
		t.Errorf("no bytes: %+v", r)
	}
}

func TestWithin(t *testing.T) {
	const most = ^uint64(0)
	for _, c := range []struct {
		p         loop.Piece
		own, peer uint64
		in        bool
	}{
		{loop.Piece{Local: 92, Remote: 42, Len: 8}, 100, 50, true},
		{loop.Piece{}, 0, 0, true},
		{loop.Piece{Local: 93, Len: 8}, 100, 50, false},
		{loop.Piece{Remote: 43, Len: 8}, 100, 50, false},
		{loop.Piece{Len: 51}, 100, 50, false},
		{loop.Piece{Local: most - 3, Len: 8}, 100, 50, false},
		{loop.Piece{Remote: most, Len: 1}, 100, 50, false},
		{loop.Piece{Len: most}, most, most, true},
	} {
		if err := c.p.Within(c.own, c.peer); (err == nil) != c.in || err != nil && !errors.Is(err, loop.ErrOutside) {
			t.Errorf("%+v within %d and %d: %v", c.p, c.own, c.peer, err)
		}
	}
}
