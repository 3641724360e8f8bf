package host

import (
	"errors"

	"github.com/xferbench/xferbench/cuda"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/nvml"
)

// GPU is a device with its PCIe link.
type GPU struct {
	record.GPU
	PCIeGen   int `json:"pcie_gen,omitempty"` // at most
	PCIeWidth int `json:"pcie_width,omitempty"`
	NVLinks   int `json:"nvlinks,omitempty"` // that are up
}

// GPUs lists this host's GPUs for a record: NVML's list where that loads, else
// libcuda's, else none. It never fails a run. It loads those libraries into this
// process.
func GPUs() []record.GPU {
	var all []GPU
	if lib, err := nvml.New(""); err == nil {
		_, all, err = NVMLGPUs(lib)
		if err = errors.Join(err, lib.Close()); err != nil {
			all = nil
		}
	}
	if len(all) == 0 {
		if d, err := cuda.Load(""); err == nil {
			if all, err = CUDAGPUs(d); err != nil {
				all = nil
			}
		}
	}
	out := make([]record.GPU, len(all))
	for i, g := range all {
		out[i] = g.GPU
	}
	return out
}

// NVMLGPUs lists GPUs as NVML sees them, and NVML's version.
func NVMLGPUs(lib nvml.Interface) (version string, out []GPU, err error) {
	sys, err := lib.System()
	if err != nil {
		return "", nil, err
	}
	list, err := lib.GPUs()
	if err != nil {
		return "", nil, err
	}
	for _, g := range list {
		out = append(out, GPU{
			GPU:     record.GPU{Index: g.Index, Name: g.Name, PCI: g.PCI, NUMA: Root("").numaNode(g.PCI), MemoryBytes: g.MemoryBytes, Driver: sys.Driver},
			PCIeGen: g.PCIeMaxGen, PCIeWidth: g.PCIeMaxWidth, NVLinks: len(g.NVLinks),
		})
	}
	return sys.Library, out, nil
}

// CUDAGPUs lists GPUs as the CUDA driver sees them.
func CUDAGPUs(d *cuda.Driver) ([]GPU, error) {
	devices, err := d.Devices()
	if err != nil {
		return nil, err
	}
	var out []GPU
	for _, c := range devices {
		out = append(out, GPU{GPU: record.GPU{Index: c.Ordinal, Name: c.Name, PCI: c.PCI, NUMA: Root("").numaNode(c.PCI),
			MemoryBytes: c.MemoryBytes, Driver: "CUDA " + d.Version().String()}})
	}
	return out, nil
}

// GPUAddress is the PCI address of a CUDA device of this host, "" where there is no
// driver or no such device. It loads libcuda into this process.
func GPUAddress(ordinal int) string {
	d, err := cuda.Load("")
	if err != nil {
		return ""
	}
	g, err := d.Device(ordinal)
	if err != nil {
		return ""
	}
	return g.PCI
}
