// Package ucx binds UCX's UCP layer for bulk transfers: one-sided put and get,
// tagged send, and what a measurement needs to know of them.
//
// # Order of use
//
// [Load] opens the library, [Library.Open] a [Context] with its settings,
// [Context.Register] makes a region a [Memory], and [Context.NewWorker] a [Worker]
// for it. Both sides exchange [Worker.Address] over a channel of their own, and
// [Worker.Connect]. From then on a worker is driven in one of two ways:
//
//   - operation by operation, with [Worker.Get], [Worker.Put], [Worker.Flush],
//     [Worker.TagSend], [Worker.TagRecv] and [Worker.Progress];
//   - by the measuring loop of package loop, through [Worker.Lane]. From Group.Start
//     to Group.Close the worker belongs to its lane's thread: of its methods only
//     Describe may be called then.
//
// The example shows the first in full. Objects are closed children first: group,
// workers, memory, context. Contexts and what belongs to them are for one goroutine
// at a time.
//
// # Memory and errors
//
// As in package fabric: a region is a [loop.Region] that stays in place until it is
// closed, operations are offsets in the two regions and held within them, and a call
// that UCX refused is an [*Error], in which errors.Is finds a kind ([ErrUnavailable],
// …) and a [Status] ([ErrUnreachable], …).
//
// # What belongs to the process
//
// UCX keeps some things once a process, and so does this package. Who loads UCX by
// other means too should know that the first [Load]:
//
//   - sets UCX_HANDLE_ERRORS=none and UCX_MEM_EVENTS=no in the C environment, unless
//     they are set: Go's signal handlers stay, and libc's mmap is not rewritten beside
//     running threads. Memory is registered by hand alone;
//   - sets UCX_LOG_FILE, unless it is set, to a file in memory that stays open
//     (memfd_create(2)): UCX prints its tables of protocols there, which
//     [Worker.Describe] reads;
//   - takes UCX's log over: UCX writes to standard output, where programs write their
//     results. Its lines are kept for errors and [Context.Notes], the newest 4 KiB of
//     all contexts together, so two that fail at once may find each other's. A user who
//     sets UCX_LOG_LEVEL sees them on standard error, unless UCX_LOG_FILE says
//     otherwise.
//
// Contexts are opened one at a time. A library stays loaded until the process ends,
// with its modules visible to libraries that are loaded later; signal actions are put
// back as they were.
package ucx
