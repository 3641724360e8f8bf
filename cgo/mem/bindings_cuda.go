package mem

/*
#include <stdlib.h>
#include "mem.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/cgo/loop"
)

// driver is libcuda, loaded when CUDA memory is first asked for.
type driver struct {
	table   *C.struct_xb_cuda // in C memory: its addresses cross into C
	path    string
	version int
	devices int
}

var openDriver = sync.OnceValues(func() (*driver, error) {
	lib, err := dl.Open(dl.Local, "libcuda.so.1")
	if err != nil {
		return nil, fmt.Errorf("%w: %w; install the NVIDIA driver, or use --memory host", ErrNoCUDA, err)
	}
	t := (*C.struct_xb_cuda)(C.calloc(1, C.sizeof_struct_xb_cuda))
	if t == nil {
		return nil, fmt.Errorf("the CUDA driver's table: %w", syscall.ENOMEM)
	}
	d := &driver{path: lib.Path(), table: t}
	err = lib.Symbols(map[string]*unsafe.Pointer{
		"cuInit": &t.cuInit, "cuGetErrorName": &t.cuGetErrorName, "cuDeviceGetCount": &t.cuDeviceGetCount,
		"cuDeviceGet": &t.cuDeviceGet, "cuDeviceGetName": &t.cuDeviceGetName, "cuDeviceGetPCIBusId": &t.cuDeviceGetPCIBusId,
		"cuDriverGetVersion":       &t.cuDriverGetVersion,
		"cuDevicePrimaryCtxRetain": &t.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRelease_v2": &t.cuDevicePrimaryCtxRelease,
		"cuCtxPushCurrent_v2": &t.cuCtxPushCurrent, "cuCtxPopCurrent_v2": &t.cuCtxPopCurrent,
		"cuMemAlloc_v2": &t.cuMemAlloc, "cuMemFree_v2": &t.cuMemFree, "cuMemHostAlloc": &t.cuMemHostAlloc,
		"cuMemFreeHost": &t.cuMemFreeHost, "cuMemcpyHtoD_v2": &t.cuMemcpyHtoD, "cuMemcpyDtoH_v2": &t.cuMemcpyDtoH,
		"cuMemcpyDtoD_v2": &t.cuMemcpyDtoD, "cuMemcpyDtoDAsync_v2": &t.cuMemcpyDtoDAsync,
		"cuStreamSynchronize": &t.cuStreamSynchronize, "cuMemsetD8_v2": &t.cuMemsetD8,
		"cuPointerSetAttribute": &t.cuPointerSetAttribute,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCUDA, err)
	}
	var r C.struct_xb_cuda_result
	var n, v C.int
	err = dl.Guarded(func() error {
		if C.xb_cuda_init(t, &n, &v, &r) != 0 {
			return fmt.Errorf("%w: %w (%s)", ErrNoCUDA, cudaError(&r), d.path)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.devices, d.version = int(n), int(v)
	return d, nil
})

// CUDADevice is one GPU as the driver sees it.
type CUDADevice struct {
	Ordinal int
	Name    string
	PCI     string // bus id, as in sysfs
}

// CUDAInfo is the loaded driver and its devices.
type CUDAInfo struct {
	Library string // file that was loaded
	Driver  string // CUDA version of the driver, such as 12.4
	Devices []CUDADevice
}

// ProbeCUDA loads the driver and lists its devices. A host without one gives
// an error that matches [ErrNoCUDA]. Wraps: cuInit, cuDeviceGet.
func ProbeCUDA() (CUDAInfo, error) {
	d, err := openDriver()
	if err != nil {
		return CUDAInfo{}, err
	}
	info := CUDAInfo{Library: d.path, Driver: fmt.Sprintf("%d.%d", d.version/1000, d.version%1000/10)}
	for i := range d.devices {
		var r C.struct_xb_cuda_result
		var name [128]C.char
		var bus [32]C.char
		if C.xb_cuda_device(d.table, C.int(i), &name[0], C.int(len(name)), &bus[0], C.int(len(bus)), &r) != 0 {
			return info, fmt.Errorf("CUDA device %d: %w", i, cudaError(&r))
		}
		info.Devices = append(info.Devices, CUDADevice{i, C.GoString(&name[0]), C.GoString(&bus[0])})
	}
	return info, nil
}

func cudaError(r *C.struct_xb_cuda_result) error {
	return fmt.Errorf("%s: %s (%d)", C.GoString(r.call), C.GoString(&r.name[0]), int(r.code))
}

func (b *Buffer) allocCUDA() error {
	d, err := openDriver()
	if err != nil {
		return err
	}
	if b.device < 0 || b.device >= d.devices {
		return fmt.Errorf("%w: device %d of %d", ErrNoCUDA, b.device, d.devices)
	}
	var r C.struct_xb_cuda_result
	var ptr C.uint64_t
	pinned := C.int(0)
	if b.kind == CUDAHost {
		pinned = 1
	}
	if C.xb_cuda_alloc(d.table, C.int(b.device), C.size_t(b.len), pinned, &b.ctx, &ptr, &r) != 0 {
		return fmt.Errorf("%d bytes of %s memory on device %d: %w; choose a smaller --size", b.len, b.kind, b.device, cudaError(&r))
	}
	b.ptr = uint64(ptr)
	return nil
}

func (b *Buffer) freeCUDA() error {
	d, err := openDriver()
	if err != nil {
		return err
	}
	var r C.struct_xb_cuda_result
	pinned := C.int(0)
	if b.kind == CUDAHost {
		pinned = 1
	}
	if C.xb_cuda_free(d.table, C.int(b.device), b.ctx, C.uint64_t(b.ptr), pinned, &r) != 0 {
		return fmt.Errorf("freeing %s memory: %w", b.kind, cudaError(&r))
	}
	return nil
}

func (b *Buffer) cudaCopy(kind C.int, dst, src uint64, n int) error {
	d, err := openDriver()
	if err != nil {
		return err
	}
	var r C.struct_xb_cuda_result
	if C.xb_cuda_copy(d.table, b.ctx, kind, C.uint64_t(dst), C.uint64_t(src), C.size_t(n), &r) != 0 {
		return cudaError(&r)
	}
	return nil
}

func (b *Buffer) copyIn(off int, from []byte) error {
	defer runtime.KeepAlive(from)
	return b.cudaCopy(C.XB_TO_DEVICE, b.ptr+uint64(off), uint64(uintptr(unsafe.Pointer(&from[0]))), len(from))
}

func (b *Buffer) copyOut(to []byte, off uint64) error {
	defer runtime.KeepAlive(to)
	return b.cudaCopy(C.XB_FROM_DEVICE, uint64(uintptr(unsafe.Pointer(&to[0]))), b.ptr+off, len(to))
}

func (b *Buffer) set(value byte, n int) error {
	d, err := openDriver()
	if err != nil {
		return err
	}
	var r C.struct_xb_cuda_result
	if C.xb_cuda_set(d.table, b.ctx, C.uint64_t(b.ptr), C.int(value), C.size_t(n), &r) != 0 {
		return cudaError(&r)
	}
	return nil
}

func (b *Buffer) copyPiecesCUDA(src *Buffer, pieces []loop.Piece) error {
	d, err := openDriver()
	if err != nil {
		return err
	}
	kind, ctx := C.int(C.XB_ON_DEVICE), b.ctx
	switch {
	case src.kind != CUDA:
		kind = C.XB_TO_DEVICE
	case b.kind != CUDA:
		kind, ctx = C.XB_FROM_DEVICE, src.ctx
	}
	var r C.struct_xb_cuda_result
	if C.xb_cuda_copy_pieces(d.table, ctx, kind, C.uint64_t(b.ptr), C.uint64_t(src.ptr),
		(*C.struct_xb_piece)(unsafe.Pointer(&pieces[0])), C.uint64_t(len(pieces)), &r) != 0 {
		return cudaError(&r)
	}
	return nil
}
