// Package wait waits until a time more exactly than the Go runtime's timers.
package wait

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// precise counts the waits that end in a system call of their own.
var precise atomic.Int32

const (
	maxPrecise = 8
	coarse     = 2 * time.Millisecond
)

// Until waits until t or until ctx is done, whose error it then returns. Timers of the Go runtime are up to a millisecond
// late on an idle system, because epoll_wait counts in milliseconds; as long
// as few requests wait, the last stretch is left to clock_nanosleep(2), which is
// some 50 µs late.
func Until(ctx context.Context, t time.Time) error {
	left := time.Until(t)
	if left <= 0 {
		return ctx.Err()
	}
	fine := precise.Add(1) <= maxPrecise
	defer precise.Add(-1)
	if !fine || left > coarse {
		d := left
		if fine {
			d -= coarse
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for fine {
		if left = time.Until(t); left <= 0 {
			break
		}
		ts := unix.NsecToTimespec(left.Nanoseconds())
		// EINTR only makes the loop go round once more.
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
	}
	return ctx.Err()
}
