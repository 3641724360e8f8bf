package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/hosttest"
)

// Line rates and interface counts are those of EC2's pages for the types.
func TestLookupEFA(t *testing.T) {
	for _, want := range []host.EFAType{
		{Type: "g5.12xlarge", Generation: 1, Interfaces: 1, LineBits: 40e9, Read: host.No, Write: host.No, GPUDirect: host.No},
		{Type: "p4d.24xlarge", Generation: 1, Interfaces: 4, LineBits: 400e9, Read: host.Yes, Write: host.No, GPUDirect: host.Yes},
		{Type: "p5.48xlarge", Generation: 2, Interfaces: 32, LineBits: 3200e9, Read: host.Yes, Write: host.Yes, GPUDirect: host.Yes},
		{Type: "p5en.48xlarge", Generation: 3, Interfaces: 16, LineBits: 3200e9, Read: host.Yes, Write: host.Yes, GPUDirect: host.Yes},
	} {
		if got, ok := host.LookupEFA(want.Type); !ok || got != want {
			t.Errorf("%+v", got)
		}
	}
	// Smaller ones of the family have none.
	for _, none := range []string{"g5.xlarge", "g5.4xlarge", "t3.micro", ""} {
		if got, ok := host.LookupEFA(none); ok {
			t.Errorf("%s: %+v", none, got)
		}
	}
}

func TestTrees(t *testing.T) {
	for _, c := range []struct {
		name              string
		first             record.NIC
		efas, gpus, nodes int
		memlock           uint64
		huge              int
		peermem           bool
	}{
		{"g5", record.NIC{Kind: "rdma", Driver: "efa", Name: "rdmap0s6", PCI: "0000:00:06.0", DeviceID: "0xefa0", NUMA: -1, LinkBits: 40e9}, 1, 4, 1, 8 << 20, 0, false},
		{"g5-noefa", record.NIC{}, 0, 4, 1, 8 << 20, 0, false},
		{"p4d", record.NIC{Kind: "rdma", Driver: "efa", Name: "rdmap144s27", PCI: "0000:90:1b.0", DeviceID: "0xefa1", NUMA: 1, LinkBits: 100e9}, 4, 8, 2, ^uint64(0), 5128, false},
		{"p5", record.NIC{Kind: "rdma", Driver: "efa", Name: "rdmap112s23", PCI: "0000:70:17.0", DeviceID: "0xefa2", NUMA: 0, LinkBits: 100e9}, 32, 8, 2, ^uint64(0), 5128, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := hosttest.Unpack(t, c.name)
			devices := r.EFADevices()
			if len(devices) != c.efas || len(r.EFAOnBus()) != c.efas || len(r.GPUsOnBus()) != c.gpus {
				t.Fatalf("%d EFAs (%d on the bus), %d GPUs", len(devices), len(r.EFAOnBus()), len(r.GPUsOnBus()))
			}
			if c.efas > 0 {
				if d := cmp.Diff(c.first, devices[0]); d != "" {
					t.Error(d)
				}
				for _, d := range r.EFAOnBus() {
					if d.Driver != "efa" || d.Device != c.first.DeviceID {
						t.Errorf("%+v", d)
					}
				}
			}
			if m, ok := r.LockedMemory(); !ok || m != c.memlock {
				t.Errorf("locked memory %d, %t", m, ok)
			}
			if total, free := r.HugePages(); total != c.huge || free != c.huge {
				t.Errorf("huge pages %d, %d", total, free)
			}
			if r.HasModule("efa_nv_peermem") != c.peermem || !r.HasModule("ena") || r.HasModule("en") {
				t.Error("modules")
			}
			if names, denied := r.VerbsFiles(); len(names) != c.efas || len(denied) != 0 {
				t.Errorf("%v, %v", names, denied)
			}
			h := r.Inventory()
			if h.NUMANodes != c.nodes || h.OS != "Amazon Linux 2023.6.20241010" {
				t.Errorf("%+v", h)
			}
			if _, ok := host.LookupEFA(h.Instance); !ok {
				t.Errorf("instance %q", h.Instance)
			}
		})
	}
}

func TestLockedMemoryOfThisHost(t *testing.T) {
	soft, ok := host.Root("").LockedMemory()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		t.Fatal(err)
	}
	if !ok || soft != l.Cur {
		t.Errorf("%d, %t; getrlimit says %d", soft, ok, l.Cur)
	}
}

func ExampleLookupEFA() {
	e, _ := host.LookupEFA("g5.12xlarge")
	fmt.Println(e.LineBits/1e9, "Gbit/s, RDMA write:", e.Write)
	// Output: 40 Gbit/s, RDMA write: no
}

// Where $SYSFS_PATH points the RDMA libraries elsewhere, the devices that are
// listed and counted are those, and network interfaces stay this host's.
func TestSysfsPath(t *testing.T) {
	dir := t.TempDir()
	counters := filepath.Join(dir, "class/infiniband/rdmap9s9/ports/1/hw_counters")
	if err := os.MkdirAll(counters, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(counters, "rdma_read_bytes"), []byte("4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(counters, "../rate"), []byte("100 Gb/sec (4X EDR)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SYSFS_PATH", dir)
	u, err := host.Root("").Usage()
	if err != nil || u.Counters["rdmap9s9/rdma_read_bytes"] != 4711 || u.Counters["lo/rx_bytes"] == 0 && len(u.Counters) < 2 {
		t.Errorf("%v, counters %v", err, u.Counters)
	}
	var rdma []string
	for _, n := range host.Root("").NICs() {
		if n.Kind == "rdma" {
			rdma = append(rdma, fmt.Sprint(n.Name, " ", n.LinkBits))
		}
	}
	if len(rdma) != 1 || rdma[0] != "rdmap9s9 100000000000" {
		t.Errorf("RDMA devices %v", rdma)
	}
	// A recorded tree is what it is.
	if u, err := host.Root(t.TempDir()).Usage(); err != nil || len(u.Counters) != 0 {
		t.Errorf("%v, counters of an empty tree %v", err, u.Counters)
	}
}

// The stand-in for an EFA is known by its firmware; another RDMA device is no EFA.
func TestEmulatedDevice(t *testing.T) {
	r := hosttest.Tree(t, map[string]string{
		"sys/bus/pci/drivers/efa/bind":              "",
		"sys/bus/pci/drivers/mlx5_core/bind":        "",
		"sys/class/infiniband/efa_0/fw_ver":         "0.0.0.0",
		"sys/class/infiniband/efa_0/device/device":  "0xefa1",
		"sys/class/infiniband/efa_0/device/driver":  "-> ../../../../bus/pci/drivers/efa",
		"sys/class/infiniband/efa_1/fw_ver":         "1.2.3",
		"sys/class/infiniband/efa_1/device/driver":  "-> ../../../../bus/pci/drivers/efa",
		"sys/class/infiniband/mlx5_0/fw_ver":        "0.0.0.0",
		"sys/class/infiniband/mlx5_0/device/driver": "-> ../../../../bus/pci/drivers/mlx5_core",
		"sys/class/infiniband/mlx5_0/ports/1/rate":  "100 Gb/sec (4X EDR)",
	})
	want := []record.NIC{
		{Name: "efa_0", Kind: "rdma", Driver: "efa", DeviceID: "0xefa1", Firmware: "0.0.0.0", NUMA: -1, Emulated: true},
		{Name: "efa_1", Kind: "rdma", Driver: "efa", Firmware: "1.2.3", NUMA: -1},
		{Name: "mlx5_0", Kind: "rdma", Driver: "mlx5_core", Firmware: "0.0.0.0", NUMA: -1, LinkBits: 100e9},
	}
	if d := cmp.Diff(want, r.NICs()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want[:2], r.EFADevices()); d != "" {
		t.Error(d)
	}
}
