// Package clock reads the one clock of every measurement.
package clock

/*
#include <stdint.h>
#include <time.h>
static int64_t xb_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
*/
import "C"

// Now is the time in ns on CLOCK_MONOTONIC_RAW: the hardware counter without
// NTP slewing, so that two readings differ by elapsed time and nothing else.
// It is comparable within one boot of one host only. The measuring loop reads
// the same clock in C. Wraps: clock_gettime(2).
func Now() int64 { return int64(C.xb_now()) }
