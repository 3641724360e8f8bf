package nvml

import (
	"errors"
	"fmt"
)

// ErrUnavailable is matched by the errors of a host without the library, or without a
// driver that it could talk to.
var ErrUnavailable = errors.New("NVML unavailable")

// LoadError is a library that could not be loaded or initialised. It matches
// [ErrUnavailable], and the [Return] of a library that refused.
type LoadError struct {
	Library string // the file, or the name that was looked for
	Err     error  // the loader's words, or an [*Error]
}

// Error is "NVML unavailable: words".
func (e *LoadError) Error() string { return fmt.Sprintf("%v: %v", ErrUnavailable, e.Err) }

// Unwrap is ErrUnavailable and Err.
func (e *LoadError) Unwrap() []error { return []error{ErrUnavailable, e.Err} }

// Return is NVML's nvmlReturn_t. As an error it is what [errors.Is] looks for in an
// [*Error].
type Return int

// Returns that callers act on; NVML has words for all.
const (
	ErrorInvalidArgument Return = 2 // an index that is no device, for instance
	ErrorNotSupported    Return = 3
	ErrorNoPermission    Return = 4
	ErrorDriverNotLoaded Return = 9
	ErrorGPUIsLost       Return = 15
)

// Error is "nvmlReturn_t n". The words are in the [*Error] that the call returned.
func (r Return) Error() string { return fmt.Sprintf("nvmlReturn_t %d", int(r)) }

// Error is a call that NVML refused.
type Error struct {
	Call   string // "nvmlInit_v2"
	GPU    int    // index, or -1 where the call is about none
	Return Return
	Words  string // nvmlErrorString's
}

// Error is "call (GPU n): words (return)".
func (e *Error) Error() string {
	at := ""
	if e.GPU >= 0 {
		at = fmt.Sprintf(" (GPU %d)", e.GPU)
	}
	return fmt.Sprintf("%s%s: %s (%d)", e.Call, at, e.Words, int(e.Return))
}

// Unwrap is the Return.
func (e *Error) Unwrap() error { return e.Return }

// Interface is what NVML tells. Its methods may be called by several
// goroutines, until Close.
type Interface interface {
	// Path is the file that was loaded.
	Path() string
	// System is the driver and the library.
	System() (System, error)
	// GPUs lists the devices by index. What one of them does not tell stays
	// zero; an error means that they could not be listed.
	GPUs() ([]GPU, error)
	// Close ends the use of the library.
	Close() error
}

// System is the driver and the library.
type System struct {
	Driver  string // "550.54.15"
	Library string // NVML's own version, "12.550.54.15"
	CUDA    string // newest CUDA version that the driver runs, "12.4"
}

// GPU is one device.
type GPU struct {
	Index       int // NVML's, in PCI order; CUDA's differs under CUDA_VISIBLE_DEVICES
	Name        string
	UUID        string
	PCI         string // as in sysfs: "0000:10:1c.0"
	MemoryBytes uint64
	Compute     string // compute capability, "9.0"
	// PCIe link of the device, now and at most: generation and lanes, 0: unknown.
	// An idle GPU lowers the generation.
	PCIeGen, PCIeWidth       int
	PCIeMaxGen, PCIeMaxWidth int
	MaxSMClockMHz            int
	NVLinks                  []NVLink // that are up
}

// NVLink is one link that is up.
type NVLink struct {
	Index   int
	Version int
	Remote  string // PCI address of the other end: a GPU or an NVSwitch; "" unknown
}

// cudaVersion is "12.4" for 12040.
func cudaVersion(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", n/1000, n%1000/10)
}
