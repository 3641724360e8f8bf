// Package transport is the measuring core: it opens the same transport on two
// sides, lays a plan over their buffers, runs transfers and proves them.
//
// Data flows one way: a Config and a plan go in, samples come out. What a
// transport is made of (libfabric, UCX, kernel sockets, memcpy) ends at the
// interfaces in this file.
package transport

import (
	"context"
	"errors"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
)

// Role is a side of a transfer.
type Role int

const (
	Initiator Role = iota // posts READ, WRITE and SEND, and holds the clock
	Target                // owns the memory that is read or written
)

// Config says how to open a transport; both sides get the same but for Role,
// Bind and Peers. Zero values mean the provider's best.
type Config struct {
	Provider string // as given to --provider: "tcp", "efa", "ucx:tcp", "socket", …
	Role     Role
	// Bind holds the local IP addresses that IP-based providers use, on the
	// route to the peer: one for each rail, since a rail of theirs is an address.
	// Sent to a target, they are the initiator's; the target uses its own
	// addresses on the same routes.
	Bind []string
	// Peers holds the IP addresses from which the other side connects: where this
	// side listens, nobody else may. None: everybody may, and on a target those of
	// the Bind that it was sent. [Admit] reads it.
	Peers []string
	Ops   []loop.Op // that will be run
	// Streams is how many independent endpoints a NIC gets, Rails how many
	// NICs are used; a transport has Streams*Rails lanes.
	Streams, Rails int
	Depth          int    // operations in flight a lane
	Chunk          uint64 // bytes an operation at most
	Poll           loop.Poll
	Timeout        time.Duration
	SameHost       bool // both sides run on one host
	// Device is the CUDA ordinal whose nearest NICs are preferred, or -1.
	Device int
	// Library is the file to load instead of the loader's default
	// (--libfabric, --libucp).
	Library string
	// Options are the user's library settings (--ucx-config).
	Options map[string]string
}

// Errors that decide the exit code.
var (
	// ErrUnavailable: this host cannot run the provider (no device, no
	// library, no permission). The text names the cause in the library's words
	// and the next step.
	ErrUnavailable = fault.New(fault.Unavailable, "transport unavailable")
	// ErrUnsupported: the provider cannot do this operation or memory kind.
	ErrUnsupported = fault.New(fault.Unavailable, "not supported by the transport")
	// ErrNotClosed: the library did not let go of an endpoint in time. Its
	// memory must stay until the process ends.
	ErrNotClosed = errors.New("not closed")
)

// Endpoint is one side of an open transport. Its methods are for one goroutine
// at a time, except Fault.
//
// The order is: Open, Register, exchange Address, Connect on both sides, then
// transfers; Close at last, initiator first or not.
type Endpoint interface {
	// Info says what carries the bytes; complete after Open.
	Info() Info
	// Register makes buf the endpoint's region. Its offsets are those of the
	// plans. The endpoint must be closed before buf is freed.
	Register(buf *mem.Buffer) error
	// Address is what the peer needs: addresses, keys and bases, opaque.
	// Valid after Register.
	Address() ([]byte, error)
	// Connect takes the peer's Address and starts progress.
	Connect(ctx context.Context, peer []byte) error
	// Lanes is how many plans a transfer takes; valid after Open and equal on
	// both sides.
	Lanes() int
	// Arm readies a target for iters transfers of plans, one plan a lane.
	Arm(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) error
	// Settle ends what Arm began and says how many transfers arrived, for
	// operations that the target sees; for others it returns at once.
	Settle(ctx context.Context) (int, error)
	// Transfer runs iters transfers back to back from an initiator. With an
	// error, the samples of those that were completed before it.
	Transfer(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) ([]loop.Sample, error)
	// Fault is the error of an endpoint that failed outside a transfer.
	Fault() error
	// Close returns within Config.Timeout. After an error that matches
	// [ErrNotClosed] the registered buffer may still be written to: it must not
	// be freed.
	Close() error
}

// Info says what an endpoint is made of; it goes into the record.
type Info = record.Transport
