package cuda

/*
#include <stdlib.h>
#include "cuda.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
)

// Driver is the loaded libcuda. It stays loaded until the process ends. Its methods
// may be called by several goroutines.
type Driver struct {
	lib     *dl.Library
	c       *C.struct_xb_cuda // in C memory: other threads read it
	version Version
}

var (
	loading sync.Mutex
	loaded  = map[string]*Driver{}
)

// Load loads libcuda from path, or the loader's libcuda.so.1 if that is "", once,
// and initialises it. An error is a [*LoadError]. The process's signal
// actions stay as they were. Wraps: dlopen(3), cuInit, cuDriverGetVersion,
// cuGetErrorName, cuGetErrorString.
func Load(path string) (*Driver, error) {
	loading.Lock()
	defer loading.Unlock()
	if path == "" {
		path = "libcuda.so.1"
	}
	if d := loaded[path]; d != nil {
		return d, nil
	}
	lib, err := dl.Open(dl.Local, path)
	if err != nil {
		return nil, &LoadError{Library: path, Err: err}
	}
	d := &Driver{lib: lib, c: (*C.struct_xb_cuda)(C.calloc(1, C.sizeof_struct_xb_cuda))}
	if d.c == nil {
		return nil, fmt.Errorf("the table of %s: %w", path, syscall.ENOMEM)
	}
	if err = lib.Symbols(d.symbols()); err != nil {
		err = fmt.Errorf("%w: CUDA 11.0 or newer is needed", err)
	} else {
		err = dl.Guarded(d.start)
	}
	if err != nil {
		C.free(unsafe.Pointer(d.c))
		return nil, &LoadError{Library: lib.Path(), Err: err}
	}
	loaded[path] = d
	return d, nil
}

// symbols are the table's fields by their symbols.
func (d *Driver) symbols() map[string]*unsafe.Pointer {
	fields := unsafe.Slice((*unsafe.Pointer)(unsafe.Pointer(d.c)), C.sizeof_struct_xb_cuda/unsafe.Sizeof(unsafe.Pointer(nil)))
	names := unsafe.Slice((**C.char)(unsafe.Pointer(&C.xb_cuda_symbols)), len(fields))
	out := make(map[string]*unsafe.Pointer, len(fields))
	for i := range fields {
		out[C.GoString(names[i])] = &fields[i]
	}
	return out
}

func (d *Driver) start() error {
	var e C.struct_xb_cuda_error
	var v C.int
	err := fault(C.xb_cuda_start(d.c, &e, &v), &e)
	d.version = Version(v)
	return err
}

// fault is the error of a call, nil for success.
func fault(rc C.int, e *C.struct_xb_cuda_error) error {
	if rc == 0 {
		return nil
	}
	return &Error{Call: C.GoString(e.call), Result: Result(e.code), Name: C.GoString(e.name), Words: C.GoString(e.words)}
}

// Path is the file that was loaded.
func (d *Driver) Path() string { return d.lib.Path() }

// Version is the newest CUDA that the driver runs.
func (d *Driver) Version() Version { return d.version }

// Table is the driver's functions as struct xb_cuda of cuda.h, for C code of
// other packages that calls them on threads of its own. It is never freed.
func (d *Driver) Table() unsafe.Pointer { return unsafe.Pointer(d.c) }

// DeviceCount is how many devices the driver shows. Wraps: cuDeviceGetCount.
func (d *Driver) DeviceCount() (int, error) {
	var e C.struct_xb_cuda_error
	var n C.int
	err := fault(C.xb_cuda_count(d.c, &e, &n), &e)
	return int(n), err
}

// Device describes one device; an ordinal that is none is an error that matches
// [ErrorInvalidDevice]. Wraps: cuDeviceGet, cuDeviceGetName, cuDeviceGetPCIBusId,
// cuDeviceGetUuid, cuDeviceTotalMem_v2.
func (d *Driver) Device(ordinal int) (Device, error) {
	var e C.struct_xb_cuda_error
	var out C.struct_xb_cuda_device
	if err := fault(C.xb_cuda_describe(d.c, &e, C.int(ordinal), &out), &e); err != nil {
		return Device{}, fmt.Errorf("CUDA device %d: %w", ordinal, err)
	}
	u := C.GoBytes(unsafe.Pointer(&out.uuid), C.sizeof_struct_xb_cuda_uuid)
	return Device{Ordinal: ordinal, Name: C.GoString(&out.name[0]), PCI: strings.ToLower(C.GoString(&out.bus[0])),
		UUID: fmt.Sprintf("GPU-%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]), MemoryBytes: uint64(out.bytes)}, nil
}

// Devices describes all devices, by ordinal.
func (d *Driver) Devices() ([]Device, error) {
	n, err := d.DeviceCount()
	if err != nil {
		return nil, err
	}
	out := make([]Device, n)
	for i := range out {
		if out[i], err = d.Device(i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// CanAccessPeer reports whether a kernel or copy on device reaches the memory of
// device peer; both are ordinals. Wraps: cuDeviceCanAccessPeer.
func (d *Driver) CanAccessPeer(device, peer int) (bool, error) {
	var e C.struct_xb_cuda_error
	var can C.int
	if err := fault(C.xb_cuda_can_access(d.c, &e, C.int(device), C.int(peer), &can), &e); err != nil {
		return false, fmt.Errorf("CUDA devices %d and %d: %w", device, peer, err)
	}
	return can != 0, nil
}

// Attributes are what the driver knows of address p, of the device or of the host.
// An address that is not its own gives an error that matches [ErrorInvalidValue].
// Wraps: cuPointerGetAttribute.
func (d *Driver) Attributes(p Pointer) (Attributes, error) {
	var e C.struct_xb_cuda_error
	var out C.struct_xb_cuda_pointer
	if err := fault(C.xb_cuda_pointer(d.c, &e, C.uint64_t(p), &out), &e); err != nil {
		return Attributes{}, err
	}
	return Attributes{Type: MemoryType(out._type), Device: int(out.device), Managed: out.managed != 0,
		Base: Pointer(out.base), Bytes: uint64(out.bytes)}, nil
}

// Context is a device's primary context, the one that the CUDA runtime and other
// libraries of this process use. Its methods may be called by several goroutines,
// but for Close, after which the others fail with [ErrorInvalidContext].
type Context struct {
	d       *Driver
	ordinal int
	h       unsafe.Pointer
}

// Retain makes device ordinal's primary context, or shares the one that there is;
// Close gives it back. Wraps: cuDeviceGet, cuDevicePrimaryCtxRetain.
func (d *Driver) Retain(ordinal int) (*Context, error) {
	var e C.struct_xb_cuda_error
	c := &Context{d: d, ordinal: ordinal}
	if err := fault(C.xb_cuda_retain(d.c, &e, C.int(ordinal), &c.h), &e); err != nil {
		return nil, fmt.Errorf("CUDA device %d: %w", ordinal, err)
	}
	return c, nil
}

// Close gives the context back. The last one in the process to do so ends it, with
// all memory, streams and events that were made in it. It may be called twice.
// Wraps: cuDevicePrimaryCtxRelease_v2.
func (c *Context) Close() error {
	if c.h == nil {
		return nil
	}
	c.h = nil
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_release(c.d.c, &e, C.int(c.ordinal)), &e)
}

// Driver is what the context was made by.
func (c *Context) Driver() *Driver { return c.d }

// Ordinal is the device's.
func (c *Context) Ordinal() int { return c.ordinal }

// Handle is the CUcontext, for C code; nil after Close.
func (c *Context) Handle() unsafe.Pointer { return c.h }

// SetCurrent makes the context the calling thread's own, for libraries that look
// for one there. The goroutine is locked to its thread (runtime.LockOSThread).
// Wraps: cuCtxSetCurrent.
func (c *Context) SetCurrent() error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_set_current(c.d.c, &e, c.h), &e)
}

// EnablePeer lets this context reach the memory of peer, one way; that it does so
// already is no error. Wraps: cuCtxEnablePeerAccess.
func (c *Context) EnablePeer(peer *Context) error {
	var e C.struct_xb_cuda_error
	err := fault(C.xb_cuda_enable_peer(c.d.c, &e, c.h, peer.h), &e)
	if errors.Is(err, ErrorPeerAccessAlreadyEnabled) {
		return nil
	}
	return err
}

// Alloc allocates n bytes of device memory; Free returns them. An error matches
// [ErrorOutOfMemory] when the device has not as many. Wraps: cuMemAlloc_v2.
func (c *Context) Alloc(n uint64) (Pointer, error) {
	var e C.struct_xb_cuda_error
	var p C.uint64_t
	err := fault(C.xb_cuda_alloc(c.d.c, &e, c.h, C.size_t(n), &p), &e)
	return Pointer(p), err
}

// Free returns what Alloc gave. Wraps: cuMemFree_v2.
func (c *Context) Free(p Pointer) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_free(c.d.c, &e, c.h, C.uint64_t(p)), &e)
}

// AllocHost allocates n bytes of pinned host memory, which is not the Go heap's;
// FreeHost returns them. Wraps: cuMemHostAlloc.
func (c *Context) AllocHost(n uint64, flags HostFlags) (unsafe.Pointer, error) {
	var e C.struct_xb_cuda_error
	var p unsafe.Pointer
	err := fault(C.xb_cuda_host_alloc(c.d.c, &e, c.h, C.size_t(n), C.uint(flags), &p), &e)
	return p, err
}

// FreeHost returns what AllocHost gave. Wraps: cuMemFreeHost.
func (c *Context) FreeHost(p unsafe.Pointer) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_host_free(c.d.c, &e, c.h, p), &e)
}

// SyncMemops makes synchronous copies of the allocation at p end before their call
// returns, which a NIC that reads device memory depends on.
// Wraps: cuPointerSetAttribute.
func (c *Context) SyncMemops(p Pointer) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_sync_memops(c.d.c, &e, c.h, C.uint64_t(p)), &e)
}

// Set writes value over n bytes at dst, and returns when it is done.
// Wraps: cuMemsetD8_v2, cuStreamSynchronize.
func (c *Context) Set(dst Pointer, value byte, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_set(c.d.c, &e, c.h, C.uint64_t(dst), C.uchar(value), C.size_t(n)), &e)
}

// CopyToDevice copies src to dst, and returns when src may be changed.
// Wraps: cuMemcpyHtoD_v2.
func (c *Context) CopyToDevice(dst Pointer, src []byte) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_to_device(c.d.c, &e, c.h, C.uint64_t(dst), unsafe.Pointer(unsafe.SliceData(src)), C.size_t(len(src))), &e)
}

// CopyFromDevice fills dst from src. Wraps: cuMemcpyDtoH_v2.
func (c *Context) CopyFromDevice(dst []byte, src Pointer) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_from_device(c.d.c, &e, c.h, unsafe.Pointer(unsafe.SliceData(dst)), C.uint64_t(src), C.size_t(len(dst))), &e)
}

// Copy copies n bytes from src to dst, both on this device, and returns when it is
// done. Wraps: cuMemcpyDtoD_v2, cuStreamSynchronize.
func (c *Context) Copy(dst, src Pointer, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_on_device(c.d.c, &e, c.h, C.uint64_t(dst), C.uint64_t(src), C.size_t(n)), &e)
}

// CopyPeer copies n bytes from src, on this device, to dst on peer's, and returns
// when it is done: directly after EnablePeer, through the host otherwise.
// Wraps: cuMemcpyPeer, cuStreamSynchronize.
func (c *Context) CopyPeer(peer *Context, dst, src Pointer, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_to_peer(c.d.c, &e, c.h, peer.h, C.uint64_t(dst), C.uint64_t(src), C.size_t(n)), &e)
}

// IPCHandle names the allocation at p to other processes of this host; it is valid
// while the allocation is. Wraps: cuIpcGetMemHandle.
func (c *Context) IPCHandle(p Pointer) (IPCHandle, error) {
	var e C.struct_xb_cuda_error
	var h C.struct_xb_cuda_ipc
	if err := fault(C.xb_cuda_ipc_get(c.d.c, &e, c.h, C.uint64_t(p), &h), &e); err != nil {
		return IPCHandle{}, err
	}
	return IPCHandle(C.GoBytes(unsafe.Pointer(&h), C.sizeof_struct_xb_cuda_ipc)), nil
}

// OpenIPC maps another process's allocation; CloseIPC ends it. The driver refuses a
// handle of this process. Wraps: cuIpcOpenMemHandle_v2.
func (c *Context) OpenIPC(h IPCHandle) (Pointer, error) {
	var e C.struct_xb_cuda_error
	var p C.uint64_t
	var own C.struct_xb_cuda_ipc
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&own)), len(h)), h[:])
	err := fault(C.xb_cuda_ipc_open(c.d.c, &e, c.h, &own, &p), &e)
	return Pointer(p), err
}

// CloseIPC ends what OpenIPC mapped. Wraps: cuIpcCloseMemHandle.
func (c *Context) CloseIPC(p Pointer) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_ipc_close(c.d.c, &e, c.h, C.uint64_t(p)), &e)
}
