// Package fabric moves memory through libfabric: reliable datagram endpoints of
// any provider (efa, tcp, shm, verbs, …), opened, connected and driven the same
// way, for READ, WRITE and SEND.
//
// # Order of use
//
// [Load] opens the library, [Library.Find] asks it what fits [Hints] on this host,
// and [Found.Open] makes an [Endpoint] of one of the answers. Both sides register
// their region, exchange [Endpoint.Address] over a channel of their own, and
// [Endpoint.Connect]. From then on an endpoint is driven in one of two ways:
//
//   - operation by operation, with [Endpoint.Read], [Endpoint.Write],
//     [Endpoint.Send], [Endpoint.Recv] and [Endpoint.Poll], each a call from Go to C;
//   - by the measuring loop of package loop, through [Endpoint.Lane]: one call posts
//     and polls any number of operations, and takes the clock in C.
//
// The example shows the first in full. What to ask libfabric for, and how deep the
// queues are, is the caller's to say; the zero values serve any provider.
//
// # Memory
//
// A region is a [loop.Region]: an address, a length, and whether it is device memory.
// libfabric keeps the address, so the memory must stay in place until the endpoint is
// closed: memory from C does, and that of Go while a runtime.Pinner holds it, see
// [loop.Pinned]. All operations are offsets in the two regions, and are held within
// them. An endpoint has one region and one peer.
//
// # Errors
//
// A call that libfabric refused is an [*Error]. errors.Is finds its kind
// ([ErrUnavailable], …) and its code ([ErrAgain], …) in it; the words are
// libfabric's. The next step is a [Hint], in words that name no program's flags.
//
// # Threads
//
// An Endpoint has a fabric, a domain, queues and an address vector of its own
// and shares nothing with others, so it is opened with FI_THREAD_DOMAIN: one
// thread at a time may use it. While a loop.Group that holds its lane runs,
// that thread is the group's, and only Close after Group.Close may follow.
//
// # The process
//
// Loading sets IPATH_NO_BACKTRACE and HFI_NO_BACKTRACE in the C environment, unless
// they are set, and leaves signal actions as they were. A library stays loaded until
// the process ends. The shm provider and old efa leave files in /dev/shm when their
// process is killed; see [RemoveShared], [RemoveStale].
//
// # API version
//
// fi_getinfo is asked for version 1.18 of the API, or the library's own if that
// is older, whatever headers the package was built with. 1.18 is what NIXL's
// plugin asks for; efa decides by it whether device RDMA is used and whether
// GPU memory is offered, so a number must not depend on who built the binary.
//
// # Landing
//
// A local completion of a write does not say that the data has reached the
// target's memory. READ has landed at its local completion. WRITE is posted with
// FI_DELIVERY_COMPLETE, or carries remote CQ data that the target counts and
// acknowledges once (as NIXL's plugin counts it). Both prove it; counting, which
// moves windows of 16 KiB twice as fast over tcp, where delivery complete answers
// every write, is for measuring loops on both sides. SEND is acknowledged by the
// target's loop once every message has arrived; messages and acknowledgements that
// are short enough for the provider are injected, but on efa.
package fabric
