package host

import (
	"path/filepath"
	"strconv"
	"strings"
)

// Path is how two PCI devices reach each other, in the words of
// `nvidia-smi topo -m`, the nearest first.
type Path string

const (
	Same    Path = "same" // one device
	PIX     Path = "PIX"  // through one PCIe bridge or switch
	PXB     Path = "PXB"  // through several PCIe bridges
	PHB     Path = "PHB"  // through the host bridge of one PCIe root
	Node    Path = "NODE" // through host bridges of one NUMA node
	Sys     Path = "SYS"  // between NUMA nodes
	Unknown Path = ""     // sysfs does not know one of them
)

// Rank orders paths: 0 is the nearest, and Unknown is last.
func (p Path) Rank() int {
	for i, q := range []Path{Same, PIX, PXB, PHB, Node, Sys} {
		if p == q {
			return i
		}
	}
	return 6
}

// PCIPath is the way between two PCI devices ("0000:10:1c.0"), a GPU and a NIC for
// instance, by their places in sysfs: the one measure of how near devices are.
//
// Inside a virtual machine the tree is the one that the hypervisor shows: on
// EC2, a GPU and its nearest NICs share a root (PHB).
func (r Root) PCIPath(a, b string) Path {
	pa, pb := r.pciPlace(a), r.pciPlace(b)
	if pa == nil || pb == nil {
		return Unknown
	}
	same := 0
	for same < len(pa) && same < len(pb) && pa[same] == pb[same] {
		same++
	}
	left := max(len(pa)-same, len(pb)-same)
	switch {
	case left == 0:
		return Same
	case same == 0:
		na, nb := r.numaNode(a), r.numaNode(b)
		if na >= 0 && na == nb || na < 0 && nb < 0 && r.oneNode() {
			return Node
		}
		return Sys
	case same == 1: // only the root: pci0000:10
		return PHB
	case left <= 2: // a downstream port and the device
		return PIX
	}
	return PXB
}

// pciPlace is the device's way down from its root: "pci0000:10",
// "0000:10:01.0", "0000:11:00.0".
func (r Root) pciPlace(address string) []string {
	if address == "" {
		return nil
	}
	p, err := filepath.EvalSymlinks(r.path(filepath.Join(r.sysfs(), "bus/pci/devices", strings.ToLower(address))))
	if err != nil {
		return nil
	}
	parts := strings.Split(p, "/")
	for i, s := range parts {
		if strings.HasPrefix(s, "pci") && strings.Contains(s, ":") {
			return parts[i:]
		}
	}
	return nil
}

// numaNode is the node of the PCI device at an address, -1 where sysfs does not know
// it.
func (r Root) numaNode(address string) int {
	if n, ok := r.number(r.sysfs(), "bus/pci/devices", strings.ToLower(address), "numa_node"); ok && address != "" {
		return int(n)
	}
	return -1
}

// oneNode reports whether the host has a single NUMA node.
func (r Root) oneNode() bool { return r.numaNodes() <= 1 }

// numaNodes is how many NUMA nodes the host has, 0 where sysfs does not say.
func (r Root) numaNodes() int {
	n := 0
	for _, name := range r.names("/sys/devices/system/node") {
		if rest, ok := strings.CutPrefix(name, "node"); ok {
			if _, err := strconv.Atoi(rest); err == nil {
				n++
			}
		}
	}
	return n
}
