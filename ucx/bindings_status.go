package ucx

// #include "ucp.h"
import "C"

import "fmt"

// Status is a code of ucs_status_t: negative for a failure. An [*Error] wraps the
// one that the call returned, so that errors.Is(err, ucx.ErrUnreachable) asks for it.
type Status int

// Codes that callers tell apart; ucs/type/status.h has all.
const (
	ErrInProgress     Status = C.UCS_INPROGRESS
	ErrNoMessage      Status = C.UCS_ERR_NO_MESSAGE
	ErrNoResource     Status = C.UCS_ERR_NO_RESOURCE // the queue is full: progress, then try again
	ErrIO             Status = C.UCS_ERR_IO_ERROR
	ErrNoMemory       Status = C.UCS_ERR_NO_MEMORY
	ErrInvalid        Status = C.UCS_ERR_INVALID_PARAM
	ErrUnreachable    Status = C.UCS_ERR_UNREACHABLE
	ErrAddress        Status = C.UCS_ERR_INVALID_ADDR
	ErrNotImplemented Status = C.UCS_ERR_NOT_IMPLEMENTED
	ErrTruncated      Status = C.UCS_ERR_MESSAGE_TRUNCATED
	ErrTooSmall       Status = C.UCS_ERR_BUFFER_TOO_SMALL
	ErrNoElement      Status = C.UCS_ERR_NO_ELEM
	ErrNoDevice       Status = C.UCS_ERR_NO_DEVICE
	ErrBusy           Status = C.UCS_ERR_BUSY
	ErrCanceled       Status = C.UCS_ERR_CANCELED
	ErrSharedMemory   Status = C.UCS_ERR_SHMEM_SEGMENT
	ErrTimedOut       Status = C.UCS_ERR_TIMED_OUT
	ErrLimit          Status = C.UCS_ERR_EXCEEDS_LIMIT
	ErrNotSupported   Status = C.UCS_ERR_UNSUPPORTED
	ErrRejected       Status = C.UCS_ERR_REJECTED
	ErrNotConnected   Status = C.UCS_ERR_NOT_CONNECTED
	ErrReset          Status = C.UCS_ERR_CONNECTION_RESET
)

// ownWords are ucs_status_string's, for when no library is loaded.
var ownWords = map[Status]string{
	ErrInProgress: "Operation in progress", ErrNoMessage: "No pending message",
	ErrNoResource: "No resources are available to initiate the operation", ErrIO: "Input/output error", ErrNoMemory: "Out of memory",
	ErrInvalid: "Invalid parameter", ErrUnreachable: "Destination is unreachable", ErrAddress: "Address not valid",
	ErrNotImplemented: "Function not implemented", ErrTruncated: "Message truncated", ErrTooSmall: "Provided buffer is too small",
	ErrNoElement: "No such element", ErrNoDevice: "No such device", ErrBusy: "Device is busy", ErrCanceled: "Request canceled",
	ErrSharedMemory: "Shared memory error", ErrTimedOut: "Operation timed out", ErrLimit: "User-defined limit was reached",
	ErrNotSupported: "Unsupported operation", ErrRejected: "Operation rejected by remote peer",
	ErrNotConnected: "Endpoint is not connected", ErrReset: "Connection reset by remote peer",
}

// Error is the words of a library that is loaded, else those of a table.
// Wraps: ucs_status_string.
func (s Status) Error() string {
	loading.Lock()
	defer loading.Unlock()
	for _, l := range loaded {
		return C.GoString(C.xb_ucx_status(l.u, C.ucs_status_t(s)))
	}
	return s.words()
}

// words are the code's where no library is loaded.
func (s Status) words() string {
	if w, ok := ownWords[s]; ok {
		return w
	}
	return fmt.Sprintf("UCX status %d", int(s))
}
