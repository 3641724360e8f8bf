package transport

import (
	"fmt"
	"iter"
	"strings"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
)

// processBytes is what a process takes beside its buffers, rounded up: the Go
// runtime, libraries and their queues.
const processBytes = 64 << 20

// Fits reports, as an error that matches [ErrTooLarge], that a host has not
// enough memory for r and all that the run takes beside it. Without this check
// the kernel would promise the pages and then kill a process for touching them.
func Fits(root host.Root, r MemoryRequest) error {
	own, others := r.Bytes+r.More, r.Others
	var rooms []host.Room
	switch {
	case r.Bytes > 1<<60 || r.More > 1<<60 || r.Others > 1<<60:
		return fmt.Errorf("%w: %d bytes; choose a smaller --size", ErrTooLarge, max(r.Bytes, r.More, r.Others))
	case r.Kind.OnDevice():
		return nil // the driver knows
	case r.Kind == mem.HostHuge:
		rooms = root.HugePool()
	default:
		rooms = root.Memory()
		own += processBytes
		if others > 0 {
			others += processBytes
		}
	}
	err := host.Fits(rooms, own, others)
	if err == nil {
		return nil
	}
	parts := []string{fmt.Sprintf("this side's buffer of %d bytes", r.Bytes)}
	hint := "choose a smaller --size"
	if r.More > 0 {
		parts = append(parts, fmt.Sprintf("%d for memcpy's source", r.More))
		hint += ", or leave memcpy out (--no-ceiling)"
	}
	if r.Others > 0 {
		parts = append(parts, fmt.Sprintf("%d of the other side on this host", r.Others))
	}
	if r.Kind == mem.HostHuge {
		hint += fmt.Sprintf(", or reserve pages: echo %d > /proc/sys/vm/nr_hugepages", (own+others)>>21+2)
	} else {
		parts = append(parts, fmt.Sprintf("%d for each process", processBytes))
	}
	return fmt.Errorf("%w: %w; counted are %s; %s", ErrTooLarge, err, strings.Join(parts, ", "), hint)
}

// BufferBytes is how large a side's buffer must be for moves.
func BufferBytes(moves []Move) (uint64, error) {
	n := uint64(0)
	for _, m := range moves {
		t, err := kv.New(m.KV)
		if err != nil {
			return 0, err
		}
		n = max(n, uint64(t.Bytes))
	}
	return n, nil
}

// Requests are what the sides of a run ask for: the initiator's own buffer, with
// memcpy's sources beside it, and the target's. sameHost says that both take of
// one host's memory.
func Requests(local, peer MemoryRequest, moves []Move, transports []Config, sameHost bool) (MemoryRequest, MemoryRequest, error) {
	n, err := BufferBytes(moves)
	if err != nil {
		return local, peer, err
	}
	local.Bytes, peer.Bytes = n, n
	local.More = 0
	for _, t := range transports {
		if t.Provider == "memcpy" {
			local.More += n
		}
	}
	if sameHost && pool(local.Kind) == pool(peer.Kind) {
		local.Others, peer.Others = n, local.Bytes+local.More
	}
	return local, peer, nil
}

// Share adds to r, a request of a side, what later requests of the run take of the
// same memory: own of the same side, other of the other side.
func (r *MemoryRequest) Share(kind mem.Kind, own, other MemoryRequest, sameHost bool) {
	if pool(own.Kind) == pool(kind) {
		r.More += own.Bytes + own.More
	}
	if sameHost && pool(other.Kind) == pool(kind) {
		r.Others += other.Bytes + other.More
	}
}

// pool is the kind of memory that a kind is taken of.
func pool(k mem.Kind) mem.Kind {
	if k == mem.CUDAHost {
		return mem.Host
	}
	return k
}

// spans are what a transfer of plan writes: on the pieces' Local side, as READ does,
// or on the Remote one.
func spans(plan *loop.Plan, toLocal bool) iter.Seq[mem.Span] {
	return func(yield func(mem.Span) bool) {
		for _, p := range plan.Pieces() {
			s := mem.Span{At: p.Remote, From: p.Local, Len: p.Len}
			if toLocal {
				s.At, s.From = p.Local, p.Remote
			}
			if !yield(s) {
				return
			}
		}
	}
}
