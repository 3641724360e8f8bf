// Package cuda binds the part of the CUDA driver API that moves memory: devices,
// their primary contexts, device and pinned memory, copies, streams, events,
// peers and handles for other processes.
//
// libcuda.so.1, part of the driver, is loaded at run time by [Load], through
// package cgo/dl: building needs neither CUDA's headers nor its libraries, a host
// without the driver gets an error that matches [ErrUnavailable] and holds the
// loader's words, and the process keeps its signal actions.
//
// CUDA's current context belongs to an operating-system thread. Each call of this
// package makes its context current and puts the thread's own back, so goroutines
// need no runtime.LockOSThread; [Context.SetCurrent] is for who needs it otherwise.
//
// A call that the driver refuses is an [*Error] with the driver's name and words
// for it, and matches its [Result]: errors.Is(err, cuda.ErrorOutOfMemory).
package cuda
