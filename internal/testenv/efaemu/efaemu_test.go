package efaemu

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPath checks, by the device's own counters, which way the bytes went: RDMA
// by the device, or the provider's emulation of it by messages. Each row is one
// run of one or more transfers of 1,000,000 bytes in 10 operations.
func TestPath(t *testing.T) {
	const size, chunk = 1_000_000, 100_000
	tests := map[string]struct {
		lib     library
		fabric  string
		profile Profile
		ops     []string
		max     int // MaxRDMASize
		// transfers and requests by RDMA read and write; messages carry the rest
		readTransfers, reads, writeTransfers, writes uint64
	}{
		"p5":           {newer, "efa", P5, []string{"read", "write", "writedata"}, 0, 1, 10, 2, 20},
		"p5 in pieces": {newer, "efa", P5, []string{"read", "write"}, 30_000, 1, 40, 1, 40},
		"direct":       {newer, "efa-direct", P5, []string{"read", "write", "writedata"}, 0, 1, 10, 2, 20},
		// A write is turned round: the target reads.
		"p4d": {newer, "efa", P4d, []string{"read", "write"}, 0, 2, 20, 0, 0},
		"g5":  {newer, "efa", G5, []string{"read", "write"}, 0, 0, 0, 0, 0},
		// libfabric 1.17 knows no RDMA write, whatever the device can.
		"1.17 p5": {installed, "efa", P5, []string{"write"}, 0, 1, 10, 0, 0},
		"1.17 g5": {installed, "efa", G5, []string{"write"}, 0, 0, 0, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, env := setup(t, Options{Profile: tt.profile, MaxRDMASize: tt.max})
			args := append([]string{"-f", tt.fabric, "-s", strconv.Itoa(size), "-c", strconv.Itoa(chunk)}, tt.ops...)
			target, initiator := &side{args: args}, &side{args: args}
			run(t, tt.lib, client(t), env, target, initiator)
			checkTransfers(t, tt.lib, tt.profile, tt.ops, size, chunk, target, initiator)

			readBytes, writeBytes := tt.readTransfers*size, tt.writeTransfers*size
			for name, want := range map[string]uint64{
				"rdma_read_bytes": readBytes, "rdma_read_resp_bytes": readBytes, "rdma_read_wrs": tt.reads,
				"rdma_write_bytes": writeBytes, "rdma_write_recv_bytes": writeBytes, "rdma_write_wrs": tt.writes,
				"rdma_read_wr_err": 0, "rdma_write_wr_err": 0, "rx_drops": 0,
			} {
				if got := counter(t, dir, 0, name); got != want {
					t.Errorf("%s = %d, want %d", name, got, want)
				}
			}
			sent, received := counter(t, dir, 0, "send_bytes"), counter(t, dir, 0, "recv_bytes")
			if sent != received {
				t.Errorf("send_bytes %d, recv_bytes %d", sent, received)
			}
			// The payload that RDMA did not carry, and less than an operation's bytes of headers and control packets.
			payload := uint64(len(tt.ops))*size - readBytes - writeBytes
			if sent < payload || sent >= payload+chunk {
				t.Errorf("send_bytes = %d, want %d and a little more", sent, payload)
			}
			if tx, want := counter(t, dir, 0, "tx_bytes"), sent+readBytes+writeBytes; tx != want {
				t.Errorf("tx_bytes = %d, want %d", tx, want)
			}
		})
	}
}

// TestSameHost gives both processes one host's address: libfabric then moves
// the bytes through shared memory, and the device sees none of them.
func TestSameHost(t *testing.T) {
	dir, env := setup(t, Options{SameHost: true})
	args := []string{"-s", "1000000", "-c", "100000", "read", "write"}
	target, initiator := &side{args: args}, &side{args: args}
	run(t, newer, client(t), env, target, initiator)
	if target.exit != 0 || initiator.exit != 0 {
		t.Fatalf("exit %d and %d\n%s%s", target.exit, initiator.exit, target.stderr, initiator.stderr)
	}
	if tx := counter(t, dir, 0, "tx_bytes"); tx != 0 {
		t.Errorf("tx_bytes = %d: the bytes went through the device", tx)
	}
}

// TestSetupTree checks the scratch tree against what libfabric and tools read
// on a real host (documented in sysfs(5) and the kernel's ABI documents).
func TestSetupTree(t *testing.T) {
	dir := t.TempDir()
	env, err := Setup(dir, Options{Library: "/lib/efaemu.so", Profile: P4d, Devices: 2, SendQueue: 4, FailAfter: 9, FailDevice: 1})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"class/infiniband_verbs/abi_version":                               "6",
		"class/infiniband_verbs/uverbs1/ibdev":                             "rdmap0s7",
		"class/infiniband/rdmap0s6/device/vendor":                          "0x1d0f",
		"class/infiniband/rdmap0s7/device/device":                          "0xefa1",
		"class/infiniband/rdmap0s7/fw_ver":                                 "0.0.0.0",
		"class/infiniband/rdmap0s7/ports/1/hw_counters/rdma_write_bytes":   "0",
		"devices/pci0000:00/0000:00:07.0/numa_node":                        "0",
		"class/infiniband/rdmap0s6/ports/1/hw_counters/unexpected_missing": "",
	} {
		data, err := os.ReadFile(filepath.Join(dir, "sys", path))
		if want == "" {
			if !os.IsNotExist(err) {
				t.Errorf("%s exists", path)
			}
			continue
		}
		if got := strings.TrimSuffix(string(data), "\n"); err != nil || got != want {
			t.Errorf("%s = %q (%v), want %q", path, got, err, want)
		}
	}
	for link, want := range map[string]string{
		"class/infiniband/rdmap0s7/device":        "devices/pci0000:00/0000:00:07.0",
		"class/infiniband/rdmap0s7/device/driver": "bus/pci/drivers/efa",
	} {
		got, err := filepath.EvalSymlinks(filepath.Join(dir, "sys", link))
		if err != nil || !strings.HasSuffix(got, want) {
			t.Errorf("%s leads to %s (%v), want %s", link, got, err, want)
		}
	}
	for _, want := range []string{
		"LD_PRELOAD=/lib/efaemu.so", "SYSFS_PATH=" + dir + "/sys", "XFERBENCH_EFAEMU_DIR=" + dir + "/net",
		"XFERBENCH_EFAEMU_PROFILE=p4d", "XFERBENCH_EFAEMU_DEVICES=2", "XFERBENCH_EFAEMU_SQ_DEPTH=4",
		"XFERBENCH_EFAEMU_FAIL_AFTER=9", "XFERBENCH_EFAEMU_FAIL_DEVICE=1", "FI_EFA_ENABLE_SHM_TRANSFER=0",
	} {
		if !strings.Contains("\n"+strings.Join(env, "\n")+"\n", "\n"+want+"\n") {
			t.Errorf("environment %q lacks %s", env, want)
		}
	}
}

func TestSetupRefuses(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	for name, tt := range map[string]struct {
		dir  string
		opt  Options
		want string
	}{
		"profile":      {t.TempDir(), Options{Profile: "p6"}, `profile "p6": want "p5", "p4d" or "g5"`},
		"devices":      {t.TempDir(), Options{Devices: 17}, "Devices is 17, want 1 to 16"},
		"queue":        {t.TempDir(), Options{SendQueue: 1}, "SendQueue is 1, want 2 to 4096"},
		"rdma":         {t.TempDir(), Options{MaxRDMASize: -1}, "MaxRDMASize is -1"},
		"fail device":  {t.TempDir(), Options{FailAfter: 1, FailDevice: 1}, "FailDevice is 1, want -1 to 0"},
		"status":       {t.TempDir(), Options{FailStatus: 16}, "FailStatus is 16, want 0 to 15"},
		"long folder":  {long, Options{Library: "x"}, "longer than the 190 bytes"},
		"used already": {used(t), Options{Library: "x"}, "file exists"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Setup(tt.dir, tt.opt)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// used returns a folder that Setup has been called for.
func used(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Setup(dir, Options{Library: "x"}); err != nil {
		t.Fatal(err)
	}
	return dir
}
