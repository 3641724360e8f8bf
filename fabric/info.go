package fabric

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/cgo/loop"
)

// Version is a libfabric API version.
type Version struct{ Major, Minor int }

// String is "1.17".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// MarshalText is String.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what String writes.
func (v *Version) UnmarshalText(b []byte) error {
	major, minor, ok := strings.Cut(string(b), ".")
	a, err1 := strconv.ParseUint(major, 10, 16)
	i, err2 := strconv.ParseUint(minor, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("version %q: want MAJOR.MINOR", b)
	}
	*v = Version{int(a), int(i)}
	return nil
}

// Less reports whether v is older than w.
func (v Version) Less(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

// APIVersion is what fi_getinfo is asked for when the library knows it; see the
// package's description for why it is not the newest.
var APIVersion = Version{1, 18}

// Landing is what proves that a WRITE's data is in the target's memory.
type Landing int

const (
	LandingAuto      Landing = iota // RemoteCount over tcp, DeliveryComplete elsewhere, the other where it is refused
	DeliveryComplete                // FI_DELIVERY_COMPLETE on every write
	RemoteCount                     // the target counts remote CQ data and acknowledges
)

// String is the word used in records.
func (l Landing) String() string {
	switch l {
	case DeliveryComplete:
		return "delivery-complete"
	case RemoteCount:
		return "remote-cq-count"
	}
	return "auto"
}

// Sends is how SEND's messages find their place at the target.
type Sends int

const (
	NoSends Sends = iota // none will be run
	// Tagged messages are received straight into their place.
	Tagged
	// Slots receive messages, and the target copies them to their place: the
	// provider has no tags.
	Slots
)

// Want says what an interface must be able to do.
type Want struct {
	Provider string    // a name that [ParseProvider] reads
	Ops      []loop.Op // that will be run
	// Bind is the local IP address whose interface IP-based providers use.
	Bind string
	// CUDA asks for FI_HMEM: the region is device memory.
	CUDA bool
	// Landing of WRITE.
	Landing Landing
	// NoShared forbids efa to carry same-host traffic over shared memory.
	NoShared bool
}

// does reports whether op will be run.
func (w Want) does(op loop.Op) bool {
	for _, o := range w.Ops {
		if o == op {
			return true
		}
	}
	return false
}

// rma reports whether READ or WRITE will be run.
func (w Want) rma() bool { return w.does(loop.Read) || w.does(loop.Write) }

// NIC is the device below an interface. Fields that the provider does not tell
// are taken from sysfs where it knows the device, and are zero otherwise.
type NIC struct {
	Name     string `json:"name,omitempty"` // "rdmap0s6", "eth0"
	Driver   string `json:"driver,omitempty"`
	DeviceID string `json:"device_id,omitempty"` // of the PCI device: "0xefa2"
	Firmware string `json:"firmware,omitempty"`
	PCI      string `json:"pci,omitempty"`             // "0000:00:06.0"
	NUMA     int    `json:"numa"`                      // node, -1: unknown
	LinkBits uint64 `json:"link_bits_per_s,omitempty"` // 0: unknown
	LinkUp   bool   `json:"link_up,omitempty"`         // as the provider says
	MTU      uint64 `json:"mtu_bytes,omitempty"`       // 0: unknown
	Network  string `json:"network,omitempty"`         // "ethernet", "InfiniBand"
}

// Attributes are what fi_getinfo says of an interface.
type Attributes struct {
	Provider        string  `json:"provider"`
	Fabric          string  `json:"fabric"`
	Domain          string  `json:"domain"`
	ProviderVersion Version `json:"provider_version"`
	Type            string  `json:"type"`            // "rdm", "msg" or "dgram"
	ManualProgress  bool    `json:"manual_progress"` // data moves only while queues are read
	MRMode          int     `json:"mr_mode"`         // FI_MR_* bits
	MaxMessage      uint64  `json:"max_message_bytes"`
	TxSize          int     `json:"tx_size"` // operations in flight
	RxSize          int     `json:"rx_size"`
	CQDataSize      int     `json:"cq_data_bytes"`
	NIC             NIC     `json:"nic"`
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
