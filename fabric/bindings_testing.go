package fabric

// #include "postloop.h"
import "C"

import (
	"errors"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/loop"
)

// postAlone runs the posting loop that is written in C alone, and returns the
// times to post, ns; it serves a benchmark, since test files cannot use cgo.
func postAlone(e *Endpoint, plan *loop.Plan, iters int) ([]int64, error) {
	out := make([]int64, iters)
	p := plan.Pieces()
	if C.xb_ofi_post_alone(e.ep, (*C.struct_xb_piece)(unsafe.Pointer(&p[0])), C.uint64_t(len(p)), C.uint32_t(iters),
		(*C.int64_t)(&out[0])) != 0 {
		return nil, errors.New("the loop in C alone failed: " + C.GoString(C.xb_ofi_words(e.ep)))
	}
	return out, nil
}
