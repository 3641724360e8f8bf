// Package nvml lists the NVIDIA GPUs of a host and the NVLinks between them,
// through NVIDIA's management library.
//
// The library (libnvidia-ml.so.1, part of the driver) is loaded at run time by
// [New], through package cgo/dl: a host without it gets an error with the
// loader's words, and the process keeps its signal actions. [Interface] is what
// callers need of it, so that they can be tested with a [Fake].
// A call that the library refuses is an [*Error] with its own words, and matches its
// [Return].
//
// The functions that are called are bound here, and not through
// github.com/NVIDIA/go-nvml: that module leaves its 400 symbols undefined in the
// binary and counts on lazy binding, so a program that links it dies at start
// under -z now, and linkers without --unresolved-symbols (zig's, which builds the
// release archives) refuse it. It also reports every failed load as "library not
// found". Tests hold this package's structures against that module's nvml.h.
package nvml
