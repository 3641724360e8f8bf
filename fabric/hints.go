package fabric

import (
	"slices"

	"github.com/xferbench/xferbench/cgo/loop"
)

// Landing is what proves that a WRITE's data is in the target's memory.
type Landing int

const (
	DeliveryComplete Landing = iota // FI_DELIVERY_COMPLETE on every write
	RemoteCount                     // the target counts remote CQ data and acknowledges
)

// String is "delivery-complete" or "remote-cq-count".
func (l Landing) String() string {
	if l == RemoteCount {
		return "remote-cq-count"
	}
	return "delivery-complete"
}

// Sends is how SEND's messages find their place at the target.
type Sends int

const (
	NoSends Sends = iota // none will be run
	// Tagged messages are received straight into their place.
	Tagged
	// Slots receive messages, and the target copies them to their place: the
	// provider has no tags.
	Slots
)

// Hints say what [Library.Find] looks for. The zero value fits any reliable
// datagram endpoint that can READ and WRITE host memory.
type Hints struct {
	// Provider is libfabric's own name of a provider, "tcp" or "verbs;ofi_rxm",
	// and Fabric that of a fabric of it, "efa-direct"; "" for any.
	Provider, Fabric string
	// Name is what errors call the provider; "": Provider.
	Name string
	// Source is a local IP address, for providers that know a NIC by it; "": any.
	Source string
	// Ops are the operations that will be run; none: READ and WRITE.
	Ops     []loop.Op
	Landing Landing // of WRITE
	// Sends is how SEND works; NoSends, where Ops has SEND, is Tagged.
	Sends Sends
	// CUDA asks for FI_HMEM: regions may be device memory.
	CUDA bool
	// Caps are asked for beside those that the above needs.
	Caps Caps
	// Mode is what the caller lets the provider demand; 0: a context of an
	// endpoint's own with each operation (ModeContext, ModeContext2).
	Mode Mode
	// MRMode is what registration may demand; 0: all that this package does.
	MRMode MRMode
	// AutoProgress leaves to the provider whether threads of its own move data.
	// Unset, data moves while queues are read: an endpoint that is polled all the
	// time would only lose a core to them.
	AutoProgress bool
}

// does reports whether op will be run.
func (h Hints) does(op loop.Op) bool {
	if len(h.Ops) == 0 {
		return op != loop.Send
	}
	return slices.Contains(h.Ops, op)
}

// rma reports whether READ or WRITE will be run.
func (h Hints) rma() bool { return h.does(loop.Read) || h.does(loop.Write) }

// sends is how SEND works, NoSends where it is not run.
func (h Hints) sends() Sends {
	switch {
	case !h.does(loop.Send):
		return NoSends
	case h.Sends == NoSends:
		return Tagged
	}
	return h.Sends
}

// acked reports whether the target acknowledges an operation.
func (h Hints) acked() bool {
	return h.does(loop.Send) || h.does(loop.Write) && h.Landing == RemoteCount
}

// name is what errors call the provider.
func (h Hints) name() string {
	if h.Name != "" {
		return h.Name
	}
	return h.Provider
}

// query is what one fi_getinfo call asks for.
type query struct {
	provider, fabric, node string
	caps                   Caps
	mode                   Mode
	opFlags                uint64
	mrMode                 MRMode
	manual                 bool // FI_PROGRESS_MANUAL
	list                   bool // everything of the provider, for listing
}

// query builds fi_getinfo's hints.
func (h Hints) query() query {
	q := query{
		provider: h.Provider, fabric: h.Fabric, node: h.Source, manual: !h.AutoProgress,
		caps: capMsg | capSend | capRecv | h.Caps, mode: h.Mode, mrMode: h.MRMode,
	}
	if q.mode == 0 {
		q.mode = ModeContext | ModeContext2
	}
	if q.mrMode == 0 {
		q.mrMode = MRLocal | MRVirtAddr | MRAllocated | MRProvKey | MREndpoint
	}
	if h.rma() {
		q.caps |= capRMA | capRead | capWrite | capRemoteRead | capRemoteWrite
	}
	if h.sends() == Tagged {
		q.caps |= capTagged
	}
	if h.CUDA {
		q.caps |= capHMEM
		q.mrMode |= MRHMEM
	}
	if h.does(loop.Write) && h.Landing == DeliveryComplete {
		q.opFlags = opDeliveryComplete
	}
	return q
}
