package transport

import (
	"os"
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

// Sweep removes what the other side's process left in /dev/shm when it was
// killed; both sides know each other's before they make any file. It is for the
// end of a run: what a process that lives on has there it waits for a little.
func (s *Side) Sweep() error {
	self := Self()
	if p := s.Their; p.PID <= 1 || p.PID == self.PID || p.Boot != self.Boot || p.PIDNS != self.PIDNS {
		return nil
	}
	for end := time.Now().Add(sweepWait); ; time.Sleep(10 * time.Millisecond) {
		left, err := fabric.RemoveShared(s.Their.PID)
		if err != nil || left == 0 || time.Now().After(end) {
			return err
		}
	}
}
