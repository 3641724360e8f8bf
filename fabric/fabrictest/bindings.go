// Package fabrictest serves the tests of package fabric, which cannot use cgo
// themselves.
package fabrictest

// #include "postloop.h"
import "C"

import (
	"errors"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/loop"
)

// PostAlone runs a posting loop that is written in C alone on a lane of package
// fabric, opened for WRITE that lands by count, and returns the times to post, ns.
func PostAlone(l loop.Lane, plan *loop.Plan, iters int) ([]int64, error) {
	out := make([]int64, iters)
	p := plan.Pieces()
	if C.xb_post_alone(l.Impl, (*C.struct_xb_ops)(l.Ops), (*C.struct_xb_piece)(unsafe.Pointer(&p[0])), C.uint64_t(len(p)),
		C.uint32_t(iters), (*C.int64_t)(&out[0])) != 0 {
		return nil, errors.New("the loop in C alone failed")
	}
	return out, nil
}
