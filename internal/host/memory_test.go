package host

import (
	"errors"
	"strings"
	"testing"
)

const (
	mountV2  = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
	mountV1  = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
	mib      = 1 << 20
	meminfo  = "MemTotal: 65536 kB\nMemAvailable:    4096 kB\nSwapFree: 0 kB"
	noLimits = "Limit                     Soft Limit           Hard Limit           Units\nMax data size             unlimited            unlimited            bytes\nMax address space         unlimited            unlimited            bytes"
)

// The oracle is arithmetic by hand: limit - (used - inactive file).
func TestMemory(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		least uint64
		limit string // words of the least one
	}{
		"no control groups": {map[string]string{}, 4 * mib, "MemAvailable"},
		"v2": {map[string]string{
			"proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/user.slice/a.scope",
			"sys/fs/cgroup/user.slice/a.scope/memory.max":     "3145728",
			"sys/fs/cgroup/user.slice/a.scope/memory.high":    "max",
			"sys/fs/cgroup/user.slice/a.scope/memory.current": "2097152",
			"sys/fs/cgroup/user.slice/a.scope/memory.stat":    "anon 1\nactive_file 524288\ninactive_file 1048576\ninactive_filex 7",
		}, 2 * mib, "/sys/fs/cgroup/user.slice/a.scope/memory.max is 3145728, 1048576 of it are in use"},
		"v2, memory.high": {map[string]string{
			"proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/a",
			"sys/fs/cgroup/a/memory.max": "3145728", "sys/fs/cgroup/a/memory.high": "2097152", "sys/fs/cgroup/a/memory.current": "0",
		}, 2 * mib, "memory.high"},
		"v2, the parent is tighter": {map[string]string{
			"proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/a/b/c",
			"sys/fs/cgroup/a/b/c/memory.max": "max", "sys/fs/cgroup/a/b/c/memory.current": "0",
			"sys/fs/cgroup/a/b/memory.max": "3145728", "sys/fs/cgroup/a/b/memory.current": "1048576",
			"sys/fs/cgroup/a/memory.max": "3145728", "sys/fs/cgroup/a/memory.current": "2097152",
		}, 1 * mib, "/sys/fs/cgroup/a/memory.max"},
		"v2, over its limit": {map[string]string{
			"proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/a",
			"sys/fs/cgroup/a/memory.max": "1048576", "sys/fs/cgroup/a/memory.current": "2097152",
		}, 0, "memory.max"},
		"v2, a namespace's root": {map[string]string{
			"proc/self/mountinfo": mountV2, "proc/self/cgroup": "0::/",
			"sys/fs/cgroup/memory.max": "2097152", "sys/fs/cgroup/memory.current": "0",
		}, 2 * mib, "/sys/fs/cgroup/memory.max"},
		"v2, hybrid": {map[string]string{
			"proc/self/mountinfo": mountV1 + "\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "proc/self/cgroup": "4:memory:/\n0::/a",
			"sys/fs/cgroup/unified/a/memory.max": "2097152", "sys/fs/cgroup/unified/a/memory.current": "0",
		}, 2 * mib, "/sys/fs/cgroup/unified/a"},
		"v1": {map[string]string{
			"proc/self/mountinfo": mountV1, "proc/self/cgroup": "9:cpu,cpuacct:/x\n4:memory:/a/b\n0::/",
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712", "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "1048576",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "3145728", "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "2097152",
			"sys/fs/cgroup/memory/a/memory.stat": "inactive_file 4\ntotal_inactive_file 524288",
		}, 3 * mib / 2, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes is 3145728, 1572864 of it are in use"},
		"v1, a container that sees its own group alone": {map[string]string{
			"proc/self/mountinfo": "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory", "proc/self/cgroup": "4:memory:/docker/abc",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "2097152", "sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
		}, 2 * mib, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"a container, its inner group": {map[string]string{
			"proc/self/mountinfo": "35 31 0:32 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw", "proc/self/cgroup": "0::/docker/abc/in",
			"sys/fs/cgroup/in/memory.max": "2097152", "sys/fs/cgroup/in/memory.current": "0",
		}, 2 * mib, "/sys/fs/cgroup/in/memory.max"},
		"a group that is not mounted": {map[string]string{"proc/self/mountinfo": "", "proc/self/cgroup": "0::/a"}, 4 * mib, "MemAvailable"},
		"address space": {map[string]string{
			"proc/self/limits": strings.Replace(noLimits, "Max address space         unlimited", "Max address space         3145728  ", 1),
			"proc/self/status": "VmSize:\t    1024 kB\nVmData:\t  512 kB",
		}, 2 * mib, "ulimit -v"},
		"data": {map[string]string{
			"proc/self/limits": strings.Replace(noLimits, "Max data size             unlimited", "Max data size             1048576  ", 1),
			"proc/self/status": "VmSize:\t    1024 kB\nVmData:\t  512 kB",
		}, mib / 2, "ulimit -d"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.files["proc/meminfo"] = meminfo
			if tt.files["proc/self/limits"] == "" {
				tt.files["proc/self/limits"] = noLimits
			}
			rooms := tree(t, tt.files).Memory()
			least := rooms[0]
			for _, m := range rooms {
				if m.Bytes < least.Bytes {
					least = m
				}
			}
			if least.Bytes != tt.least || !strings.Contains(least.Limit, tt.limit) {
				t.Errorf("the least of %+v, want %d by %q", rooms, tt.least, tt.limit)
			}
			if err := Fits(rooms, tt.least, 0); err != nil {
				t.Error(err)
			}
			if err := Fits(rooms, tt.least+1, 0); !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), tt.limit) {
				t.Errorf("a byte more: %v", err)
			}
		})
	}
	if rooms := tree(t, map[string]string{"proc/x": ""}).Memory(); len(rooms) != 0 {
		t.Errorf("an unknown host: %+v", rooms)
	}
}

func TestFits(t *testing.T) {
	rooms := []Room{{Bytes: 10, Limit: "host"}, {Bytes: 6, Limit: "own", Process: true}}
	for _, tt := range []struct {
		own, others uint64
		want        string
	}{{6, 4, ""}, {5, 6, "host"}, {7, 0, "own"}, {6, 5, "host"}, {1, ^uint64(0), "host"}} {
		err := Fits(rooms, tt.own, tt.others)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d and %d: %v, want %q", tt.own, tt.others, err, tt.want)
		}
	}
}

func TestHugePool(t *testing.T) {
	r := tree(t, map[string]string{
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":   "8",
		"sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "5",
		"sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages": "2",
	})
	if got := r.HugePool(); len(got) != 1 || got[0].Bytes != 6*mib {
		t.Errorf("%+v, want 3 pages", got)
	}
	if got := tree(t, map[string]string{"proc/x": ""}).HugePool(); len(got) != 1 || got[0].Bytes != 0 {
		t.Errorf("a host without a pool: %+v", got)
	}
}
