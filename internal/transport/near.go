package transport

import (
	"cmp"
	"slices"

	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
)

// FabricNIC is an interface's NIC; one without a name has its domain's.
func FabricNIC(a fabric.Attributes) record.NIC {
	n := a.NIC
	return record.NIC{Name: cmp.Or(n.Name, a.Domain), Firmware: n.Firmware, Driver: n.Driver, DeviceID: n.DeviceID, PCI: n.PCI,
		NUMA: n.NUMA, LinkBits: n.LinkBits, MTU: int(n.MTU), Emulated: standIn(a)}
}

// nearestFirst orders interfaces by how near their NICs are to the PCI device gpu, in
// the order given where that is the same, and returns how many are nearest: 0 where
// sysfs knows none of them.
func nearestFirst(root host.Root, all []fabric.Interface, gpu string) int {
	path := func(i fabric.Interface) host.Path { return root.PCIPath(i.NIC.PCI, gpu) }
	slices.SortStableFunc(all, func(a, b fabric.Interface) int { return path(a).Rank() - path(b).Rank() })
	n := 0
	for n < len(all) && path(all[n]) == path(all[0]) && path(all[n]) != host.Unknown {
		n++
	}
	return n
}
