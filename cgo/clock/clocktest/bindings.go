// Package clocktest serves the benchmark of package clock, which cannot use cgo itself.
package clocktest

/*
#include <stdint.h>
#include <time.h>
static int64_t xb_clock(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static int64_t xb_work(int64_t ns)
{
	int64_t begin = xb_clock(), end;
	do
		end = xb_clock();
	while (end - begin < ns);
	return end - begin;
}
*/
import "C"

// Work keeps the thread in C for ns and returns how long that was by the clock there.
func Work(ns int64) int64 { return int64(C.xb_work(C.int64_t(ns))) }
