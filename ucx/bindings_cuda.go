package ucx

// #include "driver.h"
import "C"

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
)

// driver is the part of the CUDA driver that gives a thread its context.
type driver struct {
	get, retain, release, setCurrent unsafe.Pointer
}

var openDriver = sync.OnceValues(func() (*driver, error) {
	lib, err := dl.Open(dl.Local, "libcuda.so.1")
	if err != nil {
		return nil, &Error{Call: "loading libcuda.so.1", Detail: err.Error(), Kind: ErrUnavailable, Hint: "install NVIDIA's driver"}
	}
	d := &driver{}
	err = lib.Symbols(map[string]*unsafe.Pointer{
		"cuDeviceGet":               &d.get,
		"cuDevicePrimaryCtxRetain":  &d.retain,
		"cuDevicePrimaryCtxRelease": &d.release,
		"cuCtxSetCurrent":           &d.setCurrent,
	})
	return d, err
})

// retainContext takes the device's primary context, the one that the memory
// was allocated in, for the threads that progress the lanes.
// Wraps: cuDevicePrimaryCtxRetain.
func (m *Memory) retainContext() error {
	d, err := openDriver()
	if err != nil {
		return err
	}
	var ctx unsafe.Pointer
	if rc := C.xb_cuda_retain(d.get, d.retain, C.int(m.region.Device), &ctx); rc != 0 {
		return fmt.Errorf("cuDevicePrimaryCtxRetain of device %d: CUDA error %d", m.region.Device, int(rc))
	}
	m.cuda.ctx = ctx
	*(*unsafe.Pointer)(unsafe.Pointer(&m.cuda.set_current)) = d.setCurrent
	return nil
}

func (m *Memory) releaseContext() error {
	if m.cuda.ctx == nil {
		return nil
	}
	m.cuda.ctx = nil
	d, err := openDriver()
	if err != nil {
		return err
	}
	if rc := C.xb_cuda_release(d.get, d.release, C.int(m.region.Device)); rc != 0 {
		return fmt.Errorf("cuDevicePrimaryCtxRelease of device %d: CUDA error %d", m.region.Device, int(rc))
	}
	return nil
}
