package fabric

// #include "ofi.h"
import "C"

import (
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/cgo/loop"
)

// MaxTag is the largest tag of a message.
const MaxTag = 1<<24 - 1

// errNotConnected is returned by operations before Connect.
var errNotConnected = errors.New("fabric: the endpoint is not connected")

// Read posts a READ of p.Len bytes of the peer's region into this side's; [Endpoint.Poll]
// completes it: the data has landed then. An error matches [ErrAgain] when the queue
// is full or not connected yet (poll, then try again), [loop.ErrOutside] when p is
// outside a region, and [ErrUnsupported] when the endpoint was not opened for it.
// No group may run the endpoint. Wraps: fi_read (fi_rma(3)).
func (e *Endpoint) Read(p loop.Piece) error {
	return e.post(loop.Read, p, 0)
}

// Write posts a WRITE of p.Len bytes of this side's region into the peer's, as Read
// does. It has landed once it is completed. The endpoint must have been opened for
// [DeliveryComplete]: counting is an agreement of measuring loops.
// Wraps: fi_writemsg (fi_rma(3)).
func (e *Endpoint) Write(p loop.Piece) error {
	if e.hints.Landing != DeliveryComplete {
		return &Error{Call: "fi_writemsg", Provider: e.provider, Kind: ErrUnsupported, Detail: "the endpoint was not opened for DeliveryComplete"}
	}
	return e.post(loop.Write, p, 0)
}

// Send posts n bytes at offset local as a message with tag, at most [MaxTag], for
// the peer's Recv of the same tag. Completed, the buffer is free again, and the
// message may still be on its way. The endpoint must have been opened for [Tagged].
// Wraps: fi_tsend, fi_tinject (fi_tagged(3)).
func (e *Endpoint) Send(local, n uint64, tag uint32) error {
	return e.post(loop.Send, loop.Piece{Local: local, Len: n}, tag)
}

// Recv posts a receive of at most n bytes into offset local, for the peer's Send of
// the same tag. Its errors are those of Read. Wraps: fi_trecv (fi_tagged(3)).
func (e *Endpoint) Recv(local, n uint64, tag uint32) error {
	if err := e.check(loop.Send, loop.Piece{Local: local, Len: n}, tag); err != nil {
		return err
	}
	return e.posted(C.xb_ofi_recv(e.ep, C.uint64_t(local), C.uint64_t(n), C.uint32_t(tag)))
}

// Poll drives the endpoint, and on most providers is all that does. It returns how
// many operations that this side posted have completed since the last call, and how
// many messages have come. An operation that failed is an [*Error].
// Wraps: fi_cq_read, fi_cq_readerr, fi_cq_strerror (fi_cq(3)).
func (e *Endpoint) Poll() (completed, received int, err error) {
	if e.ep == nil {
		return 0, 0, errClosed
	}
	var came C.uint32_t
	n := C.xb_ofi_poll(e.ep, &came)
	if n < 0 {
		return 0, int(came), e.failed()
	}
	return int(n), int(came), nil
}

func (e *Endpoint) post(op loop.Op, p loop.Piece, tag uint32) error {
	if err := e.check(op, p, tag); err != nil {
		return err
	}
	piece := C.struct_xb_piece{local: C.uint64_t(p.Local), remote: C.uint64_t(p.Remote), len: C.uint64_t(p.Len)}
	return e.posted(C.xb_ofi_post(e.ep, C.int(op), &piece, C.uint32_t(tag)))
}

// check holds an operation within the regions and what the endpoint was opened for.
func (e *Endpoint) check(op loop.Op, p loop.Piece, tag uint32) error {
	most := e.limits.MaxRMA
	if op == loop.Send {
		most = e.limits.MaxMessage
	}
	switch {
	case e.ep == nil:
		return errClosed
	case e.peer.Name == nil || e.region.Len == 0:
		return errNotConnected
	case !e.hints.does(op) || op == loop.Send && e.hints.Sends != Tagged:
		return &Error{Provider: e.provider, Kind: ErrUnsupported, Detail: fmt.Sprintf("the endpoint was not opened for %v", op)}
	case tag > MaxTag:
		return fmt.Errorf("fabric: tag %d: at most %d", tag, MaxTag)
	case p.Len > most:
		return &Error{Provider: e.provider, Errno: ErrTooLong, Kind: ErrUnsupported, Detail: fmt.Sprintf("%d bytes, at most %d", p.Len, most)}
	}
	if op == loop.Send {
		p.Remote = 0
		return p.Within(e.region.Len, p.Len)
	}
	return p.Within(e.region.Len, e.peer.Len)
}

func (e *Endpoint) posted(rc C.int) error {
	switch {
	case rc > 0:
		return nil
	case rc == 0:
		return ErrAgain
	}
	return e.failed()
}

// failed is the last failure of a call.
func (e *Endpoint) failed() error {
	var fe C.struct_xb_ofi_error
	C.xb_ofi_failure(e.ep, &fe)
	err := failure(e.provider, &fe)
	err.Kind = ErrUnavailable
	return err
}
