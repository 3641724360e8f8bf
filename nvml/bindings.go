package nvml

/*
#include "nvml.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
)

// Library is the loaded NVML. It stays loaded until the process ends.
type Library struct {
	table C.struct_xb_nvml
	path  string

	mu     sync.Mutex
	closed bool
}

var _ Interface = (*Library)(nil)

// New loads NVML from libpath, or the loader's libnvidia-ml.so.1 if that is "",
// and initialises it. An error matches [ErrUnavailable] and holds the loader's
// words, or NVML's. The process's signal actions stay as they were. Wraps:
// dlopen(3), nvmlInit_v2.
func New(libpath string) (*Library, error) {
	name := libpath
	if name == "" {
		name = "libnvidia-ml.so.1"
	}
	lib, err := dl.Open(dl.Local, name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; it comes with the NVIDIA driver", ErrUnavailable, err)
	}
	l := &Library{path: lib.Path()}
	t := &l.table
	err = lib.Symbols(map[string]*unsafe.Pointer{
		"nvmlInit_v2": &t.init, "nvmlShutdown": &t.shutdown, "nvmlErrorString": &t.error_string,
		"nvmlSystemGetDriverVersion": &t.driver_version, "nvmlSystemGetNVMLVersion": &t.nvml_version,
		"nvmlSystemGetCudaDriverVersion_v2": &t.cuda_version,
		"nvmlDeviceGetCount_v2":             &t.count, "nvmlDeviceGetHandleByIndex_v2": &t.handle,
		"nvmlDeviceGetName": &t.name, "nvmlDeviceGetUUID": &t.uuid,
		"nvmlDeviceGetPciInfo_v3": &t.pci, "nvmlDeviceGetMemoryInfo": &t.memory,
		"nvmlDeviceGetCudaComputeCapability?": &t.compute,
		"nvmlDeviceGetClockInfo?":             &t.clock, "nvmlDeviceGetMaxClockInfo?": &t.max_clock,
		"nvmlDeviceGetUtilizationRates?": &t.utilization, "nvmlDeviceGetPowerUsage?": &t.power,
		"nvmlDeviceGetTemperature?": &t.temperature, "nvmlDeviceGetCurrentClocksThrottleReasons?": &t.throttle,
		"nvmlDeviceGetCurrPcieLinkGeneration?": &t.pcie_gen, "nvmlDeviceGetCurrPcieLinkWidth?": &t.pcie_width,
		"nvmlDeviceGetMaxPcieLinkGeneration?": &t.pcie_max_gen, "nvmlDeviceGetMaxPcieLinkWidth?": &t.pcie_max_width,
		"nvmlDeviceGetPcieThroughput?": &t.pcie_throughput, "nvmlDeviceGetNvLinkState?": &t.link_state,
		"nvmlDeviceGetNvLinkVersion?": &t.link_version, "nvmlDeviceGetNvLinkRemotePciInfo_v2?": &t.link_remote,
		"nvmlDeviceGetTopologyCommonAncestor?": &t.ancestor,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, l.path, err)
	}
	err = dl.Guarded(func() error {
		var call *C.char
		return l.fault(C.xb_nvml_init(&l.table, &call), call, -1)
	})
	if err != nil {
		var refused *Error
		if errors.As(err, &refused) {
			refused.Kind = ErrUnavailable
		}
		return nil, fmt.Errorf("%w; %s was loaded, see whether nvidia-smi works", err, l.path)
	}
	return l, nil
}

// fault is the error of a call, nil for success.
func (l *Library) fault(rc C.int, call *C.char, gpu int) error {
	if rc == 0 {
		return nil
	}
	words := "no words for it"
	if w := C.xb_nvml_words(&l.table, rc); w != nil {
		words = C.GoString(w)
	}
	return &Error{Call: C.GoString(call), GPU: gpu, Code: int(rc), Words: words}
}

// Path is the file that was loaded.
func (l *Library) Path() string { return l.path }

// System is the driver and the library. Wraps: nvmlSystemGetDriverVersion,
// nvmlSystemGetNVMLVersion, nvmlSystemGetCudaDriverVersion_v2.
func (l *Library) System() (System, error) {
	var driver, library [80]C.char
	var cuda C.int
	var call *C.char
	rc := C.xb_nvml_system(&l.table, &driver[0], &library[0], &cuda, &call)
	if err := l.fault(rc, call, -1); err != nil {
		return System{}, err
	}
	return System{Driver: C.GoString(&driver[0]), Library: C.GoString(&library[0]), CUDA: cudaVersion(int(cuda))}, nil
}

// GPUs lists the devices by index. Wraps: nvmlDeviceGetCount_v2,
// nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetName, nvmlDeviceGetUUID,
// nvmlDeviceGetPciInfo_v3, nvmlDeviceGetMemoryInfo, and the PCIe and NVLink
// queries.
func (l *Library) GPUs() ([]GPU, error) {
	n, err := l.count()
	if err != nil {
		return nil, err
	}
	out := make([]GPU, 0, n)
	for i := range n {
		var g C.struct_xb_nvml_gpu
		var call *C.char
		if err := l.fault(C.xb_nvml_gpu(&l.table, C.uint(i), &g, &call), call, i); err != nil {
			return nil, err
		}
		out = append(out, gpu(i, &g))
	}
	return out, nil
}

func (l *Library) count() (int, error) {
	var n C.uint
	var call *C.char
	err := l.fault(C.xb_nvml_count(&l.table, &n, &call), call, -1)
	return int(n), err
}

func gpu(index int, g *C.struct_xb_nvml_gpu) GPU {
	out := GPU{
		Index: index, Name: C.GoString(&g.name[0]), UUID: C.GoString(&g.uuid[0]), PCI: pciAddress(&g.pci),
		MemoryBytes: uint64(g.memory), PCIeGen: int(g.gen), PCIeWidth: int(g.width),
		PCIeMaxGen: int(g.max_gen), PCIeMaxWidth: int(g.max_width), MaxSMClockMHz: int(g.max_sm_clock),
	}
	out.NUMA = numaNode("/sys", out.PCI)
	if g.major > 0 {
		out.Compute = fmt.Sprintf("%d.%d", int(g.major), int(g.minor))
	}
	for i := range g.link_up {
		if g.link_up[i] != 0 {
			out.NVLinks = append(out.NVLinks, NVLink{Index: i, Version: int(g.link_version[i]), Remote: pciAddress(&g.link_remote[i])})
		}
	}
	return out
}

// pciAddress is the address as sysfs writes it: NVML's has a domain of eight
// digits, and GPUs have function 0.
func pciAddress(p *C.struct_xb_nvml_pci) string {
	id := strings.ToLower(C.GoString(&p.bus_id[0]))
	if id == "" {
		return ""
	}
	if domain, rest, ok := strings.Cut(id, ":"); ok && len(domain) == 8 && strings.HasPrefix(domain, "0000") {
		return domain[4:] + ":" + rest
	}
	return id
}

// Telemetry is what device index does now. Wraps: nvmlDeviceGetMemoryInfo,
// nvmlDeviceGetClockInfo, nvmlDeviceGetUtilizationRates, nvmlDeviceGetPowerUsage,
// nvmlDeviceGetTemperature, nvmlDeviceGetPcieThroughput,
// nvmlDeviceGetCurrentClocksThrottleReasons.
func (l *Library) Telemetry(index int) (Telemetry, error) {
	var n C.struct_xb_nvml_now
	var call *C.char
	if err := l.fault(C.xb_nvml_now(&l.table, C.uint(index), &n, &call), call, index); err != nil {
		return Telemetry{}, err
	}
	return Telemetry{
		SMClockMHz: int(n.sm_clock), MemoryClockMHz: int(n.memory_clock), BusyPercent: int(n.busy),
		MemoryUsedBytes: uint64(n.used), PowerMilliwatts: int(n.power), TemperatureC: int(n.temperature),
		PCIeTxBytesPerSec: uint64(n.tx_kb) * 1000, PCIeRxBytesPerSec: uint64(n.rx_kb) * 1000, // NVML: KB/s
		Throttle: throttle(uint64(n.throttle)),
	}, nil
}

// levels are nvmlGpuTopologyLevel_t.
var levels = map[int]Path{0: Same, 10: PIX, 20: PXB, 30: PHB, 40: Node, 50: Sys}

// Link is the way between two devices. Wraps:
// nvmlDeviceGetTopologyCommonAncestor, nvmlDeviceGetNvLinkRemotePciInfo_v2.
func (l *Library) Link(a, b int) (Link, error) {
	gpus, err := l.GPUs()
	if err != nil {
		return Link{}, err
	}
	if a < 0 || b < 0 || a >= len(gpus) || b >= len(gpus) {
		return Link{}, fmt.Errorf("GPUs %d and %d: this host has %d", a, b, len(gpus))
	}
	if a == b {
		return Link{Topology: Same}, nil
	}
	var level C.int
	var call *C.char
	if err := l.fault(C.xb_nvml_link(&l.table, C.uint(a), C.uint(b), &level, &call), call, a); err != nil {
		return Link{}, err
	}
	out := Link{Topology: levels[int(level)]}
	for _, n := range gpus[a].NVLinks {
		if n.Remote == gpus[b].PCI {
			out.NVLinks++
		}
	}
	return out, nil
}

// Close ends the use of the library, once. Wraps: nvmlShutdown.
func (l *Library) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var call *C.char
	return l.fault(C.xb_nvml_close(&l.table, &call), call, -1)
}
