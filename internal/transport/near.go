package transport

import (
	"slices"

	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
)

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
