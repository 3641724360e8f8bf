package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/record"
)

// tree writes files (and links, "-> target") below a temporary root.
func tree(t *testing.T, files map[string]string) Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := cutLink(text); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(text+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Root(dir)
}

func cutLink(s string) (string, bool) {
	if len(s) > 3 && s[:3] == "-> " {
		return s[3:], true
	}
	return "", false
}

func TestInventory(t *testing.T) {
	r := tree(t, map[string]string{
		"proc/cpuinfo":                                          "processor\t: 0\nmodel name\t: AMD EPYC 7R32\n",
		"proc/meminfo":                                          "MemTotal:       65536 kB\nMemFree: 1 kB",
		"proc/sys/kernel/osrelease":                             "6.1.0-amd64",
		"proc/sys/kernel/hostname":                              "node1",
		"etc/os-release":                                        "NAME=x\nPRETTY_NAME=\"Amazon Linux 2023\"",
		"sys/devices/virtual/dmi/id/sys_vendor":                 "Amazon EC2",
		"sys/devices/virtual/dmi/id/product_name":               "g5.12xlarge",
		"sys/devices/system/node/node0/cpulist":                 "0",
		"sys/devices/system/node/node1/cpulist":                 "1",
		"sys/devices/system/node/has_cpu":                       "0",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "64",
		"sys/class/net/eth0/type":                               "1",
		"sys/class/net/eth0/speed":                              "40000",
		"sys/class/net/eth0/mtu":                                "9001",
		"sys/devices/pci0/0000:00:05.0/numa_node":               "0",
		"sys/class/net/eth0/device":                             "-> ../../../devices/pci0/0000:00:05.0",
		"sys/class/net/tun0/type":                               "65534",
		"sys/class/infiniband/rdmap0s6/ports/1/rate":            "100 Gb/sec (4X EDR)",
	})
	h := r.Inventory()
	want := []record.NIC{
		{Name: "eth0", Kind: "net", LinkBits: 40_000_000_000, MTU: 9001, PCI: "0000:00:05.0", NUMA: 0},
		{Name: "rdmap0s6", Kind: "rdma", LinkBits: 100_000_000_000, NUMA: -1},
	}
	if d := cmp.Diff(want, h.NICs); d != "" {
		t.Error(d)
	}
	if h.Hostname != "node1" || h.Kernel != "6.1.0-amd64" || h.OS != "Amazon Linux 2023" || h.CPUModel != "AMD EPYC 7R32" ||
		h.MemoryBytes != 65536<<10 || h.NUMANodes != 2 || h.HugePages != 64 || h.Instance != "g5.12xlarge" {
		t.Errorf("inventory %+v", h)
	}
}

func TestCounters(t *testing.T) {
	r := tree(t, map[string]string{
		"proc/net/dev": "Inter-|   Receive |  Transmit\n face |bytes packets\n" +
			"    lo: 1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n  eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0",
		"sys/class/infiniband/e0/ports/1/hw_counters/rdma_write_bytes": "458752000",
		"sys/class/infiniband/e0/ports/1/hw_counters/lifespan":         "12",
	})
	s, err := r.Usage()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"lo/rx_bytes": 1000, "lo/tx_bytes": 2000, "eth0/rx_bytes": 5, "eth0/tx_bytes": 7, "e0/rdma_write_bytes": 458752000}
	if d := cmp.Diff(want, s.Counters); d != "" {
		t.Error(d)
	}
	before := Snapshot{Counters: map[string]uint64{"lo/rx_bytes": 1000, "lo/tx_bytes": 500, "eth0/rx_bytes": 9, "eth0/tx_bytes": 7}}
	got := Diff("target", before, s)
	wantDiff := []record.Counter{{Side: "target", Device: "e0", Name: "rdma_write_bytes", Delta: 458752000}, {Side: "target", Device: "lo", Name: "tx_bytes", Delta: 1500}}
	if d := cmp.Diff(wantDiff, got); d != "" {
		t.Error(d)
	}
}

func TestEnvironmentHoldsNoSecrets(t *testing.T) {
	got := Environment([]string{"UCX_TLS=tcp", "FI_PROVIDER=efa", "AWS_SECRET_ACCESS_KEY=s", "HF_TOKEN=s", "XFERBENCH_SECRET=s", "HOME=/root", "UCX_NET_DEVICES=a=b"})
	want := map[string]string{"UCX_TLS": "tcp", "FI_PROVIDER": "efa", "UCX_NET_DEVICES": "a=b"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestThisHost(t *testing.T) {
	h := Root("").Inventory()
	if h.CPUs < 1 || h.MemoryBytes == 0 || h.Kernel == "" || h.Hostname == "" {
		t.Errorf("inventory of this host: %+v", h)
	}
	s, err := Root("").Usage()
	if err != nil || s.CPUNs <= 0 {
		t.Errorf("usage %+v, %v", s, err)
	}
}
