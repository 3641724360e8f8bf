package host

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
)

// Ability is what a device can do.
type Ability string

const (
	Yes Ability = "yes"
	No  Ability = "no"
	// Unsure is where no source that was found says it. The device itself is
	// the better witness in any case: see what its probe reported.
	Unsure Ability = "unknown"
)

// EFAType is an EC2 instance type that takes EFA interfaces.
type EFAType struct {
	Type       string
	Generation int    // of EFA as AWS counts it, 0: not told
	Interfaces int    // EFA interfaces that it takes
	LineBits   uint64 // bits per second of all interfaces together
	// RDMA of the device: without it, libfabric makes RMA of messages.
	Read, Write Ability
	// GPUDirect: the NIC reaches GPU memory without a copy through the host.
	GPUDirect Ability
}

// EFASources are where the table of instance types comes from.
var EFASources = []string{
	"interfaces and line rate: EC2 DescribeInstanceTypes (NetworkInfo.EfaInfo, NetworkPerformance), as the generated tables of Karpenter and eksctl had it in August 2026",
	"RDMA read and write: AWS, Elastic Fabric Adapter, Amazon EC2 User Guide (read on Nitro v4 and later, write on most of them); write on p5: the counters quoted in ai-dynamo/nixl#1656; p4d without write: platform table of aws/aws-ofi-nccl",
	"GPUDirect: an AWS maintainer in aws/aws-ofi-nccl#547 (the P series from p4d on) and that project's platform table (g7e)",
	"generation: AWS's announcements of p5 (EFAv2), p5en and trn2 (EFAv3) and p6 (EFAv4)",
}

const gbit = uint64(1_000_000_000)

// efaTypes is what EFASources say. g4dn to g5 and p3dn are Nitro v3, whose EFA
// has no RDMA.
var efaTypes = []EFAType{
	{"g4dn.8xlarge", 1, 1, 50 * gbit, No, No, No},
	{"g4dn.12xlarge", 1, 1, 50 * gbit, No, No, No},
	{"g4dn.16xlarge", 1, 1, 50 * gbit, No, No, No},
	{"g5.8xlarge", 1, 1, 25 * gbit, No, No, No},
	{"g5.12xlarge", 1, 1, 40 * gbit, No, No, No},
	{"g5.16xlarge", 1, 1, 25 * gbit, No, No, No},
	{"g5.24xlarge", 1, 1, 50 * gbit, No, No, No},
	{"g5.48xlarge", 1, 1, 100 * gbit, No, No, No},
	{"g6.8xlarge", 0, 1, 25 * gbit, Unsure, Unsure, No},
	{"g6.12xlarge", 0, 1, 40 * gbit, Unsure, Unsure, No},
	{"g6.16xlarge", 0, 1, 25 * gbit, Unsure, Unsure, No},
	{"g6.24xlarge", 0, 1, 50 * gbit, Unsure, Unsure, No},
	{"g6.48xlarge", 0, 1, 100 * gbit, Unsure, Unsure, No},
	{"gr6.8xlarge", 0, 1, 25 * gbit, Unsure, Unsure, No},
	{"g6e.12xlarge", 0, 1, 100 * gbit, Unsure, Unsure, No},
	{"g6e.24xlarge", 0, 2, 200 * gbit, Unsure, Unsure, No},
	{"g6e.48xlarge", 0, 4, 400 * gbit, Unsure, Unsure, No},
	{"g7e.8xlarge", 0, 1, 100 * gbit, Unsure, Unsure, No},
	{"g7e.12xlarge", 0, 1, 400 * gbit, Unsure, Unsure, Yes},
	{"g7e.24xlarge", 0, 2, 800 * gbit, Unsure, Unsure, Yes},
	{"g7e.48xlarge", 0, 4, 1600 * gbit, Unsure, Unsure, Yes},
	{"p3dn.24xlarge", 1, 1, 100 * gbit, No, No, No},
	{"p4d.24xlarge", 1, 4, 400 * gbit, Yes, No, Yes},
	{"p4de.24xlarge", 1, 4, 400 * gbit, Yes, No, Yes},
	{"p5.4xlarge", 2, 1, 100 * gbit, Unsure, Unsure, Unsure},
	{"p5.48xlarge", 2, 32, 3200 * gbit, Yes, Yes, Yes},
	{"p5e.48xlarge", 2, 32, 3200 * gbit, Yes, Yes, Yes},
	{"p5en.48xlarge", 3, 16, 3200 * gbit, Yes, Yes, Yes},
	{"p6-b200.48xlarge", 4, 8, 3200 * gbit, Yes, Yes, Yes},
	{"p6-b300.48xlarge", 4, 16, 6400 * gbit, Yes, Yes, Yes},
	{"trn1.32xlarge", 0, 8, 800 * gbit, Yes, Unsure, No},
	{"trn1n.32xlarge", 0, 16, 1600 * gbit, Yes, Unsure, No},
	{"trn2.48xlarge", 3, 16, 3200 * gbit, Yes, Yes, No},
}

// LookupEFA is the entry of an EC2 instance type; false where the table has
// none, which says nothing about the type.
func LookupEFA(instance string) (EFAType, bool) {
	i := slices.IndexFunc(efaTypes, func(t EFAType) bool { return t.Type == instance })
	if i < 0 {
		return EFAType{}, false
	}
	return efaTypes[i], true
}

// EmulatedEFA is the firmware of the device that package internal/testenv/efaemu
// stands in for: no real one has it.
const EmulatedEFA = "0.0.0.0"

// sysfs is where the kernel shows devices. On this host the RDMA libraries
// look below $SYSFS_PATH if it is set.
func (r Root) sysfs() string {
	if p := os.Getenv("SYSFS_PATH"); p != "" && r == "" {
		return p
	}
	return "/sys"
}

// RDMAPorts names the active ports of RDMA devices as UCX does, "mlx5_0:1".
func (r Root) RDMAPorts() []string {
	var out []string
	class := filepath.Join(r.sysfs(), "class/infiniband")
	for _, n := range r.names(class) {
		for _, port := range r.names(filepath.Join(class, n, "ports")) {
			// "4: ACTIVE"
			if state := r.text(class, n, "ports", port, "state"); state == "" || strings.Contains(state, "ACTIVE") {
				out = append(out, n+":"+port)
			}
		}
	}
	return out
}

// EFADevices lists the Elastic Fabric Adapters that the kernel's efa driver has, as
// RDMA devices.
func (r Root) EFADevices() []record.NIC {
	return slices.DeleteFunc(r.rdma(), func(n record.NIC) bool { return n.Driver != "efa" })
}

// rdma lists the RDMA devices.
func (r Root) rdma() []record.NIC {
	var out []record.NIC
	class := filepath.Join(r.sysfs(), "class/infiniband")
	for _, n := range r.RDMADevices() {
		base := filepath.Join(class, n)
		nic := record.NIC{Name: n, Kind: "rdma", Firmware: r.text(base, "fw_ver"), DeviceID: r.text(base, "device/device"),
			PCI: r.pci(base), NUMA: r.numa(base), LinkBits: portBits(r.text(base, "ports/1/rate"))}
		if driver, err := os.Readlink(r.path(filepath.Join(base, "device/driver"))); err == nil {
			nic.Driver = filepath.Base(driver)
		}
		nic.Emulated = nic.Driver == "efa" && nic.Firmware == EmulatedEFA
		out = append(out, nic)
	}
	return out
}

// portBits reads the rate of an RDMA port: "100 Gb/sec (4X EDR)".
func portBits(rate string) uint64 {
	word, _, _ := strings.Cut(rate, " ")
	f, err := strconv.ParseFloat(word, 64)
	if err != nil || f < 0 || f > 1e6 {
		return 0
	}
	return uint64(f * 1e9)
}

// PCIDevice is a device on the PCI bus, with a driver or without.
type PCIDevice struct {
	Address        string // "0000:00:06.0"
	Vendor, Device string // ids: "0x1d0f", "0xefa1"
	Driver         string // "" for none
	NUMA           int    // -1: unknown
}

// PCI lists the PCI devices whose vendor and device id keep keeps.
func (r Root) PCI(keep func(PCIDevice) bool) []PCIDevice {
	var out []PCIDevice
	for _, n := range r.names("/sys/bus/pci/devices") {
		base := filepath.Join("/sys/bus/pci/devices", n)
		d := PCIDevice{Address: n, Vendor: r.text(base, "vendor"), Device: r.text(base, "device"), NUMA: -1}
		if !keep(d) {
			continue
		}
		if driver, err := os.Readlink(r.path(filepath.Join(base, "driver"))); err == nil {
			d.Driver = filepath.Base(driver)
		}
		if node, ok := r.number(base, "numa_node"); ok {
			d.NUMA = int(node)
		}
		out = append(out, d)
	}
	return out
}

// EFAOnBus lists the EFA devices on the PCI bus: those that EFADevices lacks
// have no driver.
func (r Root) EFAOnBus() []PCIDevice {
	return r.PCI(func(d PCIDevice) bool { return d.Vendor == "0x1d0f" && strings.HasPrefix(d.Device, "0xefa") })
}

// GPUsOnBus lists the NVIDIA display and 3D controllers on the PCI bus.
func (r Root) GPUsOnBus() []PCIDevice {
	return r.PCI(func(d PCIDevice) bool { return d.Vendor == "0x10de" && r.isGPU(d.Address) })
}

func (r Root) isGPU(address string) bool {
	class := r.text("/sys/bus/pci/devices", address, "class")
	return strings.HasPrefix(class, "0x0300") || strings.HasPrefix(class, "0x0302")
}

// LockedMemory is this process's limit of locked memory in bytes, ^0 for none.
func (r Root) LockedMemory() (soft uint64, ok bool) { return r.limit("Max locked memory") }

// limit is a soft limit of this process, ^0 for none: a line of
// proc_pid_limits(5).
func (r Root) limit(name string) (soft uint64, ok bool) {
	b, err := os.ReadFile(r.path("/proc/self/limits"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		rest, found := strings.CutPrefix(line, name)
		if !found {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 0 {
			return 0, false
		}
		if f[0] == "unlimited" {
			return ^uint64(0), true
		}
		n, err := strconv.ParseUint(f[0], 10, 64)
		return n, err == nil
	}
	return 0, false
}

const hugePages = "/sys/kernel/mm/hugepages/hugepages-2048kB"

// HugePages is the pool of 2 MiB pages: how many there are, and free ones.
func (r Root) HugePages() (total, free int) {
	t, _ := r.number(hugePages, "nr_hugepages")
	f, _ := r.number(hugePages, "free_hugepages")
	return int(t), int(f)
}

// HasModule reports whether the kernel has module name, loaded or built in.
func (r Root) HasModule(name string) bool {
	if _, err := os.Stat(r.path(filepath.Join("/sys/module", name))); err == nil {
		return true
	}
	b, err := os.ReadFile(r.path("/proc/modules"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, _, _ := strings.Cut(line, " "); n == name {
			return true
		}
	}
	return false
}

// PtraceScope is yama's kernel.yama.ptrace_scope, 0 where there is no yama.
func (r Root) PtraceScope() int {
	n, _ := r.number("/proc/sys/kernel/yama/ptrace_scope")
	return int(n)
}

// VerbsFiles opens each file of /dev/infiniband that RDMA libraries need, and
// returns the names and the errors of those that this user may not.
func (r Root) VerbsFiles() (names []string, denied map[string]error) {
	denied = map[string]error{}
	for _, n := range r.names("/dev/infiniband") {
		if !strings.HasPrefix(n, "uverbs") && n != "rdma_cm" {
			continue
		}
		names = append(names, n)
		f, err := os.OpenFile(r.path(filepath.Join("/dev/infiniband", n)), os.O_RDWR, 0)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			denied[n] = err
		}
	}
	return names, denied
}
