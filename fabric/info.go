package fabric

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/cgo/dl"
)

// Version is a version of libfabric or of a provider.
type Version = dl.Version

// NIC is the device below an interface. Fields that the provider does not tell
// are taken from sysfs where it knows the device, and are zero otherwise.
type NIC struct {
	Name     string // "rdmap0s6", "eth0"
	Driver   string
	DeviceID string // of the PCI device: "0xefa2"
	Firmware string
	PCI      string // "0000:00:06.0"
	NUMA     int    // node, -1: unknown
	LinkBits uint64 // 0: unknown
	LinkUp   bool   // as the provider says
	MTU      uint64 // 0: unknown
	Network  string // "ethernet", "InfiniBand"
}

// Attributes are what fi_getinfo says of an interface.
type Attributes struct {
	Provider        string
	Fabric          string
	Domain          string
	ProviderVersion Version
	Type            string // "rdm", "msg" or "dgram"
	ManualProgress  bool   // data moves only while queues are read
	MRMode          MRMode // what registration demands
	MaxMessage      uint64
	TxSize          int // operations in flight
	RxSize          int
	CQDataSize      int
	NIC             NIC
}

// sysfs is where the kernel shows its devices; the RDMA libraries look for
// theirs below $SYSFS_PATH, as libibverbs does.
func sysfs() string {
	if p := os.Getenv("SYSFS_PATH"); p != "" {
		return p
	}
	return "/sys"
}

// completeNIC adds what sysfs knows and the provider did not tell.
func completeNIC(n *NIC, domain string) {
	n.NUMA = -1
	if n.Name == "" {
		if _, err := os.Stat("/sys/class/net/" + domain); err != nil || domain == "" || strings.Contains(domain, "/") {
			return
		}
		n.Name = domain
	}
	dir := filepath.Join("/sys/class/net", filepath.Base(n.Name))
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Join(sysfs(), "class/infiniband", filepath.Base(n.Name))
	} else {
		if mbit, err := readInt(dir + "/speed"); err == nil && mbit > 0 && n.LinkBits == 0 {
			n.LinkBits = uint64(mbit) * 1e6
		}
		if mtu, err := readInt(dir + "/mtu"); err == nil && n.MTU == 0 {
			n.MTU = uint64(mtu)
		}
	}
	if node, err := readInt(dir + "/device/numa_node"); err == nil {
		n.NUMA = node
	}
	if target, err := filepath.EvalSymlinks(dir + "/device"); err == nil && n.PCI == "" {
		if base := filepath.Base(target); strings.Count(base, ":") == 2 {
			n.PCI = base
		}
	}
}

func readInt(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
