package nvml

import (
	"errors"
	"fmt"
)

// ErrUnavailable: the library is not on this host, or there is no driver that
// it could talk to.
var ErrUnavailable = errors.New("NVML unavailable")

// Error is a call that NVML refused.
type Error struct {
	Call  string // "nvmlInit_v2"
	GPU   int    // index, or -1 where the call is about none
	Code  int    // nvmlReturn_t
	Words string // nvmlErrorString's
	Kind  error  // ErrUnavailable, or nil
}

// Error is "call (GPU n): words (code)".
func (e *Error) Error() string {
	at := ""
	if e.GPU >= 0 {
		at = fmt.Sprintf(" (GPU %d)", e.GPU)
	}
	return fmt.Sprintf("%s%s: %s (%d)", e.Call, at, e.Words, e.Code)
}

// Unwrap is the error's Kind.
func (e *Error) Unwrap() error { return e.Kind }

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
	// Telemetry is what a device does now; what it does not tell stays zero.
	Telemetry(index int) (Telemetry, error)
	// Link is the way between two devices.
	Link(a, b int) (Link, error)
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
	NUMA        int    // node of the PCI device, -1: unknown
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

// Telemetry is what a device does now.
type Telemetry struct {
	SMClockMHz, MemoryClockMHz int
	BusyPercent                int // of the last sample period, any kernel
	MemoryUsedBytes            uint64
	PowerMilliwatts            int
	TemperatureC               int
	// PCIe traffic over the last 20 ms, bytes per second.
	PCIeTxBytesPerSec, PCIeRxBytesPerSec uint64
	// Throttle holds the reasons for which clocks are held down, in the words of
	// nvidia-smi; an idle GPU has none.
	Throttle []string
}

// Link is the way between two GPUs.
type Link struct {
	Topology Path // of PCI, by NVML
	NVLinks  int  // direct ones; through an NVSwitch each GPU has its own to it
}

// throttleReasons are nvmlClocksThrottleReason* that say a clock is held down
// for a cause that spoils a measurement.
var throttleReasons = []struct {
	bit  uint64
	word string
}{
	{0x4, "software power cap"},
	{0x8, "hardware slowdown"},
	{0x20, "software thermal slowdown"},
	{0x40, "hardware thermal slowdown"},
	{0x80, "hardware power brake"},
	{0x10, "sync boost"},
	{0x2, "applications clocks"},
	{0x100, "display clocks"},
}

func throttle(bits uint64) []string {
	var out []string
	for _, r := range throttleReasons {
		if bits&r.bit != 0 {
			out = append(out, r.word)
		}
	}
	return out
}

// cudaVersion is "12.4" for 12040.
func cudaVersion(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", n/1000, n%1000/10)
}
