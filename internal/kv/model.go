// Package kv turns a model's shape into the memory of its KV cache and the
// descriptors that a disaggregated engine transfers: bytes per token and request,
// block pools as vLLM lays them out, what of them crosses per connector, and lists
// of (local offset, remote offset, length) as vLLM's NixlConnector hands them to
// NIXL.
//
// The rules are those of vLLM 0.32.0 (kv_cache_interface.py, kv_cache_utils.py, the
// models' own files); testdata/README.md says how they are held to it.
package kv

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sort"
	"time"
)

// Limits of one geometry number. They are far above any model and keep all
// products of a geometry inside 63 bits.
const (
	maxGroups  = 64
	maxLayers  = 10_000
	maxHeads   = 1 << 16
	maxHeadDim = 1 << 16
	maxLatent  = 1 << 20
	maxWindow  = 1 << 31
	maxStates  = 8
	maxValues  = 1 << 22
)

// Kind is what the layers of a [Group] keep of a request.
type Kind string

// The kinds of layer groups.
const (
	// Full attention keeps K and V of every token.
	Full Kind = "full"
	// Sliding attention keeps those of the last Window tokens.
	Sliding Kind = "sliding"
	// Chunked attention keeps those of the current chunk of Window tokens.
	Chunked Kind = "chunked"
	// Latent attention keeps one vector of KeyDim values per token in place of K and
	// V, the same on every tensor-parallel rank.
	Latent Kind = "latent"
	// Index is the keys by which sparse attention chooses its tokens, beside a latent
	// or a full cache; every rank holds them.
	Index Kind = "index"
	// State layers (state-space, linear attention, short convolution) keep States,
	// whatever the length of the prompt.
	State Kind = "state"
	// Cross attention keeps K and V of the encoder's Window tokens.
	Cross Kind = "cross"
)

// Group is layers of one model that keep the same of a request. Layers that read
// another layer's cache are in no group.
type Group struct {
	Kind Kind
	// Layers is the number of layers that keep a cache.
	Layers int
	// KVHeads is the number of key (and of value) heads of one layer, over all
	// tensor-parallel ranks; 0 where every rank holds the whole slot.
	KVHeads int `json:",omitempty"`
	// KeyDim and ValueDim are the values of one head's key and value; of a latent
	// cache, KeyDim is the width of the vector and ValueDim 0.
	KeyDim   int `json:",omitempty"`
	ValueDim int `json:",omitempty"`
	// SlotBytes, when not 0, is a token's bytes in a layer of one rank, whatever the
	// type of the cache.
	SlotBytes int `json:",omitempty"`
	// Window is the tokens of the window of sliding attention, of a chunk, or of the
	// encoder's output.
	Window int `json:",omitempty"`
	// Every is the number of tokens that share one slot; 0 is 1.
	Every int `json:",omitempty"`
	// States are what a state layer keeps of a request.
	States []Tensor `json:",omitempty"`
	// DType, when set, takes the place of the model's.
	DType DType `json:",omitempty"`
}

// Tensor is a fixed array of a state layer.
type Tensor struct {
	// Shards is the rows that tensor-parallel ranks divide among them; where they do
	// not divide evenly, each rank holds one.
	Shards int
	// Values is the values of one row.
	Values int
	// DType is the type of a value.
	DType DType
	// Pieces is the descriptors in which NIXL moves it; 0: it crosses with the tensor
	// before it.
	Pieces int `json:",omitempty"`
}

// Model is what of a model decides the size of its KV cache.
type Model struct {
	// Name is the preset's name, or the path of the config.json.
	Name string
	// Heads is the number of query heads; it decides which tensor-parallel sizes
	// divide the model. 0: the model has no attention.
	Heads int
	// DType is the type of a cached value.
	DType DType
	// Groups are the layers that keep a cache, in the order of their first layer.
	Groups []Group
}

// Uniform returns a model of one group of full-attention layers.
func Uniform(name string, layers, heads, kvHeads, headDim int, d DType) Model {
	return Model{Name: name, Heads: heads, DType: d,
		Groups: []Group{{Kind: Full, Layers: layers, KVHeads: kvHeads, KeyDim: headDim, ValueDim: headDim}}}
}

// Layers is the number of layers that keep a cache; an index counts as one of its
// own, as engines lay it out.
func (m Model) Layers() (n int) {
	for _, g := range m.Groups {
		n += g.Layers
	}
	return n
}

// zero reports whether no model was given.
func (m Model) zero() bool {
	return m.Name == "" && m.Heads == 0 && m.DType == "" && len(m.Groups) == 0
}

// windowed reports whether a group keeps less than all tokens.
func (g Group) windowed() bool { return g.Kind == Sliding || g.Kind == Chunked }

// dtype is the type of the group's values in a model of type d.
func (g Group) dtype(d DType) DType {
	if g.DType != "" {
		return g.DType
	}
	return d
}

// share is how many of n each of tp ranks holds: vLLM divides, and replicates
// where there are more ranks than n.
func share(n, tp int) int { return max(1, n/tp) }

// slot is the bytes that one token takes in one layer of one of tp ranks, in a
// cache of type d; of a state layer 0. Every tokens share it.
func (g Group) slot(d DType, tp int) int64 {
	if g.Kind == State {
		return 0
	}
	if g.SlotBytes != 0 {
		return int64(g.SlotBytes)
	}
	d = g.dtype(d)
	if n, ok := latentSlots[d]; ok {
		return n
	}
	n := d.slot(int64(g.KeyDim), int64(g.ValueDim))
	if g.KVHeads > 0 {
		n *= int64(share(g.KVHeads, tp))
	}
	return n
}

// state is the bytes that one request takes in one layer of one of tp ranks.
func (g Group) state(tp int) (n int64) {
	for _, t := range g.States {
		n += int64(share(t.Shards, tp)) * int64(t.Values) * t.DType.Bytes()
	}
	return n
}

// every is the tokens that share a slot.
func (g Group) every() int64 { return int64(max(1, g.Every)) }

// replicas is how many of tp ranks hold the same.
func (g Group) replicas(tp int) int {
	switch {
	case g.Kind == State:
		return 1
	case g.KVHeads == 0:
		return tp
	}
	return max(1, tp/g.KVHeads)
}

// bytes is what a prompt of n tokens takes in one layer of one rank, to the token.
func (g Group) bytes(d DType, tp int, n int64) int64 {
	switch g.Kind {
	case State:
		return g.state(tp)
	case Sliding:
		n = min(n, int64(g.Window))
	case Cross:
		n = int64(g.Window)
	case Chunked:
		n -= max(0, n-1) / int64(g.Window) * int64(g.Window)
	}
	return ceilDiv(n, g.every()) * g.slot(d, tp)
}

// Validate reports the first number that cannot be a model's. It holds for values
// from another host too: what passes has no product above 63 bits.
func (m Model) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("model %s: %w", m.Name, fmt.Errorf(format, args...))
	}
	if m.Heads < 0 || m.Heads > maxHeads {
		return fail("the number of attention heads is %d; it must be from 1 to %d", m.Heads, maxHeads)
	}
	if len(m.Groups) == 0 || len(m.Groups) > maxGroups {
		return fail("%d groups of layers; there must be from 1 to %d", len(m.Groups), maxGroups)
	}
	if !m.DType.Known() {
		return fail("no dtype is known for its KV cache; give one, such as bf16")
	}
	for _, g := range m.Groups {
		if g.Layers < 1 || g.Layers > maxLayers {
			return fail("the number of layers is %d; it must be from 1 to %d", g.Layers, maxLayers)
		}
		if err := g.validate(m); err != nil {
			return fail("%w", err)
		}
	}
	if n := m.Layers(); n > maxLayers {
		return fail("the number of layers is %d; it must be from 1 to %d", n, maxLayers)
	}
	return nil
}

func inRange(what string, n, lo, hi int) error {
	if n < lo || n > hi {
		return fmt.Errorf("%s is %d; it must be from %d to %d", what, n, lo, hi)
	}
	return nil
}

// validate reports the first number that cannot be one of a group of m.
func (g Group) validate(m Model) error {
	if g.Kind == State {
		return g.validateState()
	}
	if !slices.Contains([]Kind{Full, Sliding, Chunked, Latent, Index, Cross}, g.Kind) {
		return fmt.Errorf("layers of kind %.40q are not known", string(g.Kind))
	}
	replicated := g.KVHeads == 0
	if err := inRange("the number of KV heads", g.KVHeads, 0, maxHeads); err != nil {
		return err
	}
	if !replicated && (m.Heads == 0 || m.Heads%g.KVHeads != 0) {
		return fmt.Errorf("%d attention heads are not a multiple of %d KV heads", m.Heads, g.KVHeads)
	}
	most := maxHeadDim
	if replicated {
		most = maxLatent
	}
	for _, n := range []struct {
		what      string
		n, lo, hi int
	}{
		{"head_dim", g.KeyDim, 0, most}, {"the width of a value", g.ValueDim, 0, most}, {"the bytes of a slot", g.SlotBytes, 0, maxLatent},
		{"the tokens of a slot", g.Every, 0, maxLatent}, {"the window", g.Window, 0, maxWindow},
	} {
		if err := inRange(n.what, n.n, n.lo, n.hi); err != nil {
			return err
		}
	}
	d := g.dtype(m.DType)
	switch {
	case (g.windowed() || g.Kind == Cross) && g.Window == 0:
		return fmt.Errorf("the window of its %s layers is 0; it must be at least 1", g.Kind)
	case !d.Known():
		return fmt.Errorf("no dtype is known for its %s layers", g.Kind)
	case latentSlots[d] != 0 && (g.SlotBytes == 0 && (!replicated || g.ValueDim != 0)):
		return fmt.Errorf("type %s is for latent caches; its %s layers keep K and V", d, g.Kind)
	case g.slot(m.DType, 1) == 0:
		return fmt.Errorf("its %s layers keep heads of %d and %d values, which type %s cannot hold", g.Kind, g.KeyDim, g.ValueDim, d)
	case g.States != nil:
		return fmt.Errorf("its %s layers have states", g.Kind)
	}
	return nil
}

func (g Group) validateState() error {
	if len(g.States) == 0 || len(g.States) > maxStates {
		return fmt.Errorf("state layers keep %d tensors; there must be from 1 to %d", len(g.States), maxStates)
	}
	if g.KVHeads != 0 || g.KeyDim != 0 || g.ValueDim != 0 || g.SlotBytes != 0 || g.Window != 0 || g.Every != 0 || g.DType != "" {
		return fmt.Errorf("state layers keep nothing per token")
	}
	for _, t := range g.States {
		if err := inRange("the rows of a state", t.Shards, 1, maxLatent); err != nil {
			return err
		}
		if err := inRange("the values of a row of a state", t.Values, 1, maxValues); err != nil {
			return err
		}
		if err := inRange("the pieces of a state", t.Pieces, 0, maxStates); err != nil {
			return err
		}
		if t.DType.Bytes() == 0 {
			return fmt.Errorf("no dtype is known for its states; give one of bf16, fp16 or fp32")
		}
	}
	return nil
}

// BytesPerToken returns the bytes that one token adds to the KV cache of the whole
// model while it is inside every window: of plain attention 2 × layers × KV heads ×
// head_dim × bytes(dtype), the 2 being K and V; of a latent cache layers × width ×
// bytes(dtype). Where tokens share a slot it is rounded up.
func (m Model) BytesPerToken() int64 { return m.bytesPerToken(1) }

func (m Model) bytesPerToken(tp int) (n int64) {
	for _, g := range m.Groups {
		if g.Kind != Cross {
			n += int64(g.Layers) * ceilDiv(g.slot(m.DType, tp), g.every())
		}
	}
	return n
}

// StateBytes returns the bytes of a request that do not depend on its length.
func (m Model) StateBytes() int64 { return m.stateBytes(1) }

func (m Model) stateBytes(tp int) (n int64) {
	for _, g := range m.Groups {
		n += int64(g.Layers) * g.state(tp)
	}
	return n
}

// Rank is the share of a model's KV cache that one tensor-parallel rank holds.
type Rank struct {
	Model
	// TensorParallel is the number of ranks.
	TensorParallel int
	// Replicas is how many ranks hold the same: 1 unless there are more ranks than
	// KV heads, and all ranks with a latent cache. Groups may differ; it is the
	// largest.
	Replicas int
}

// Rank splits the model over tensorParallel ranks as vLLM does: KV heads are
// divided, replicated when there are more ranks than heads, and a latent cache
// is replicated on every rank. A number of ranks that does not divide the
// query heads, or neither divides nor is a multiple of the KV heads, is an
// error.
func (m Model) Rank(tensorParallel int) (Rank, error) {
	if err := m.Validate(); err != nil {
		return Rank{}, err
	}
	tp := tensorParallel
	if tp < 1 {
		return Rank{}, fmt.Errorf("tensor-parallel size %d must be at least 1", tp)
	}
	if tp > 1 && m.Heads%tp != 0 {
		return Rank{}, fmt.Errorf("tensor-parallel size %d does not divide the %d attention heads of %s; try %s",
			tp, m.Heads, m.Name, m.tensorParallelSizes())
	}
	if what, ok := m.splits(tp); !ok {
		return Rank{}, fmt.Errorf("tensor-parallel size %d neither divides the %s of %s nor is a multiple of them; try %s",
			tp, what, m.Name, m.tensorParallelSizes())
	}
	r := Rank{Model: m, TensorParallel: tp, Replicas: 1}
	for _, g := range m.Groups {
		r.Replicas = max(r.Replicas, g.replicas(tp))
	}
	return r, nil
}

// splits reports whether tp ranks can share every group, or what they cannot.
func (m Model) splits(tp int) (what string, ok bool) {
	fits := func(n int) bool { return n%tp == 0 || n < tp && tp%n == 0 }
	for _, g := range m.Groups {
		if g.KVHeads > 0 && !fits(g.KVHeads) {
			return fmt.Sprintf("%d KV heads", g.KVHeads), false
		}
		for _, t := range g.States {
			if !fits(t.Shards) {
				return fmt.Sprintf("%d rows of a state", t.Shards), false
			}
		}
	}
	return "", true
}

// tensorParallelSizes names the smallest sizes that the model can be split into.
func (m Model) tensorParallelSizes() string {
	s := "1"
	for n, tp := 1, 2; tp <= m.Heads && n < 6; tp++ {
		if _, ok := m.splits(tp); ok && m.Heads%tp == 0 {
			s += fmt.Sprintf(", %d", tp)
			n++
		}
	}
	return s
}

// BytesPerToken returns the bytes that one token takes on this rank while it is
// inside every window.
func (r Rank) BytesPerToken() int64 { return r.bytesPerToken(r.TensorParallel) }

// StateBytes returns the bytes of a request on this rank that do not depend on its
// length.
func (r Rank) StateBytes() int64 { return r.stateBytes(r.TensorParallel) }

// bytes is what a prompt of n tokens takes on this rank, to the token; ok is false
// where that is more than 63 bits.
func (r Rank) bytes(n int64) (total int64, ok bool) {
	for _, g := range r.Groups {
		if _, fits := mul(max(1, n), max(1, g.slot(r.DType, r.TensorParallel))); !fits {
			return 0, false
		}
		b, fits := mul(int64(g.Layers), g.bytes(r.DType, r.TensorParallel, n))
		if !fits || total > math.MaxInt64-b {
			return 0, false
		}
		total += b
	}
	return total, true
}

// even reports whether every token takes the same bytes, wherever it stands.
func (r Rank) even() bool {
	return !slices.ContainsFunc(r.Groups, func(g Group) bool {
		return g.windowed() || g.Kind == State || g.Kind == Cross || g.every() > 1
	})
}

// tokens is the most whole tokens that n bytes of this rank hold; 0 where no number of
// tokens takes so many.
func (r Rank) tokens(n int64) int64 {
	if r.even() {
		return n / r.BytesPerToken()
	}
	more := sort.Search(maxCrossingTokens, func(i int) bool {
		b, ok := r.bytes(int64(i) + 1)
		return !ok || b > n
	})
	if more == maxCrossingTokens {
		return 0
	}
	return int64(more)
}

// IdealTime returns how long bytes take on a link of bitsPerSecond when nothing
// but the line rate counts, to the nearest nanosecond. It is the largest
// Duration when the link is not above zero or the time does not fit.
func IdealTime(bytes, bitsPerSecond int64) time.Duration {
	if bytes <= 0 {
		return 0
	}
	if bitsPerSecond <= 0 {
		return math.MaxInt64
	}
	hi, lo := bits.Mul64(uint64(bytes), 8*uint64(time.Second))
	lo, carry := bits.Add64(lo, uint64(bitsPerSecond)/2, 0)
	hi += carry
	if hi >= uint64(bitsPerSecond) {
		return math.MaxInt64
	}
	ns, _ := bits.Div64(hi, lo, uint64(bitsPerSecond))
	if ns > math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
