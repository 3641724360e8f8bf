package transport

import (
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/fabric"
)

// Process names a process across sides: only one of the same boot and pid
// namespace means the same by a number.
type Process struct {
	PID   int    `json:"pid"`
	Boot  string `json:"boot_id"`
	PIDNS string `json:"pid_namespace"`
}

// Self is this process; none where the kernel does not tell.
func Self() Process {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	ns, nerr := os.Readlink("/proc/self/ns/pid")
	if err != nil || nerr != nil {
		return Process{}
	}
	return Process{PID: os.Getpid(), Boot: strings.TrimSpace(string(boot)), PIDNS: ns}
}

// sweepWait is how long Sweep waits for a process that is ending.
const sweepWait = 2 * time.Second

// meet notes the process of another side, before either makes any file.
func (s *Side) meet(p Process) {
	if !slices.Contains(s.theirs, p) {
		s.theirs = append(s.theirs, p)
	}
}

// Sweep removes what the other sides' processes left in /dev/shm when they were
// killed; the sides know each other's before they make any file. It is for the
// end of a run: what a process that lives on has there it waits for a little.
func (s *Side) Sweep() error {
	self := Self()
	end := time.Now().Add(sweepWait)
	var errs []error
	for _, p := range s.theirs {
		if p.PID <= 1 || p.PID == self.PID || p.Boot != self.Boot || p.PIDNS != self.PIDNS {
			continue
		}
		for ; ; time.Sleep(10 * time.Millisecond) {
			left, err := fabric.RemoveShared(p.PID)
			if err != nil || left == 0 || time.Now().After(end) {
				errs = append(errs, err)
				break
			}
		}
	}
	return errors.Join(errs...)
}
