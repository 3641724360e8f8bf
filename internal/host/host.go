// Package host reads what a machine is and what its NICs count, from sysfs and
// procfs.
package host

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/record"
)

// Root is where a host's sysfs and procfs stand; "" is this host. Tests give a
// recorded tree.
type Root string

func (r Root) path(p string) string { return string(r) + p }

// text is a one-line file's content, "" when it cannot be read.
func (r Root) text(elem ...string) string {
	b, err := os.ReadFile(r.path(filepath.Join(elem...)))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (r Root) number(elem ...string) (int64, bool) {
	n, err := strconv.ParseInt(r.text(elem...), 10, 64)
	return n, err == nil
}

// names are the entries of a directory, sorted; none when it is absent.
func (r Root) names(dir string) []string {
	es, err := os.ReadDir(r.path(dir))
	if err != nil {
		return nil
	}
	out := make([]string, len(es))
	for i, e := range es {
		out[i] = e.Name()
	}
	return out
}

// Inventory describes the host; what cannot be read is left empty.
func (r Root) Inventory() record.Host {
	h := record.Host{
		OS:       r.osName(),
		Kernel:   r.text("/proc/sys/kernel/osrelease"),
		Hostname: r.text("/proc/sys/kernel/hostname"),
		Arch:     runtime.GOARCH,
		CPUs:     runtime.NumCPU(),
		Instance: r.InstanceType(),
	}
	h.CPUModel = r.field("/proc/cpuinfo", "model name")
	if kb, err := strconv.ParseUint(strings.TrimSuffix(r.field("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		h.MemoryBytes = kb << 10
	}
	h.NUMANodes = r.numaNodes()
	if n, ok := r.number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"); ok {
		h.HugePages = int(n)
	}
	if soft, ok := r.LockedMemory(); ok && soft == ^uint64(0) {
		h.Memlock = "unlimited"
	} else if ok {
		h.MemlockSoft = &soft
	}
	h.NICs = r.NICs()
	return h
}

// field is the value of the first "name : value" line of a procfs file.
func (r Root) field(file, name string) string {
	b, err := os.ReadFile(r.path(file))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (r Root) osName() string {
	for line := range strings.Lines(r.text("/etc/os-release") + "\n") {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return runtime.GOOS
}

// InstanceType is the EC2 instance type, or "" off AWS. On Nitro the DMI
// product name is the type.
func (r Root) InstanceType() string {
	if r.text("/sys/devices/virtual/dmi/id/sys_vendor") != "Amazon EC2" {
		return ""
	}
	return r.text("/sys/devices/virtual/dmi/id/product_name")
}

// NICs lists network interfaces with a device or that are the loopback, and
// RDMA devices.
func (r Root) NICs() []record.NIC {
	var out []record.NIC
	for _, n := range r.names("/sys/class/net") {
		base := filepath.Join("/sys/class/net", n)
		if t := r.text(base, "type"); t != "1" && t != "772" {
			continue // neither Ethernet nor loopback
		}
		nic := record.NIC{Name: n, Kind: "net", NUMA: r.numa(base), PCI: r.pci(base)}
		if mbit, ok := r.number(base, "speed"); ok && mbit > 0 {
			nic.LinkBits = uint64(mbit) * 1_000_000
		}
		if mtu, ok := r.number(base, "mtu"); ok {
			nic.MTU = int(mtu)
		}
		out = append(out, nic)
	}
	return append(out, r.rdma()...)
}

// RDMADevices are the names of the RDMA devices.
func (r Root) RDMADevices() []string { return r.names(filepath.Join(r.sysfs(), "class/infiniband")) }

func (r Root) numa(base string) int {
	if n, ok := r.number(base, "device/numa_node"); ok {
		return int(n)
	}
	return -1
}

func (r Root) pci(base string) string {
	p, err := filepath.EvalSymlinks(r.path(filepath.Join(base, "device")))
	if err != nil {
		return ""
	}
	if b := filepath.Base(p); strings.Count(b, ":") == 2 {
		return b
	}
	return ""
}

// allowed are the environment variables that explain a number and hold no
// secret; see DESIGN on what a record may carry.
var allowed = []string{"CUDA_VISIBLE_DEVICES", "GOMAXPROCS", "LD_PRELOAD", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"}

// allowedPrefixes are of libraries whose every setting matters to a transfer.
var allowedPrefixes = []string{"FI_", "UCX_", "NIXL_", "NCCL_", "XFERBENCH_EFAEMU_", "VLLM_NIXL_"}

// Environment is the part of environ (KEY=VALUE strings) that goes into
// records. XFERBENCH_SECRET and its like never do.
func Environment(environ []string) map[string]string {
	out := map[string]string{}
	for _, kv := range environ {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		if slices.Contains(allowed, k) || slices.ContainsFunc(allowedPrefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			out[k] = v
		}
	}
	return out
}

// Snapshot is what a process has used and its NICs have counted so far.
type Snapshot struct {
	CPUNs       int64             `json:"cpu_ns"` // user and system
	Voluntary   int64             `json:"voluntary_switches"`
	Involuntary int64             `json:"involuntary_switches"`
	Counters    map[string]uint64 `json:"counters"` // "device/name"
}

// Usage reads a Snapshot. Wraps: getrusage(2), proc_net_dev(5), and the
// hw_counters of RDMA ports.
func (r Root) Usage() (Snapshot, error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return Snapshot{}, err
	}
	s := Snapshot{
		CPUNs:     ru.Utime.Nano() + ru.Stime.Nano(),
		Voluntary: ru.Nvcsw, Involuntary: ru.Nivcsw,
		Counters: map[string]uint64{},
	}
	r.netCounters(s.Counters)
	r.rdmaCounters(s.Counters)
	return s, nil
}

// netCounters reads the byte columns of /proc/net/dev.
func (r Root) netCounters(into map[string]uint64) {
	b, err := os.ReadFile(r.path("/proc/net/dev"))
	if err != nil {
		return
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 16 {
			continue
		}
		name = strings.TrimSpace(name)
		for col, key := range map[int]string{0: "rx_bytes", 8: "tx_bytes"} {
			if n, err := strconv.ParseUint(f[col], 10, 64); err == nil {
				into[name+"/"+key] = n
			}
		}
	}
}

// rdmaCounters reads the counters of bytes of every RDMA port.
func (r Root) rdmaCounters(into map[string]uint64) {
	class := filepath.Join(r.sysfs(), "class/infiniband")
	for _, dev := range r.names(class) {
		for _, port := range r.names(filepath.Join(class, dev, "ports")) {
			base := filepath.Join(class, dev, "ports", port)
			for _, dir := range []string{"hw_counters", "counters"} {
				for _, name := range r.names(filepath.Join(base, dir)) {
					if !strings.Contains(name, "bytes") && !strings.HasSuffix(name, "_data") {
						continue
					}
					if n, ok := r.number(base, dir, name); ok {
						into[dev+"/"+name] = uint64(n)
					}
				}
			}
		}
	}
}

// Diff lists how far the counters moved from before to after on one side, the
// ones that did not move left out, sorted by name.
func Diff(side string, before, after Snapshot) []record.Counter {
	var out []record.Counter
	for key, n := range after.Counters {
		if d := n - before.Counters[key]; d != 0 && n >= before.Counters[key] {
			dev, name, _ := strings.Cut(key, "/")
			out = append(out, record.Counter{Side: side, Device: dev, Name: name, Delta: d})
		}
	}
	slices.SortFunc(out, func(a, b record.Counter) int {
		return strings.Compare(a.Device+"/"+a.Name, b.Device+"/"+b.Name)
	})
	return out
}
