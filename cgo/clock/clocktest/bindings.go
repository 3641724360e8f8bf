// Package clocktest serves the benchmark of package clock, which cannot use cgo itself.
package clocktest

// #include "work.h"
import "C"

// Work keeps the thread in C for ns and returns how long that was by the clock there.
func Work(ns int64) int64 { return int64(C.xb_work(C.int64_t(ns))) }
