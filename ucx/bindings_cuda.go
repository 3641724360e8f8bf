package ucx

/*
#include "../cuda/cuda.h"
#include "ucp.h"

static void xb_ucx_context(struct xb_ucx_cuda *u, const void *table, void *ctx)
{
	u->set_current = ((const struct xb_cuda *)table)->set_current;
	u->ctx = ctx;
}
*/
import "C"

import (
	"errors"

	"github.com/xferbench/xferbench/cuda"
)

// retainContext takes the device's primary context, the one that the memory was
// allocated in, for the threads that progress the lanes.
// Wraps: cuDevicePrimaryCtxRetain.
func (m *Memory) retainContext() error {
	d, err := cuda.Load("")
	if err == nil {
		m.context, err = d.Retain(m.region.Device)
	}
	if err != nil {
		return &Error{Call: "registering CUDA memory", Detail: err.Error(), Kind: errors.Join(ErrUnavailable, err),
			Hint: "install NVIDIA's driver, and see whether nvidia-smi works"}
	}
	C.xb_ucx_context(&m.cuda, d.Table(), m.context.Handle())
	return nil
}

func (m *Memory) releaseContext() error {
	if m.context == nil {
		return nil
	}
	return m.context.Close()
}
