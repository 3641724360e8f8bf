package sim

import (
	"context"
	"errors"
	"time"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/transport"
)

// Mover moves KV cache out of the memory of prefill engines into that of a
// decode engine. Each engine has one. Its methods may be called from several
// goroutines.
type Mover interface {
	// Export offers memory to peers until Close. It is called once, before
	// Address. The memory stays the engine's and outlives the mover.
	Export(memory *mem.Buffer, leases Leases) error
	// Address is where peers reach this mover; it names no request.
	Address() Remote
	// Pull reads a list from a peer's exported memory into memory, whose pieces no
	// one else touches meanwhile, and tells the peer that it may release them.
	Pull(ctx context.Context, from Remote, memory *mem.Buffer, list transport.List) (Moved, error)
	// Close ends exports and connections and waits for transfers to end.
	Close() error
}

// Leases is how a mover asks the owner of exported memory.
type Leases struct {
	// Begin reports whether the blocks of a request are still there to be read.
	Begin func(request string) error
	// Cut says that the owner dies in the middle of this transfer (a fault).
	Cut func(request string) bool
	// Done says that a rank has read the request's blocks, and what it read. After the
	// last rank they can be released.
	Done func(request string, m Moved)
}

// Remote names what is pulled.
type Remote struct {
	Host    string
	Port    int
	Token   string // that lets a peer in
	Request string // the prefill engine's request id
}

// Moved is what a pull did, in NIXL's terms.
type Moved struct {
	Bytes       int64
	Descriptors int
	Post        time.Duration // of submission
	Total       time.Duration // from the start of submission until the data is in place
}

// ErrLease says that a peer has no such blocks: the lease is over.
var ErrLease = errors.New("the peer does not hold these blocks any more")
