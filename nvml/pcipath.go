package nvml

import (
	"os"
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

// PCIPath is the way between two PCI devices ("0000:10:1c.0"), a GPU and a NIC
// for instance, by their places in the sysfs tree at root ("/sys").
//
// Inside a virtual machine the tree is the one that the hypervisor shows: on
// EC2, a GPU and its nearest NICs share a root (PHB).
func PCIPath(root, a, b string) Path {
	pa, pb := pciPlace(root, a), pciPlace(root, b)
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
		na, nb := numaNode(root, a), numaNode(root, b)
		if na >= 0 && na == nb || na < 0 && nb < 0 && oneNode(root) {
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
func pciPlace(root, address string) []string {
	if address == "" {
		return nil
	}
	p, err := filepath.EvalSymlinks(filepath.Join(root, "bus/pci/devices", strings.ToLower(address)))
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

// numaNode is the node of a PCI device, -1 where sysfs does not know it.
func numaNode(root, address string) int {
	b, err := os.ReadFile(filepath.Join(root, "bus/pci/devices", strings.ToLower(address), "numa_node"))
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}

// oneNode reports whether the host has a single NUMA node.
func oneNode(root string) bool {
	nodes, err := filepath.Glob(filepath.Join(root, "devices/system/node/node[0-9]*"))
	return err == nil && len(nodes) <= 1
}
