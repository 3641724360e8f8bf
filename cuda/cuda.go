package cuda

import (
	"errors"
	"fmt"
)

// ErrUnavailable is matched by the errors of a host without a CUDA driver that
// works.
var ErrUnavailable = errors.New("CUDA unavailable")

// LoadError is a driver that could not be loaded or initialised. It matches
// [ErrUnavailable], and the [Result] of a driver that refused.
type LoadError struct {
	Library string // the file, or the name that was looked for
	Err     error  // the loader's words, or an [*Error]
}

// Error is "CUDA unavailable: words".
func (e *LoadError) Error() string { return fmt.Sprintf("%v: %v", ErrUnavailable, e.Err) }

// Unwrap is ErrUnavailable and Err.
func (e *LoadError) Unwrap() []error { return []error{ErrUnavailable, e.Err} }

// Result is the driver's CUresult. As an error it is what [errors.Is] looks for in
// an [*Error].
type Result int

// Results that callers act on; the driver has words for all.
const (
	ErrorInvalidValue             Result = 1
	ErrorOutOfMemory              Result = 2
	ErrorNotInitialized           Result = 3
	ErrorNoDevice                 Result = 100
	ErrorInvalidDevice            Result = 101
	ErrorInvalidContext           Result = 201 // closed, for instance
	ErrorPeerAccessUnsupported    Result = 217
	ErrorInvalidHandle            Result = 400 // of a stream or an event, closed for instance
	ErrorNotReady                 Result = 600
	ErrorPeerAccessAlreadyEnabled Result = 704
)

// Error is "CUresult n". The words are in the [*Error] that the call returned.
func (r Result) Error() string { return fmt.Sprintf("CUresult %d", int(r)) }

// Error is a call that the driver refused.
type Error struct {
	Call   string // "cuMemAlloc_v2"
	Result Result
	Name   string // the driver's: "CUDA_ERROR_OUT_OF_MEMORY", "" unknown to it
	Words  string // the driver's: "out of memory"
}

// Error is "call: NAME, words (n)".
func (e *Error) Error() string {
	switch {
	case e.Name == "":
		return fmt.Sprintf("%s: unknown CUDA error (%d)", e.Call, int(e.Result))
	case e.Words == "":
		return fmt.Sprintf("%s: %s (%d)", e.Call, e.Name, int(e.Result))
	}
	return fmt.Sprintf("%s: %s, %s (%d)", e.Call, e.Name, e.Words, int(e.Result))
}

// Unwrap is the Result.
func (e *Error) Unwrap() error { return e.Result }

// Version is a version of CUDA as the driver counts it: 12040 is 12.4.
type Version int

// String is "12.4".
func (v Version) String() string { return fmt.Sprintf("%d.%d", int(v)/1000, int(v)%1000/10) }

// Device is one GPU as the driver sees it.
type Device struct {
	// Ordinal is the driver's number, from 0; CUDA_VISIBLE_DEVICES hides devices
	// from it and orders them, so it is not NVML's index.
	Ordinal     int
	Name        string
	PCI         string // address as in sysfs: "0000:10:1c.0"
	UUID        string // as nvidia-smi writes it: "GPU-…"
	MemoryBytes uint64
}

// Pointer is a device address, the driver's CUdeviceptr. It can be calculated with
// and is never dereferenced.
type Pointer uint64

// HostFlags are flags of pinned host memory.
type HostFlags uint

const (
	// Portable memory is pinned for all contexts of the process.
	Portable HostFlags = 1
	// Mapped memory has an address on the device.
	Mapped HostFlags = 2
	// WriteCombined memory is fast to write and slow to read for the CPU.
	WriteCombined HostFlags = 4
)

// MemoryType is where an address is.
type MemoryType int

const (
	HostMemory    MemoryType = 1 // known to the driver: pinned
	DeviceMemory  MemoryType = 2
	UnifiedMemory MemoryType = 4
)

// Attributes are what the driver knows of an address.
type Attributes struct {
	Type    MemoryType
	Device  int // ordinal
	Managed bool
	Base    Pointer // of the allocation
	Bytes   uint64  // of the allocation
}

// IPCHandle names device memory to another process of the host. It is plain data,
// to be sent there.
type IPCHandle [64]byte
