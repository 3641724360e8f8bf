package transport

import (
	"fmt"
	"iter"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/kv"
)

// cutAlign is the alignment of cuts between lanes: a page, so that no two
// lanes write to one.
const cutAlign = 4096

// List is a descriptor list as it is: pieces at offsets of both ends' buffers, and
// the same again in each further region, as a KV cache of many layers lies.
type List struct {
	Pieces []kv.Desc `json:"pieces"`
	// Regions is in how many regions the pieces are; 0: one. The offsets of each are
	// those of the one before and the stride, in bytes.
	Regions      int    `json:"regions,omitempty"`
	LocalStride  uint64 `json:"local_stride,omitempty"`
	RemoteStride uint64 `json:"remote_stride,omitempty"`
}

// Count is how many descriptors the list has.
func (l *List) Count() int { return len(l.Pieces) * max(l.Regions, 1) }

// Descs are the descriptors.
func (l *List) Descs() iter.Seq[kv.Desc] {
	return func(yield func(kv.Desc) bool) {
		for r := range uint64(max(l.Regions, 1)) {
			for _, d := range l.Pieces {
				if !yield(kv.Desc{Local: d.Local + r*l.LocalStride, Remote: d.Remote + r*l.RemoteStride, Len: d.Len}) {
					return
				}
			}
		}
	}
}

// maxOffset bounds what a list may name: sums of two such numbers cannot wrap.
const maxOffset = 1 << 60

// check holds a list's numbers to what can be counted; whether they are within the
// buffers the endpoints say.
func (l *List) check() error {
	n := uint64(max(l.Regions, 1))
	if l.Regions < 0 || n > MaxPieces || uint64(len(l.Pieces))*n > MaxPieces {
		return fmt.Errorf("%w: a list of %d pieces in %d regions: %d are allowed", ErrTooLarge, len(l.Pieces), l.Regions, MaxPieces)
	}
	if max(l.LocalStride, l.RemoteStride) > maxOffset/n {
		return fmt.Errorf("a list's regions of %d and %d bytes: want at most %d for %d regions", l.LocalStride, l.RemoteStride, maxOffset/n, n)
	}
	for _, d := range l.Pieces {
		if max(d.Local, d.Remote) > maxOffset || d.Len > maxOffset/(n*uint64(len(l.Pieces))) {
			return fmt.Errorf("a list's piece of %d bytes at %d and %d: it is in no buffer", d.Len, d.Local, d.Remote)
		}
	}
	return nil
}

// within reports a piece that is not in the n bytes of the buffer of the side that
// has role.
func (l *List) within(role Role, n uint64) error {
	for d := range l.Descs() {
		at := d.Remote
		if role == Initiator {
			at = d.Local
		}
		if at+d.Len > n {
			return fmt.Errorf("%w: a piece of %d bytes at %d of a buffer of %d", ErrTooLarge, d.Len, at, n)
		}
	}
	return nil
}

// extent is what a plan is laid out of.
type extent struct {
	descs iter.Seq[kv.Desc]
	bytes uint64
	count int
}

// extent is what r asks to lay out, and how many bytes of payload it has from the
// start of the buffer; a list has none.
func (r *PlanRequest) extent() (x extent, payload int64, err error) {
	if r.List == nil {
		t, err := kv.New(r.KV)
		if err != nil {
			return x, 0, err
		}
		return extent{t.All(), uint64(t.Bytes), t.Count()}, t.Bytes, nil
	}
	if err := r.List.check(); err != nil {
		return x, 0, err
	}
	x = extent{descs: r.List.Descs(), count: r.List.Count()}
	for d := range x.descs {
		x.bytes += d.Len
	}
	return x, 0, nil
}

// checkPieces is the most operations that count descriptors of bytes in all can take
// over lanes in pieces of at most chunk bytes (0: whole descriptors), or the error of
// too many.
func checkPieces(bytes uint64, count, lanes int, chunk uint64) (int, error) {
	n := uint64(count) + uint64(lanes)
	if chunk > 0 {
		n += bytes / chunk
	}
	if n > MaxPieces {
		return 0, fmt.Errorf("%w: %d bytes in pieces of %d bytes are up to %d operations, %d are allowed; use a larger --chunk, or fewer --descriptors",
			ErrTooLarge, bytes, chunk, n, MaxPieces)
	}
	return int(n), nil
}

// split lays descriptors out as lanes lists of pieces of at most chunk bytes
// (0: whole descriptors). The lanes' shares are consecutive and differ by at
// most a page, whatever the descriptors' sizes. Both sides of a transfer get
// the same lists from the same arguments.
func split(x extent, lanes int, chunk uint64) [][]loop.Piece {
	out := make([][]loop.Piece, lanes)
	total := x.bytes
	lane, left := 0, share(total, lanes, 0)
	for d := range x.descs {
		for d.Len > 0 {
			for left == 0 && lane < lanes-1 {
				lane++
				left = share(total, lanes, lane)
			}
			n := d.Len
			if chunk > 0 {
				n = min(n, chunk)
			}
			if lane < lanes-1 {
				n = min(n, left)
			}
			out[lane] = append(out[lane], loop.Piece{Local: d.Local, Remote: d.Remote, Len: n})
			d.Local, d.Remote, d.Len = d.Local+n, d.Remote+n, d.Len-n
			left -= min(left, n)
		}
	}
	return out
}

// share is how many of total bytes lane i of n moves.
func share(total uint64, n, i int) uint64 {
	cut := func(i int) uint64 {
		if i == n {
			return total
		}
		return total / uint64(n) * uint64(i) / cutAlign * cutAlign
	}
	return cut(i+1) - cut(i)
}

// reuse puts all pieces of each lane over the longest one of them.
func reuse(lanes [][]loop.Piece) {
	for _, pieces := range lanes {
		var long loop.Piece
		for _, p := range pieces {
			if p.Len > long.Len {
				long = p
			}
		}
		for i := range pieces {
			pieces[i].Local, pieces[i].Remote = long.Local, long.Remote
		}
	}
}

// plans copies the pieces of a transfer to C memory, one plan a lane. With
// oneBuffer they lie as reuse puts them.
func plans(x extent, lanes int, chunk uint64, oneBuffer bool) ([]*loop.Plan, error) {
	lists := split(x, lanes, chunk)
	if oneBuffer {
		reuse(lists)
	}
	var out []*loop.Plan
	for _, pieces := range lists {
		p, err := loop.NewPlan(pieces)
		if err != nil {
			freePlans(out)
			return nil, fmt.Errorf("plan: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

func freePlans(ps []*loop.Plan) {
	for _, p := range ps {
		p.Free()
	}
}

// Extent is what a condition moves: its bytes, its descriptors before any
// splitting, and the bytes of the longest.
func Extent(m Move) (bytes uint64, descriptors int, longest uint64, err error) {
	t, err := kv.New(m.KV)
	if err != nil {
		return 0, 0, 0, err
	}
	if m.Pieces > 0 {
		piece, err := pieceBytes(m.KV, m.Pieces)
		return uint64(t.Bytes), m.Pieces, piece, err
	}
	for d := range t.All() {
		longest = max(longest, d.Len)
	}
	return uint64(t.Bytes), t.Count(), longest, nil
}
