package mem

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ErrTooLarge is matched by the error of a buffer that the host's free memory
// cannot hold. Without this check the kernel would promise the pages and then
// kill a process for touching them.
var ErrTooLarge = errors.New("more than the memory available")

// Available is how many bytes this process can still allocate: what the kernel
// calls available, or what is left of the control group's limit if that is
// less. 0 means unknown.
func Available() uint64 {
	free := uint64(0)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
				kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
				if err == nil {
					free = kb << 10
				}
			}
		}
	}
	limit, ok1 := number("/sys/fs/cgroup/memory.max")
	used, ok2 := number("/sys/fs/cgroup/memory.current")
	if ok1 && ok2 && limit > used && limit-used < free {
		free = limit - used
	}
	return free
}

func number(file string) (uint64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

func fits(length int) error {
	if free := Available(); free > 0 && uint64(length) > free {
		return fmt.Errorf("%d bytes are %w (%d bytes); choose a smaller --size", length, ErrTooLarge, free)
	}
	return nil
}
