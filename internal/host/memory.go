package host

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrMemory is matched by the errors of memory that a host does not have.
var ErrMemory = errors.New("more than the memory available")

// Room is how much of a host's memory can still be allocated, and by what it is
// bounded.
type Room struct {
	Bytes uint64
	Limit string // in words: where it comes from
	// Process: it bounds this process alone, not the whole host or control group.
	Process bool
}

// Memory lists what bounds ordinary memory: what the kernel calls available, this
// process's control groups (version 1 and 2, nested ones too) and its own limits
// on address space. What cannot be read bounds nothing.
func (r Root) Memory() []Room {
	var out []Room
	if kb, err := strconv.ParseUint(strings.TrimSuffix(r.field("/proc/meminfo", "MemAvailable"), " kB"), 10, 64); err == nil {
		out = append(out, Room{Bytes: kb << 10, Limit: "MemAvailable in /proc/meminfo"})
	}
	out = append(out, r.cgroups()...)
	return append(out, r.processLimits()...)
}

// HugePool is what bounds memory in 2 MiB pages: the pool, and the process's own
// limits.
func (r Root) HugePool() []Room {
	_, free := r.HugePages()
	reserved, _ := r.number(hugePages, "resv_hugepages")
	pool := Room{Bytes: uint64(max(0, int64(free)-reserved)) << 21, Limit: fmt.Sprintf("%d free pages in %s", free, hugePages)}
	return append([]Room{pool}, r.processLimits()...)
}

// Fits reports, as an error that matches [ErrMemory], whether own bytes for this
// process and others for other processes of this host are more than one of rooms.
func Fits(rooms []Room, own, others uint64) error {
	for _, m := range rooms {
		need := own
		if !m.Process {
			if need += others; need < own {
				need = math.MaxUint64
			}
		}
		if need > m.Bytes {
			return fmt.Errorf("%d bytes are %w: %d bytes (%s)", need, ErrMemory, m.Bytes, m.Limit)
		}
	}
	return nil
}

// mount is a file system of control groups: root is the group that it shows at
// point.
type mount struct{ root, point string }

// cgroupMounts finds the hierarchy of version 2 and the memory hierarchy of
// version 1, by the controllers' name in /proc/self/cgroup ("" for version 2).
func (r Root) cgroupMounts() map[string]mount {
	out := map[string]mount{}
	for line := range strings.Lines(r.text("/proc/self/mountinfo")) {
		// 32 31 0:30 /root /point options [tags] - type source options
		head, tail, ok := strings.Cut(line, " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 5 || len(t) < 3 {
			continue
		}
		switch {
		case t[0] == "cgroup2":
			out[""] = mount{h[3], h[4]}
		case t[0] == "cgroup" && contains(t[2], "memory"):
			out["memory"] = mount{h[3], h[4]}
		}
	}
	return out
}

// contains reports whether a list with commas has word.
func contains(list, word string) bool { return strings.Contains(","+list+",", ","+word+",") }

// cgroups are the memory limits of this process's groups and of all above them.
func (r Root) cgroups() []Room {
	mounts := r.cgroupMounts()
	var out []Room
	for line := range strings.Lines(r.text("/proc/self/cgroup")) {
		// 4:memory:/path, or 0::/path
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		hierarchy := ""
		if controllers != "" {
			if !contains(controllers, "memory") {
				continue
			}
			hierarchy = "memory"
		}
		m, mounted := mounts[hierarchy]
		if !ok || !mounted {
			continue
		}
		// The path starts at the hierarchy's root; a container may see a part of
		// the hierarchy only, from its own group down.
		if m.root != "/" {
			below, ok := strings.CutPrefix(path+"/", m.root+"/")
			if path = "/" + below; !ok {
				path = "/"
			}
		}
		for path = filepath.Clean(path); ; path = filepath.Dir(path) {
			out = append(out, r.cgroup(filepath.Join(m.point, path), hierarchy == "memory")...)
			if path == "/" {
				break
			}
		}
	}
	return out
}

// cgroup are the limits of one group. File cache that nobody uses is given back
// before a limit is reached.
func (r Root) cgroup(dir string, v1 bool) []Room {
	limits, usage, cache := []string{"memory.max", "memory.high"}, "memory.current", "inactive_file"
	if v1 {
		limits, usage, cache = []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"
	}
	used, ok := r.number(dir, usage)
	if !ok {
		return nil
	}
	used -= min(used, r.stat(dir, cache))
	var out []Room
	for _, l := range limits {
		// "max" is no number; version 1's is the largest multiple of the page size.
		if n, ok := r.number(dir, l); ok && n < math.MaxInt64-1<<21 {
			out = append(out, Room{Bytes: uint64(max(0, n-used)),
				Limit: fmt.Sprintf("%s is %d, %d of it are in use", filepath.Join(dir, l), n, used)})
		}
	}
	return out
}

// stat is one number of a group's memory.stat.
func (r Root) stat(dir, name string) int64 {
	f, err := os.Open(r.path(filepath.Join(dir, "memory.stat")))
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), name+" "); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// processLimits are the limits on this process's address space (RLIMIT_AS and
// RLIMIT_DATA).
func (r Root) processLimits() []Room {
	var out []Room
	for _, l := range []struct{ name, used, flag string }{
		{"Max address space", "VmSize", "-v"}, {"Max data size", "VmData", "-d"},
	} {
		limit, ok := r.limit(l.name)
		kb, err := strconv.ParseUint(strings.TrimSuffix(r.field("/proc/self/status", l.used), " kB"), 10, 64)
		if !ok || limit == math.MaxUint64 || err != nil {
			continue
		}
		used := kb << 10
		out = append(out, Room{Bytes: limit - min(limit, used), Process: true,
			Limit: fmt.Sprintf("the process's limit `ulimit %s` is %d, %d of it are in use", l.flag, limit, used)})
	}
	return out
}
