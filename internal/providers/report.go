// Package providers finds out what a host can run, and why not: each transport
// and each library is probed in a process of its own, so that one that crashes
// or hangs is a row and not the end of the tool.
package providers

import (
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
)

// Schema is the version of the JSON document.
const Schema = 1

// Report is what a host can run; docs/providers.md describes its keys.
type Report struct {
	Schema    int         `json:"schema"`
	Host      record.Host `json:"host"`
	Libraries []Library   `json:"libraries"`
	Rows      []Row       `json:"providers"`
	GPUs      []GPU       `json:"gpus,omitempty"`
	Checks    []Check     `json:"checks"`
	AWS       *AWS        `json:"aws,omitempty"`
}

// Outcome is how a probe ended.
type Outcome string

const (
	Runs    Outcome = "runs"    // opened
	Absent  Outcome = "absent"  // told why not
	Crashed Outcome = "crashed" // the probe's process died
	Hung    Outcome = "hung"    // the probe was killed at its deadline
)

// Library is a library that is loaded at run time.
type Library struct {
	Name    string  `json:"name"` // libfabric, UCX, libcuda, NVML
	Path    string  `json:"path,omitempty"`
	Version string  `json:"version,omitempty"`
	Outcome Outcome `json:"outcome"`
	Why     string  `json:"why,omitempty"`  // in the loader's words
	Next    string  `json:"next,omitempty"` // step
}

// Row is one provider, named as --provider takes it.
type Row struct {
	Provider string       `json:"provider"`
	API      string       `json:"api"` // libfabric, ucx, socket, memcpy
	Outcome  Outcome      `json:"outcome"`
	Devices  []record.NIC `json:"devices,omitempty"`
	Library  string       `json:"library_path,omitempty"`
	Version  string       `json:"library_version,omitempty"`
	Fabric   string       `json:"fabric,omitempty"`
	// Carrier is the library's own name for what runs: "tcp;ofi_rxm" for tcp.
	Carrier string            `json:"carrier,omitempty"`
	Ops     []string          `json:"ops,omitempty"`     // that can be run
	Landing map[string]string `json:"landing,omitempty"` // by operation
	// RMA says what makes READ and WRITE: "device", "software", "emulated",
	// or both where they differ ("read device, write emulated").
	RMA string `json:"rma,omitempty"`
	// Protocol is the library's own word for what an operation is made of.
	Protocol map[string]string `json:"protocol,omitempty"`
	// GPUMemory: "yes", "no", or "" where there is no GPU to try.
	GPUMemory    string   `json:"gpu_memory,omitempty"`
	GPUMemoryWhy string   `json:"gpu_memory_why,omitempty"`
	Emulated     bool     `json:"emulated_device,omitempty"`
	SharedOff    bool     `json:"shared_memory_forbidden,omitempty"` // efa: a one-host run stays on the NIC
	Why          string   `json:"why,omitempty"`                     // not, in the library's words
	Next         string   `json:"next,omitempty"`                    // step
	Notes        []string `json:"notes,omitempty"`
	TookNs       int64    `json:"took_ns"`
}

// GPU is a device with its nearest NICs.
type GPU struct {
	host.GPU
	Nearest []NearNIC `json:"nearest_nics,omitempty"`
}

// NearNIC is a NIC that no other is nearer than, by PCI path.
type NearNIC struct {
	Name string `json:"name"`
	Path string `json:"path"` // PIX, PXB, PHB, NODE, SYS as nvidia-smi topo
}

// State is a check's verdict.
type State string

const (
	OK   State = "ok"
	Warn State = "warn" // slower or less than could be
	Fail State = "fail" // keeps a provider from running
	Info State = "info"
)

// Check is one thing about the host that transports depend on.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Value string `json:"value"`
	Next  string `json:"next,omitempty"` // step
}

// AWS is what is known of an EC2 instance.
type AWS struct {
	Instance      string       `json:"instance_type"`
	Known         bool         `json:"in_table"`
	Generation    int          `json:"efa_generation,omitempty"` // 0: not told
	Interfaces    int          `json:"efa_interfaces"`           // that the type takes
	LineBits      uint64       `json:"line_bits_per_s"`          // of the type, all interfaces
	Attached      []record.NIC `json:"attached"`
	TableRead     string       `json:"rdma_read_by_type,omitempty"`
	TableWrite    string       `json:"rdma_write_by_type,omitempty"`
	TableGPU      string       `json:"gpudirect_by_type,omitempty"`
	EmulatedRMA   string       `json:"emulated_rma"` // "read, write", "write", "none", "unknown"
	OneHostShared string       `json:"one_host_over_shm"`
	Sources       []string     `json:"sources,omitempty"`
	Checks        []Check      `json:"checks"`
}

// Runnable reports whether a transport runs, the two ceilings (socket and
// memcpy, which run anywhere) not counted.
func (r Report) Runnable() bool {
	for _, row := range r.Rows {
		if row.Outcome == Runs && (row.API == "libfabric" || row.API == "ucx") {
			return true
		}
	}
	return false
}

// Row is the row of provider, nil if there is none.
func (r Report) Row(provider string) *Row {
	for i := range r.Rows {
		if r.Rows[i].Provider == provider {
			return &r.Rows[i]
		}
	}
	return nil
}

// library is the entry of name, nil if there is none.
func (r Report) library(name string) *Library {
	for i := range r.Libraries {
		if r.Libraries[i].Name == name {
			return &r.Libraries[i]
		}
	}
	return nil
}
