package transport

import (
	"fmt"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/kv"
)

// cutAlign is the alignment of cuts between lanes: a page, so that no two
// lanes write to one.
const cutAlign = 4096

// split lays descriptors out as lanes lists of pieces of at most chunk bytes
// (0: whole descriptors). The lanes' shares are consecutive and differ by at
// most a page, whatever the descriptors' sizes. Both sides of a transfer get
// the same lists from the same arguments.
func split(t *kv.Transfer, lanes int, chunk uint64) [][]loop.Piece {
	out := make([][]loop.Piece, lanes)
	total := uint64(t.Bytes)
	lane, left := 0, share(total, lanes, 0)
	for d := range t.All() {
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
func plans(t *kv.Transfer, lanes int, chunk uint64, oneBuffer bool) ([]*loop.Plan, error) {
	lists := split(t, lanes, chunk)
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
