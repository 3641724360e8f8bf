package nvml

/*
#include "nvml.h"
*/
import "C"

import (
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
// and initialises it. An error is a [*LoadError]. The process's signal actions stay as
// they were. Wraps: dlopen(3), nvmlInit_v2, nvmlErrorString.
func New(libpath string) (*Library, error) {
	name := libpath
	if name == "" {
		name = "libnvidia-ml.so.1"
	}
	lib, err := dl.Open(dl.Local, name)
	if err != nil {
		return nil, &LoadError{Library: name, Err: err}
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
		"nvmlDeviceGetCudaComputeCapability?": &t.compute, "nvmlDeviceGetMaxClockInfo?": &t.max_clock,
		"nvmlDeviceGetCurrPcieLinkGeneration?": &t.pcie_gen, "nvmlDeviceGetCurrPcieLinkWidth?": &t.pcie_width,
		"nvmlDeviceGetMaxPcieLinkGeneration?": &t.pcie_max_gen, "nvmlDeviceGetMaxPcieLinkWidth?": &t.pcie_max_width,
		"nvmlDeviceGetNvLinkState?": &t.link_state, "nvmlDeviceGetNvLinkVersion?": &t.link_version,
		"nvmlDeviceGetNvLinkRemotePciInfo_v2?": &t.link_remote,
	})
	if err == nil {
		err = dl.Guarded(func() error {
			var call *C.char
			return l.fault(C.xb_nvml_init(&l.table, &call), call, -1)
		})
	}
	if err != nil {
		return nil, &LoadError{Library: l.path, Err: err}
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
	return &Error{Call: C.GoString(call), GPU: gpu, Return: Return(rc), Words: words}
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
// nvmlDeviceGetPciInfo_v3, nvmlDeviceGetMemoryInfo, nvmlDeviceGetCudaComputeCapability,
// nvmlDeviceGetMaxClockInfo, nvmlDeviceGetCurrPcieLinkGeneration,
// nvmlDeviceGetCurrPcieLinkWidth, nvmlDeviceGetMaxPcieLinkGeneration,
// nvmlDeviceGetMaxPcieLinkWidth, nvmlDeviceGetNvLinkState, nvmlDeviceGetNvLinkVersion,
// nvmlDeviceGetNvLinkRemotePciInfo_v2.
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
