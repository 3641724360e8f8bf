// Package fabric moves memory through libfabric: reliable datagram endpoints of
// any provider (efa, tcp, shm, verbs, …), opened, connected and driven the same
// way, for READ, WRITE and SEND.
//
// # Order of use
//
// [Load] opens the library, [Library.Find] asks it what can run a provider on
// this host, and [Found.Open] makes an [Endpoint] of one of the answers. Both
// sides register their region, exchange [Endpoint.Address] over a channel of
// their own, and [Endpoint.Connect]. From then on the endpoint is driven by the
// measuring loop of package loop through [Endpoint.Lane]:
//
//	lib, err := fabric.Load("")
//	found, err := lib.Find(fabric.Hints{Provider: "tcp", Source: "127.0.0.1"})
//	ep, err := found.Open(found.Interfaces[0], fabric.EndpointConfig{…})
//	err = ep.Register(loop.Region{Address: …, Len: …})
//	err = ep.Connect(peer)
//	group, err := loop.NewGroup([]loop.Lane{ep.Lane()}, …)
//
// # Threads
//
// An Endpoint has a fabric, a domain, queues and an address vector of its own
// and shares nothing with others, so it is opened with FI_THREAD_DOMAIN: one
// thread at a time may use it. While an loop.Group that holds its lane runs,
// that thread is the group's, and only Close after Group.Close may follow.
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
// acknowledges once (as NIXL's plugin counts it). Both prove it; over tcp, where
// delivery complete answers every write, counting moves windows of 16 KiB twice as
// fast, so it is tried first there, and delivery complete elsewhere. SEND is
// acknowledged by the target once every message has arrived; messages and
// acknowledgements that are short enough for the provider are injected, but on efa.
package fabric
