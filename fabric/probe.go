package fabric

import (
	"slices"

	"github.com/xferbench/xferbench/cgo/loop"
)

// Inventory is what a libfabric offers on this host. It is plain data, so that a
// child process can hand it over as JSON.
type Inventory struct {
	Library string  `json:"library_path"`
	Version Version `json:"library_version"`
	API     Version `json:"api_version"` // that was asked for
	// Providers holds one entry for each of [ProviderNames], in that order.
	Providers []ProviderStatus `json:"providers"`
	// Interfaces is all that fi_getinfo lists without hints, each once.
	Interfaces []Attributes `json:"interfaces"`
	// EFADevices names the RDMA devices of the kernel's efa driver, whether or
	// not the library can use them.
	EFADevices []string `json:"efa_devices,omitempty"`
	// EFAEmulated is set when those devices are a stand-in.
	EFAEmulated bool `json:"efa_emulated,omitempty"`
}

// ProviderStatus says whether a provider can move data on this host.
type ProviderStatus struct {
	Name string `json:"name"`
	// Reason is why not, in the library's words and with the next step; "" when
	// it can.
	Reason string `json:"reason,omitempty"`
	// Ops lists what it can do: "read", "write", "send".
	Ops []string `json:"ops,omitempty"`
	// CUDA tells whether regions may be GPU memory.
	CUDA       bool         `json:"cuda"`
	Interfaces []Attributes `json:"interfaces,omitempty"` // one a NIC
	Notes      []string     `json:"notes,omitempty"`
}

// Probe loads libfabric as [Load] does and asks it for everything. A provider's
// own code runs in this process: a caller that must survive its crash calls
// Probe in a child. Wraps: fi_getinfo(3).
func Probe(path string) (*Inventory, error) {
	lib, err := Load(path)
	if err != nil {
		return nil, err
	}
	inv := &Inventory{Library: lib.Path(), Version: lib.Version(), API: lib.API(), EFADevices: efaDevices()}
	all, err := lib.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if !slices.Contains(inv.Interfaces, a) {
			inv.Interfaces = append(inv.Interfaces, a)
		}
		inv.EFAEmulated = inv.EFAEmulated || a.Emulated()
	}
	for _, name := range ProviderNames() {
		inv.Providers = append(inv.Providers, lib.status(name))
	}
	return inv, nil
}

// status tries each operation of a provider by itself.
func (l *Library) status(name string) ProviderStatus {
	s := ProviderStatus{Name: name}
	for _, op := range []loop.Op{loop.Read, loop.Write, loop.Send} {
		f, err := l.Find(Want{Provider: name, Ops: []loop.Op{op}})
		if err != nil {
			if s.Reason == "" {
				s.Reason = err.Error()
			}
			continue
		}
		s.Ops = append(s.Ops, op.String())
		if len(s.Ops) == 1 {
			s.Notes = f.Notes
			for _, i := range f.Interfaces {
				s.Interfaces = append(s.Interfaces, i.Attributes)
			}
		}
		f.Free()
	}
	if len(s.Ops) == 0 {
		return s
	}
	s.Reason = ""
	if f, err := l.Find(Want{Provider: name, Ops: []loop.Op{loop.Read}, CUDA: true}); err == nil {
		s.CUDA = true
		f.Free()
	}
	return s
}

// emulatedFirmware is what no real EFA device reports.
const emulatedFirmware = "0.0.0.0"

// Emulated reports whether the device is a stand-in for an EFA: nothing that is
// measured on it says anything about EFA.
func (a Attributes) Emulated() bool {
	return a.Provider == "efa" && a.NIC.Firmware == emulatedFirmware
}
