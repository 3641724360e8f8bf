package ucx

// #include "ucp.h"
import "C"

import (
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/cgo/loop"
)

// MaxTag is the largest tag of a message.
const MaxTag = 1<<24 - 1

// errNotConnected is returned by operations before Connect.
var errNotConnected = errors.New("ucx: the worker is not connected")

// Get posts a get of p.Len bytes of the peer's region into this side's;
// [Worker.Progress] completes it: the data has landed then. An error matches
// [ErrNoResource] when UCX has no room (progress, then try again), and
// [loop.ErrOutside] when p is outside a region. After any other the worker is only
// good for Close. No group may run the worker. Wraps: ucp_get_nbx.
func (w *Worker) Get(p loop.Piece) error { return w.post(loop.Read, p, 0) }

// Put posts a put of p.Len bytes of this side's region into the peer's, as Get
// does. Completed, the buffer is free again; the data has landed once a [Worker.Flush]
// that came after it has ended. Wraps: ucp_put_nbx.
func (w *Worker) Put(p loop.Piece) error { return w.post(loop.Write, p, 0) }

// TagSend posts n bytes at offset local as a message with tag, at most [MaxTag], for
// the peer's TagRecv of the same tag. Completed, the buffer is free again, and the
// message may still be on its way. Wraps: ucp_tag_send_nbx.
func (w *Worker) TagSend(local, n uint64, tag uint32) error {
	return w.post(loop.Send, loop.Piece{Local: local, Len: n}, tag)
}

// TagRecv posts a receive of at most n bytes into offset local, for the peer's
// TagSend of the same tag. Its errors are those of Get. Wraps: ucp_tag_recv_nbx,
// ucp_request_free, ucp_request_cancel.
func (w *Worker) TagRecv(local, n uint64, tag uint32) error {
	if err := w.check(loop.Send, loop.Piece{Local: local, Len: n}, tag); err != nil {
		return err
	}
	return w.posted(C.xb_ucx_recv(w.lane, C.uint64_t(local), C.uint64_t(n), C.uint32_t(tag)))
}

// Progress drives the worker, which nothing else does. It returns how many operations
// that this side posted have completed since the last call, and how many messages
// have come. An operation that failed is an [*Error]. With GPU memory all calls must
// come from one thread (runtime.LockOSThread). Wraps: ucp_worker_progress.
func (w *Worker) Progress() (completed, received int, err error) {
	if w.lane == nil {
		return 0, 0, errClosed
	}
	var came C.uint64_t
	n := C.xb_ucx_poll(w.lane, &came)
	if n < 0 {
		return 0, int(came), w.failed()
	}
	return int(n), int(came), nil
}

// Flush begins to wait for all that was put before; [Worker.Flushed] says when that
// has landed, while both sides progress. One is in hand at a time: until it has ended,
// another's error matches [ErrNoResource].
// Wraps: ucp_ep_flush_nbx.
func (w *Worker) Flush() error {
	if err := w.ready(); err != nil {
		return err
	}
	if w.flushing {
		landed, err := w.Flushed()
		if err != nil {
			return err
		}
		if !landed {
			return ErrNoResource
		}
	}
	if C.xb_ucx_flush(w.lane) < 0 {
		return w.failed()
	}
	w.flushing = true
	return nil
}

// Flushed reports whether the last Flush has ended.
func (w *Worker) Flushed() (bool, error) {
	if err := w.ready(); err != nil {
		return false, err
	}
	rc := C.xb_ucx_flushed(w.lane)
	if rc < 0 {
		return false, w.failed()
	}
	return rc == 1 && w.flushing, nil
}

func (w *Worker) post(op loop.Op, p loop.Piece, tag uint32) error {
	if err := w.check(op, p, tag); err != nil {
		return err
	}
	piece := C.struct_xb_piece{local: C.uint64_t(p.Local), remote: C.uint64_t(p.Remote), len: C.uint64_t(p.Len)}
	return w.posted(C.xb_ucx_post(w.lane, C.int(op), &piece, C.uint32_t(tag)))
}

func (w *Worker) ready() error {
	switch {
	case w.lane == nil:
		return errClosed
	case !w.connected:
		return errNotConnected
	}
	return nil
}

// check holds an operation within the regions.
func (w *Worker) check(op loop.Op, p loop.Piece, tag uint32) error {
	if err := w.ready(); err != nil {
		return err
	}
	if tag > MaxTag {
		return fmt.Errorf("ucx: tag %d: at most %d", tag, MaxTag)
	}
	if op == loop.Send {
		return p.Within(w.own, p.Len)
	}
	return p.Within(w.own, w.peer)
}

func (w *Worker) posted(rc C.int) error {
	switch {
	case rc > 0:
		return nil
	case rc == 0:
		return ErrNoResource
	}
	return w.failed()
}

// failed is the lane's first failure.
func (w *Worker) failed() error {
	e := &Error{Call: C.GoString(w.lane.failed_call), Status: Status(w.lane.failed_status), Kind: ErrUnavailable}
	if w.lane.failed_call == nil {
		return errors.New(C.GoString(&w.lane.err[0]))
	}
	e.Detail = C.GoString(C.xb_ucx_status(w.c.lib.u, w.lane.failed_status))
	e.Log = w.c.lib.takeLog()
	return e
}
