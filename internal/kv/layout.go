package kv

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
)

// Layout says whether K and V of a block lie together.
type Layout string

// Layouts of a layer's block pool.
const (
	// Packed keeps K and V of a block together: one region a layer, one
	// descriptor a block (vLLM 0.26 and later).
	Packed Layout = "packed"
	// Split keeps K and V apart: two regions a layer, two descriptors a block
	// (vLLM up to 0.22 with FlashAttention).
	Split Layout = "split"
)

// Shape says how the same bytes are cut into descriptors.
type Shape string

// Shapes of a transfer.
const (
	// Merged is one descriptor a region: the best case, all blocks adjacent.
	Merged Shape = "merged"
	// Fragmented is one descriptor a region and block: the worst case, no two
	// of which can be merged.
	Fragmented Shape = "fragmented"
	// Contiguous is one descriptor of exactly the bytes asked for.
	Contiguous Shape = "contiguous"
)

// ParseLayout reads a Layout.
func ParseLayout(s string) (Layout, error) {
	if l := Layout(s); l == Packed || l == Split {
		return l, nil
	}
	return "", fmt.Errorf("unknown KV layout %q; use packed or split", s)
}

// Shapes returns all shapes.
func Shapes() []Shape { return []Shape{Merged, Fragmented, Contiguous} }

// ParseShapes reads a comma-separated list of shapes, in the order given.
func ParseShapes(s string) ([]Shape, error) {
	var out []Shape
	for f := range strings.SplitSeq(s, ",") {
		sh := Shape(f)
		if !slices.Contains(Shapes(), sh) {
			return nil, fmt.Errorf("unknown shape %q; use merged, fragmented or contiguous", f)
		}
		if slices.Contains(out, sh) {
			return nil, fmt.Errorf("shape %s is named twice in %q", sh, s)
		}
		out = append(out, sh)
	}
	return out, nil
}

// Defaults and limits of a [Request].
const (
	DefaultBlockTokens = 16 // vLLM's on GPUs
	DefaultMaxBytes    = int64(1) << 40
	MaxBlockTokens     = 1 << 20
	DefaultMaxDescs    = 1 << 24
)

// ErrTooLarge is wrapped by the errors of [New] for a request above a limit.
var ErrTooLarge = errors.New("too large")

// Request asks for the transfer of a KV cache. One of Tokens and Bytes is set.
type Request struct {
	// Model may be left out for a contiguous transfer of Bytes.
	Model Model
	// Tokens is the length of the prompt.
	Tokens int64
	// Bytes is what one tensor-parallel rank holds of the cache.
	Bytes int64
	// BlockTokens is the number of tokens in a block; 0 is [DefaultBlockTokens].
	BlockTokens int
	// Layout is Packed when empty. A latent cache has no K and V to split: both
	// layouts are the same for it.
	Layout Layout
	// Shape is Merged when empty.
	Shape Shape
	// TensorParallel is the number of ranks; 0 is 1. The transfer is one rank's.
	TensorParallel int
	// Seed decides the block numbers of the fragmented shape on both sides.
	Seed uint64
	// MaxBytes is the largest buffer allowed; 0 is [DefaultMaxBytes].
	MaxBytes int64
	// MaxDescs is the largest number of descriptors allowed; 0 is
	// [DefaultMaxDescs].
	MaxDescs int
}

// Desc is one piece of a transfer: Len bytes at Local in the local buffer and at
// Remote in the remote one, both byte offsets from the buffer's start.
type Desc struct {
	Local, Remote, Len uint64
}

// Transfer is a request worked out: how many bytes in how many descriptors.
// Both sides hold one buffer of Bytes bytes, region after region; it is read-only and
// safe for concurrent use.
//
// What moves is what [Model.Crossing] says of one rank: all tokens of full attention,
// the blocks of a window that hold the end of the prompt, and one state per request.
type Transfer struct {
	// Request is what was asked, with defaults filled in.
	Request
	// Rank is the share of the model; zero for a contiguous transfer without one.
	Rank Rank
	// Regions is the number of memory regions: layers, twice that when split, fewer
	// where layers share regions; 1 for a contiguous transfer.
	Regions int
	// Blocks is the number of KV blocks that hold the prompt; 0 for a contiguous
	// transfer.
	Blocks int
	// BlockBytes is the length of one block in one region; 0 for a contiguous
	// transfer, and where regions differ in it.
	BlockBytes int64
	// Tokens is the number of tokens that Bytes holds, whole blocks for KV
	// shapes, rounded down for a contiguous transfer; 0 without a model.
	Tokens int64
	// Bytes is the size of the buffer and of the transfer.
	Bytes int64

	areas []area
}

// area is regions that lie back to back, each with blocks of bytes; a state has one
// block, and pieces are the lengths of its parts.
type area struct {
	regions, blocks int
	bytes           int64
	pieces          []int64
}

// New works out a request. KV shapes are rounded up to whole blocks, see
// [Transfer.Rounding]; a contiguous transfer is exact.
func New(req Request) (*Transfer, error) {
	req.fill()
	if err := req.check(); err != nil {
		return nil, err
	}
	t := &Transfer{Request: req, Regions: 1}
	if !req.Model.zero() {
		r, err := req.Model.Rank(req.TensorParallel)
		if err != nil {
			return nil, err
		}
		t.Rank = r
	}
	layOut := t.blocks
	if req.Shape == Contiguous {
		layOut = t.contiguous
	}
	if err := layOut(); err != nil {
		return nil, err
	}
	return t, t.checkLimits()
}

func (r *Request) fill() {
	if r.Shape == "" {
		r.Shape = Merged
	}
	if r.Layout == "" {
		r.Layout = Packed
	}
	if r.BlockTokens == 0 {
		r.BlockTokens = DefaultBlockTokens
	}
	if r.TensorParallel == 0 {
		r.TensorParallel = 1
	}
	if r.MaxBytes == 0 {
		r.MaxBytes = DefaultMaxBytes
	}
	if r.MaxDescs == 0 {
		r.MaxDescs = DefaultMaxDescs
	}
}

func (t *Transfer) contiguous() error {
	t.Bytes = t.Request.Bytes
	if n := t.Request.Tokens; n != 0 {
		var ok bool
		if t.Bytes, ok = t.Rank.bytes(n); !ok {
			return fmt.Errorf("%d tokens of %s are %w: more than 2^63-1 bytes", n, t.Rank.Name, ErrTooLarge)
		}
		t.Tokens = n
	} else if !t.Model.zero() {
		t.Tokens = t.Rank.tokens(t.Bytes)
	}
	return nil
}

// blocks lays out the KV blocks of one rank.
func (t *Transfer) blocks() error {
	d := Deployment{Hybrid: true, BlockTokens: t.BlockTokens, PrefillTP: t.TensorParallel, DecodeTP: t.TensorParallel}
	lists, err := t.Model.lists(&d)
	if err != nil {
		return err
	}
	tokens := t.Request.Tokens
	if tokens == 0 {
		if tokens, err = t.Model.fewest(lists, t.Request.Bytes); err != nil {
			return err
		}
	}
	if tokens > maxCrossingTokens {
		return fmt.Errorf("%d tokens of %s are %w", tokens, t.Rank.Name, ErrTooLarge)
	}
	last := max(1, tokens-int64(t.Model.backoff(d)))
	counts := make([]int, len(lists))
	for i, l := range lists {
		counts[i], _ = l.blocks(last, tokens)
		if l.tokens > 0 && !l.windowed() && l.kind != Cross {
			t.BlockTokens, t.Blocks = l.tokens, int(min(ceilDiv(tokens, int64(l.tokens)), math.MaxInt32))
		}
	}
	t.Tokens = tokens
	if t.Blocks > 0 {
		t.Tokens = int64(t.Blocks) * int64(t.BlockTokens)
	}
	t.areas, t.Regions = areas(lists, counts, t.Layout, t.TensorParallel), 0
	for i, a := range t.areas {
		n, ok := mul(int64(a.regions)*int64(a.blocks), a.bytes)
		if !ok || t.Bytes > math.MaxInt64-n {
			return fmt.Errorf("%d tokens of %s are %w", tokens, t.Rank.Name, ErrTooLarge)
		}
		t.Bytes, t.Regions, t.BlockBytes = t.Bytes+n, t.Regions+a.regions, a.bytes
		if i > 0 && a.bytes != t.areas[i-1].bytes {
			t.BlockBytes = -1
		}
	}
	t.BlockBytes = max(0, t.BlockBytes)
	return nil
}

// windowed reports whether the list keeps less than all tokens.
func (l list) windowed() bool { return l.kind == Sliding || l.kind == Chunked }

// areas are the regions of lists with counts blocks each, on one of tp ranks. Lists
// whose blocks have one length share regions, states come last.
func areas(lists []list, counts []int, layout Layout, tp int) []area {
	var out, states []area
	for i, l := range lists {
		if l.kind == State {
			states = append(states, area{regions: l.regions(), blocks: 1, bytes: l.spans[0].bytes, pieces: l.pieces(tp)})
			continue
		}
		for _, s := range l.spans {
			a := area{regions: s.regions, blocks: counts[i], bytes: s.bytes}
			if layout == Split && s.kv {
				a.regions, a.bytes = 2*a.regions, a.bytes/2
			}
			same := func(b area) bool { return len(l.spans) == 1 && b.regions == a.regions && b.bytes == a.bytes }
			if j := slices.IndexFunc(out, same); j >= 0 {
				out[j].blocks += a.blocks
			} else {
				out = append(out, a)
			}
		}
	}
	return append(out, states...)
}

// fewest is the fewest tokens, in whole blocks, whose lists take at least bytes.
func (m Model) fewest(lists []list, bytes int64) (int64, error) {
	block := int64(1)
	for _, l := range lists {
		block = max(block, int64(l.tokens))
	}
	takes := func(blocks int) bool {
		var n int64
		for _, l := range lists {
			b, _ := l.blocks(int64(blocks)*block, int64(blocks)*block)
			all, ok := mul(int64(b), l.blockBytes())
			if n += all; !ok || n < 0 || n >= bytes {
				return true
			}
		}
		return false
	}
	most := int(maxCrossingTokens/block) - 1
	n := 1 + sort.Search(most, func(i int) bool { return takes(i + 1) })
	grows := slices.ContainsFunc(lists, func(l list) bool { return l.tokens > 0 && !l.windowed() && l.kind != Cross })
	switch {
	case n > most && grows:
		return 0, fmt.Errorf("%d bytes of %s are %w: more than %d tokens", bytes, m.Name, ErrTooLarge, maxCrossingTokens)
	case n > most:
		return 0, fmt.Errorf("no prompt of %s takes %d bytes: its layers keep windows and states alone; ask for --tokens, or for the contiguous shape", m.Name, bytes)
	}
	return int64(n) * block, nil
}

func (r Request) check() error {
	if (r.Tokens == 0) == (r.Bytes == 0) {
		return fmt.Errorf("a transfer needs either tokens or bytes (%d tokens, %d bytes given)", r.Tokens, r.Bytes)
	}
	if r.Tokens < 0 || r.Bytes < 0 {
		return fmt.Errorf("a transfer cannot have %d tokens and %d bytes", r.Tokens, r.Bytes)
	}
	if r.Model.zero() && (r.Shape != Contiguous || r.Tokens != 0) {
		return fmt.Errorf("a %s transfer of %d tokens, %d bytes needs a model", r.Shape, r.Tokens, r.Bytes)
	}
	if r.BlockTokens < 1 || r.BlockTokens > MaxBlockTokens {
		return fmt.Errorf("blocks of %d tokens: the number must be from 1 to %d", r.BlockTokens, MaxBlockTokens)
	}
	if r.MaxBytes < 0 || r.MaxDescs < 0 {
		return fmt.Errorf("a limit is negative (%d bytes, %d descriptors)", r.MaxBytes, r.MaxDescs)
	}
	if _, err := ParseLayout(string(r.Layout)); err != nil {
		return err
	}
	if !slices.Contains(Shapes(), r.Shape) {
		return fmt.Errorf("unknown shape %q; use merged, fragmented or contiguous", r.Shape)
	}
	return nil
}

func (t *Transfer) checkLimits() error {
	if t.Bytes > t.MaxBytes {
		return fmt.Errorf("the KV cache takes %d bytes, %w for the limit of %d bytes; ask for fewer tokens or bytes",
			t.Bytes, ErrTooLarge, t.MaxBytes)
	}
	if n := t.Count(); n > t.MaxDescs {
		return fmt.Errorf("%d regions of %d blocks are %d descriptors, %w for the limit of %d; use larger blocks or fewer tokens",
			t.Regions, t.Blocks, n, ErrTooLarge, t.MaxDescs)
	}
	return nil
}

// Count returns the number of descriptors without building them.
func (t *Transfer) Count() int {
	if t.Shape == Contiguous {
		return 1
	}
	n := 0
	for _, a := range t.areas {
		switch {
		case a.pieces != nil:
			n += a.regions * len(a.pieces)
		case t.Shape == Fragmented:
			n += a.regions * a.blocks
		default:
			n += a.regions
		}
	}
	return n
}

// TokensExact returns Bytes in tokens, with a fraction where a contiguous transfer
// holds no whole number of them; 0 without a model. Where the bytes of a token depend
// on its place it is Tokens.
func (t *Transfer) TokensExact() float64 {
	per := t.Rank.BytesPerToken()
	switch {
	case per == 0:
		return 0
	case !t.Rank.even():
		return float64(t.Tokens)
	}
	return float64(t.Bytes) / float64(per)
}

// Asked is the bytes asked for, or those of the tokens asked for, before any
// rounding.
func (t *Transfer) Asked() int64 {
	if t.Request.Tokens == 0 {
		return t.Request.Bytes
	}
	n, _ := t.Rank.bytes(t.Request.Tokens) // it fits: Bytes is not smaller
	return n
}

// Rounding says how the request was rounded up to whole blocks.
type Rounding struct {
	AskedBytes  int64 // bytes asked for, 0 if tokens were
	AskedTokens int64 // tokens asked for, or the fewest that hold AskedBytes
	Tokens      int64 // tokens transferred
	Blocks      int   // blocks of BlockTokens tokens
	BlockTokens int
	Bytes       int64 // bytes transferred
}

// Rounding reports how the request was rounded, and whether that changed it.
func (t *Transfer) Rounding() (r Rounding, changed bool) {
	r = Rounding{
		AskedBytes: t.Request.Bytes, AskedTokens: t.Request.Tokens,
		Tokens: t.Tokens, Blocks: t.Blocks, BlockTokens: t.BlockTokens, Bytes: t.Bytes,
	}
	if r.AskedTokens == 0 && !t.Model.zero() {
		r.AskedTokens = t.Tokens
		if t.Rank.even() {
			r.AskedTokens = ceilDiv(r.AskedBytes, t.Rank.BytesPerToken())
		}
	}
	if t.Shape == Contiguous {
		return r, false
	}
	if r.AskedBytes != 0 {
		return r, r.AskedBytes != r.Bytes
	}
	return r, r.AskedTokens != r.Tokens
}

// All yields the descriptors in the order in which NIXL is handed them: region
// by region (K before V of a layer when split), in each region block by block.
func (t *Transfer) All() iter.Seq[Desc] {
	return func(yield func(Desc) bool) {
		if t.Shape == Contiguous {
			yield(Desc{Len: uint64(t.Bytes)})
			return
		}
		base := uint64(0)
		for i, a := range t.areas {
			size := uint64(a.blocks) * uint64(a.bytes)
			each := t.each(i)
			for range a.regions {
				for d := range each {
					if !yield(Desc{Local: base + d.Local, Remote: base + d.Remote, Len: d.Len}) {
						return
					}
				}
				base += size
			}
		}
	}
}

// each yields the descriptors of one region of area i, with offsets in the region.
func (t *Transfer) each(i int) iter.Seq[Desc] {
	a := t.areas[i]
	switch {
	case a.pieces != nil:
		return func(yield func(Desc) bool) {
			at := uint64(0)
			for _, n := range a.pieces {
				if !yield(Desc{Local: at, Remote: at, Len: uint64(n)}) {
					return
				}
				at += uint64(n)
			}
		}
	case t.Shape == Merged:
		return func(yield func(Desc) bool) { yield(Desc{Len: uint64(a.blocks) * uint64(a.bytes)}) }
	}
	local, remote := t.blockIDs(i)
	n := uint64(a.bytes)
	return func(yield func(Desc) bool) {
		for j, l := range local {
			if !yield(Desc{Local: uint64(l) * n, Remote: uint64(remote[j]) * n, Len: n}) {
				return
			}
		}
	}
}

// Descs returns all descriptors in a new slice.
func (t *Transfer) Descs() []Desc {
	return slices.AppendSeq(make([]Desc, 0, t.Count()), t.All())
}

// blockIDs returns the numbers of the blocks of area i on both sides, in the order in
// which they are transferred, for the fragmented shape: permutations of 0 … blocks-1
// drawn from Seed, such that no block is followed by its neighbour on both sides at
// once. NIXL merges two descriptors when their indices rise by one on both sides.
func (t *Transfer) blockIDs(i int) (local, remote []int32) {
	n := t.areas[i].blocks
	local, remote = ascending(n), ascending(n)
	shuffle(local, rand.NewPCG(t.Seed, 2*uint64(i)+1))
	shuffle(remote, rand.NewPCG(t.Seed, 2*uint64(i)+2))
	separate(local, remote)
	return local, remote
}

func ascending(n int) []int32 {
	p := make([]int32, n)
	for i := range p {
		p[i] = int32(i)
	}
	return p
}

// shuffle is Fisher and Yates's, written out so that a seed in a record means
// the same blocks whatever the Go release: rand.Shuffle does not promise that.
func shuffle(p []int32, src *rand.PCG) {
	for i := len(p) - 1; i > 0; i-- {
		j, _ := bits.Mul64(src.Uint64(), uint64(i)+1)
		p[i], p[j] = p[j], p[i]
	}
}

// separate changes remote until no descriptor continues the one before it on
// both sides. The last block of a region followed by the first of the next
// counts as well, because regions lie back to back: positions form a ring. A
// single block a region always continues the one before; nothing can help it.
func separate(local, remote []int32) {
	n := len(local)
	if n < 2 {
		return
	}
	next := func(p []int32, i int) bool { // p[i] → p[i+1] is a step to the neighbour
		return p[(i+1)%n] == (p[i]+1)%int32(n) && (i < n-1) == (p[i] < int32(n)-1)
	}
	joined := func(i int) bool { i = (i + n) % n; return next(local, i) && next(remote, i) }
	for i := range n {
		if !joined(i) {
			continue
		}
		a, fixed := (i+1)%n, false
		for k := 1; k < n && !fixed; k++ {
			b := (a + k) % n
			remote[a], remote[b] = remote[b], remote[a]
			fixed = !joined(a-1) && !joined(a) && !joined(b-1) && !joined(b)
			if !fixed {
				remote[a], remote[b] = remote[b], remote[a]
			}
		}
		if !fixed {
			// Happens for a few blocks only. Descending numbers never merge.
			for j := range remote {
				remote[j] = int32(n - 1 - j)
			}
			return
		}
	}
}

func ceilDiv(a, b int64) int64 { return (a-1)/b + 1 }

// mul returns a × b for a, b ≥ 0, and whether that fits an int64.
func mul(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(lo), hi == 0 && lo <= math.MaxInt64
}
