package cuda

// #include "cuda.h"
import "C"

import (
	"time"
	"unsafe"
)

// Stream is a queue of work on a device, in order in itself and apart from the
// default stream. Host memory of its copies is [Context.AllocHost]'s or other
// memory that is not the Go heap's, and stays until they are done. After Close its
// methods fail with [ErrorInvalidHandle].
type Stream struct {
	c *Context
	h unsafe.Pointer
}

// NewStream makes a stream. Wraps: cuStreamCreate.
func (c *Context) NewStream() (*Stream, error) {
	var e C.struct_xb_cuda_error
	s := &Stream{c: c}
	if err := fault(C.xb_cuda_stream_new(c.d.c, &e, c.h, &s.h), &e); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the stream once its work is done, without waiting for that. It may be
// called twice. Wraps: cuStreamDestroy_v2.
func (s *Stream) Close() error {
	if s.h == nil {
		return nil
	}
	var e C.struct_xb_cuda_error
	err := fault(C.xb_cuda_stream_free(s.c.d.c, &e, s.c.h, s.h), &e)
	s.h = nil
	return err
}

// Handle is the CUstream, for C code; nil after Close.
func (s *Stream) Handle() unsafe.Pointer { return s.h }

// Wait waits for the stream's work, for as long as it takes; Query is for waits with a
// deadline. Wraps: cuStreamSynchronize.
func (s *Stream) Wait() error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_stream_wait(s.c.d.c, &e, s.c.h, s.h), &e)
}

// Query reports whether the stream's work is done. Wraps: cuStreamQuery.
func (s *Stream) Query() (bool, error) {
	var e C.struct_xb_cuda_error
	var done C.int
	err := fault(C.xb_cuda_stream_query(s.c.d.c, &e, s.c.h, s.h, &done), &e)
	return done != 0, err
}

// After makes the stream's later work wait for ev. Wraps: cuStreamWaitEvent.
func (s *Stream) After(ev *Event) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_stream_after(s.c.d.c, &e, s.c.h, s.h, ev.h), &e)
}

// Record notes in ev where the stream stands now. Wraps: cuEventRecord.
func (s *Stream) Record(ev *Event) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_event_record(s.c.d.c, &e, s.c.h, ev.h, s.h), &e)
}

// Set queues value over n bytes at dst. Wraps: cuMemsetD8Async.
func (s *Stream) Set(dst Pointer, value byte, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_set_async(s.c.d.c, &e, s.c.h, s.h, C.uint64_t(dst), C.uchar(value), C.size_t(n)), &e)
}

// CopyToDevice queues a copy of n bytes of host memory. Wraps: cuMemcpyHtoDAsync_v2.
func (s *Stream) CopyToDevice(dst Pointer, src unsafe.Pointer, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_to_device_async(s.c.d.c, &e, s.c.h, s.h, C.uint64_t(dst), src, C.size_t(n)), &e)
}

// CopyFromDevice queues a copy of n bytes to host memory.
// Wraps: cuMemcpyDtoHAsync_v2.
func (s *Stream) CopyFromDevice(dst unsafe.Pointer, src Pointer, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_from_device_async(s.c.d.c, &e, s.c.h, s.h, dst, C.uint64_t(src), C.size_t(n)), &e)
}

// Copy queues a copy of n bytes on the device. Wraps: cuMemcpyDtoDAsync_v2.
func (s *Stream) Copy(dst, src Pointer, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_on_device_async(s.c.d.c, &e, s.c.h, s.h, C.uint64_t(dst), C.uint64_t(src), C.size_t(n)), &e)
}

// CopyPeer queues a copy of n bytes from src, on the stream's device, to dst on
// peer's. Wraps: cuMemcpyPeerAsync.
func (s *Stream) CopyPeer(peer *Context, dst, src Pointer, n uint64) error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_to_peer_async(s.c.d.c, &e, s.c.h, s.h, peer.h, C.uint64_t(dst), C.uint64_t(src), C.size_t(n)), &e)
}

// Event is a place in a stream's work, with its time. After Close its methods fail
// with [ErrorInvalidHandle].
type Event struct {
	c *Context
	h unsafe.Pointer
}

// NewEvent makes an event. Wraps: cuEventCreate.
func (c *Context) NewEvent() (*Event, error) {
	var e C.struct_xb_cuda_error
	ev := &Event{c: c}
	if err := fault(C.xb_cuda_event_new(c.d.c, &e, c.h, &ev.h), &e); err != nil {
		return nil, err
	}
	return ev, nil
}

// Close ends the event. It may be called twice. Wraps: cuEventDestroy_v2.
func (ev *Event) Close() error {
	if ev.h == nil {
		return nil
	}
	var e C.struct_xb_cuda_error
	err := fault(C.xb_cuda_event_free(ev.c.d.c, &e, ev.c.h, ev.h), &e)
	ev.h = nil
	return err
}

// Wait waits until the stream has passed the event, for as long as it takes; Query is
// for waits with a deadline. Wraps: cuEventSynchronize.
func (ev *Event) Wait() error {
	var e C.struct_xb_cuda_error
	return fault(C.xb_cuda_event_wait(ev.c.d.c, &e, ev.c.h, ev.h), &e)
}

// Query reports whether the stream has passed the event; one that was never
// recorded has been passed. Wraps: cuEventQuery.
func (ev *Event) Query() (bool, error) {
	var e C.struct_xb_cuda_error
	var done C.int
	err := fault(C.xb_cuda_event_query(ev.c.d.c, &e, ev.c.h, ev.h, &done), &e)
	return done != 0, err
}

// Since is the time on the device between two events that were passed, to about
// half a microsecond. Wraps: cuEventElapsedTime.
func (ev *Event) Since(from *Event) (time.Duration, error) {
	var e C.struct_xb_cuda_error
	var ms C.float
	err := fault(C.xb_cuda_event_elapsed(ev.c.d.c, &e, ev.c.h, from.h, ev.h, &ms), &e)
	return time.Duration(float64(ms) * 1e6), err
}
