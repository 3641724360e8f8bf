package efaemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Counters are the names of the traffic counters of a device's port, below
// ports/1/hw_counters. The devices of one Setup call count for all processes:
// what one sends and another receives is in both columns of the same file set.
var Counters = []string{
	"tx_bytes", "tx_pkts", "rx_bytes", "rx_pkts", "rx_drops",
	"send_bytes", "send_wrs", "recv_bytes", "recv_wrs",
	"rdma_read_wrs", "rdma_read_bytes", "rdma_read_wr_err", "rdma_read_resp_bytes",
	"rdma_write_wrs", "rdma_write_bytes", "rdma_write_wr_err", "rdma_write_recv_bytes",
}

// firstSlot is the PCI slot of device 0 (src/device.c has the same).
const firstSlot = 6

// DeviceName returns the name of device i: rdmap0s6, rdmap0s7, ….
func DeviceName(i int) string { return fmt.Sprintf("rdmap0s%d", firstSlot+i) }

// PCIAddress returns the PCI address of device i: 0000:00:06.0, ….
func PCIAddress(i int) string { return fmt.Sprintf("0000:00:%02x.0", firstSlot+i) }

// writeSysfs writes what Linux shows of EFA devices under /sys to root:
// class/infiniband and class/infiniband_verbs, the PCI devices behind them, and
// the driver they are bound to.
func writeSysfs(root string, opt Options) error {
	w := &treeWriter{root: root}
	part, err := opt.Profile.partID()
	if err != nil {
		return err
	}
	w.dir("bus/pci/drivers/efa")
	w.file("class/infiniband_verbs/abi_version", "6")
	for i := range opt.Devices {
		pci := "devices/pci0000:00/" + PCIAddress(i)
		w.file(pci+"/vendor", "0x1d0f")
		w.file(pci+"/device", fmt.Sprintf("0x%04x", part))
		w.file(pci+"/class", "0x020000")
		w.file(pci+"/numa_node", "0")
		w.link(pci+"/driver", "../../../bus/pci/drivers/efa")

		verbs := fmt.Sprintf("class/infiniband_verbs/uverbs%d", i)
		w.file(verbs+"/ibdev", DeviceName(i))
		w.file(verbs+"/abi_version", "1")
		w.link(verbs+"/device", "../../../"+pci)

		ib := "class/infiniband/" + DeviceName(i)
		w.link(ib+"/device", "../../../"+pci)
		w.file(ib+"/fw_ver", FirmwareVersion)
		w.file(ib+"/node_type", "7: unspecified")
		port := ib + "/ports/1"
		w.file(port+"/state", "4: ACTIVE")
		w.file(port+"/phys_state", "5: LinkUp")
		w.file(port+"/rate", "100 Gb/sec (4X EDR)")
		w.file(port+"/link_layer", "Unspecified")
		for _, name := range Counters {
			w.file(port+"/hw_counters/"+name, "0")
		}
	}
	return w.err
}

// A treeWriter writes files below root until the first error.
type treeWriter struct {
	root string
	err  error
}

func (w *treeWriter) dir(path string) {
	if w.err == nil {
		w.err = os.MkdirAll(filepath.Join(w.root, path), 0o700)
	}
}

// file writes a one-line attribute.
func (w *treeWriter) file(path, line string) {
	w.dir(filepath.Dir(path))
	if w.err == nil {
		w.err = os.WriteFile(filepath.Join(w.root, path), []byte(line+"\n"), 0o600)
	}
}

func (w *treeWriter) link(path, target string) {
	w.dir(filepath.Dir(path))
	if w.err == nil {
		w.err = os.Symlink(target, filepath.Join(w.root, path))
	}
}

// Counter reads a traffic counter of device i from a tree that [Setup] made in
// dir.
func Counter(dir string, i int, name string) (uint64, error) {
	path := filepath.Join(dir, "sys/class/infiniband", DeviceName(i), "ports/1/hw_counters", name)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("efaemu: counter: %w", err)
	}
	var n uint64
	if _, err := fmt.Sscan(strings.TrimSpace(string(data)), &n); err != nil {
		return 0, fmt.Errorf("efaemu: counter %s: %q is no number", path, data)
	}
	return n, nil
}
