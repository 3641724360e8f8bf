package raw

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/transport"
)

// memories are the buffers of one combination of --memory and --peer-memory, of
// the same number on both sides.
type memories struct {
	local, peer transport.MemoryRequest
	word        string // for labels
	// LocalNs and PeerNs are how long allocating took.
	localNs, peerNs int64
}

// combine crosses the kinds of memory of both sides; where the peer's is not
// given, it is of the same kind.
func combine(r *spec.RawWorkload) (out []memories, err error) {
	for _, l := range r.Memory {
		theirs := r.PeerMemory
		if len(theirs) == 0 {
			theirs = spec.List[string]{l}
		}
		for _, p := range theirs {
			m := memories{word: l}
			if p != l {
				m.word = l + "-" + p
			}
			if m.local, err = memory(l); err != nil {
				return nil, err
			}
			if m.peer, err = memory(p); err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(out, func(o memories) bool { return o.word == m.word }) {
				m.local.Buffer, m.peer.Buffer = len(out), len(out)
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func memory(word string) (r transport.MemoryRequest, err error) {
	kind, dev, has := strings.Cut(word, ":")
	r.Kind = mem.Kind(kind)
	if !slices.Contains(mem.Kinds(), r.Kind) {
		return r, fault.Usagef("--memory %q: want one of %v, the CUDA kinds with :N for device N", word, mem.Kinds())
	}
	if has {
		if r.Kind != mem.CUDA && r.Kind != mem.CUDAHost {
			return r, fault.Usagef("--memory %q: only the CUDA kinds take a device", word)
		}
		if _, err := fmt.Sscanf(dev+"\n", "%d\n", &r.Device); err != nil || r.Device < 0 {
			return r, fault.Usagef("--memory %q: %q is not a device number", word, dev)
		}
	}
	return r, nil
}

// size fills in how many bytes each buffer has, and what else of the same memory
// the run takes. sameHost says that both sides take of one host's memory.
func (p *Plan) size(sameHost bool) error {
	for i := range p.memories {
		m := &p.memories[i]
		var moves []transport.Move
		var over []transport.Config
		for t, c := range p.transports {
			if p.over[t] == i {
				over = append(over, c)
			}
		}
		for _, c := range p.cells {
			if p.over[c.transport] == i {
				moves = append(moves, c.move)
			}
		}
		var err error
		if m.local, m.peer, err = transport.Requests(m.local, m.peer, moves, over, sameHost); err != nil {
			return err
		}
	}
	// The first is refused for want of room for all, before any is allocated.
	first := &p.memories[0]
	local, peer := first.local, first.peer
	for _, m := range p.memories[1:] {
		first.local.Share(local.Kind, m.local, m.peer, sameHost)
		first.peer.Share(peer.Kind, m.peer, m.local, sameHost)
	}
	return nil
}

// allocate has both sides make their buffers.
func (p *Plan) allocate(ctx context.Context, pair *transport.Pair) error {
	for i := range p.memories {
		m := &p.memories[i]
		var err error
		if m.localNs, m.peerNs, err = pair.Allocate(ctx, m.local, m.peer); err != nil {
			return err
		}
	}
	return nil
}
