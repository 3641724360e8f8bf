// Package kv turns a model's shape into the memory of its KV cache and the
// descriptors that a disaggregated engine transfers: bytes per token, per-layer
// block pools as vLLM lays them out, and lists of (local offset, remote offset,
// length) as vLLM's NixlConnector hands them to NIXL.
package kv

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Limits of one geometry number. They are far above any model and keep all
// products of a geometry inside 63 bits.
const (
	maxLayers  = 10_000
	maxHeads   = 1 << 16
	maxHeadDim = 1 << 16
	maxLatent  = 1 << 20
)

// Model is what of a transformer decides the size of its KV cache.
type Model struct {
	// Name is the preset's name, or the path of the config.json.
	Name string
	// Layers is the number of layers that keep a KV cache.
	Layers int
	// Heads is the number of query heads; it decides which tensor-parallel
	// sizes divide the model.
	Heads int
	// KVHeads is the number of key (and of value) heads per layer; for a model
	// with multi-head latent attention it is not used.
	KVHeads int
	// HeadDim is the number of values in one key or value head.
	HeadDim int
	// LatentDim is the number of values cached per token and layer by
	// multi-head latent attention (kv_lora_rank + qk_rope_head_dim), one vector
	// in place of K and V; 0 for other models.
	LatentDim int
	// DType is the type of a cached value.
	DType DType
	// SlidingLayers of the layers attend only to the last SlidingWindow tokens.
	// Their cache is counted in full all the same; see [Model.Note].
	SlidingLayers int
	SlidingWindow int
}

// MLA reports whether the model caches one latent vector instead of K and V.
func (m Model) MLA() bool { return m.LatentDim > 0 }

// Note says what the geometry leaves out, or is empty.
func (m Model) Note() string {
	if m.SlidingLayers == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d layers use a sliding window of %d tokens. All layers are counted in full, "+
		"as an engine transfers them that keeps one block table for all layers; an engine that frees "+
		"blocks outside the window moves less.", m.SlidingLayers, m.Layers, m.SlidingWindow)
}

// Validate reports the first number that cannot be a model's.
func (m Model) Validate() error {
	check := func(what string, n, lo, hi int) error {
		if n < lo || n > hi {
			return fmt.Errorf("model %s: %s is %d; it must be from %d to %d", m.Name, what, n, lo, hi)
		}
		return nil
	}
	if err := check("the number of layers", m.Layers, 1, maxLayers); err != nil {
		return err
	}
	if err := check("the number of attention heads", m.Heads, 1, maxHeads); err != nil {
		return err
	}
	if m.LatentDim != 0 {
		if err := check("the latent dimension (kv_lora_rank + qk_rope_head_dim)", m.LatentDim, 1, maxLatent); err != nil {
			return err
		}
	} else {
		if err := check("the number of KV heads", m.KVHeads, 1, maxHeads); err != nil {
			return err
		}
		if err := check("head_dim", m.HeadDim, 1, maxHeadDim); err != nil {
			return err
		}
		if m.Heads%m.KVHeads != 0 {
			return fmt.Errorf("model %s: %d attention heads are not a multiple of %d KV heads", m.Name, m.Heads, m.KVHeads)
		}
	}
	if m.DType.Bytes() == 0 {
		return fmt.Errorf("model %s: no dtype is known for its KV cache; give one, such as bf16", m.Name)
	}
	return nil
}

// BytesPerToken returns the bytes that one token takes in the KV cache of the
// whole model: 2 × layers × KV heads × head_dim × bytes(dtype), the 2 being K
// and V; with latent attention layers × latent × bytes(dtype).
func (m Model) BytesPerToken() int64 {
	return int64(m.Layers) * m.bytesPerTokenLayer(m.KVHeads)
}

func (m Model) bytesPerTokenLayer(kvHeads int) int64 {
	if m.MLA() {
		return int64(m.LatentDim) * m.DType.Bytes()
	}
	return 2 * int64(kvHeads) * int64(m.HeadDim) * m.DType.Bytes()
}

// Rank is the share of a model's KV cache that one tensor-parallel rank holds.
type Rank struct {
	Model
	// TensorParallel is the number of ranks.
	TensorParallel int
	// RankKVHeads is the number of KV heads that each rank holds; 0 with latent
	// attention.
	RankKVHeads int
	// Replicas is how many ranks hold the same KV heads: 1 unless there are
	// more ranks than KV heads, and all ranks with latent attention.
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
	if m.Heads%tp != 0 {
		return Rank{}, fmt.Errorf("tensor-parallel size %d does not divide the %d attention heads of %s; try %s",
			tp, m.Heads, m.Name, m.tensorParallelSizes())
	}
	r := Rank{Model: m, TensorParallel: tp, Replicas: 1}
	switch {
	case m.MLA():
		r.Replicas = tp
	case m.KVHeads%tp == 0:
		r.RankKVHeads = m.KVHeads / tp
	case tp%m.KVHeads == 0:
		r.RankKVHeads, r.Replicas = 1, tp/m.KVHeads
	default:
		return Rank{}, fmt.Errorf("tensor-parallel size %d neither divides the %d KV heads of %s nor is a multiple of them; try %s",
			tp, m.KVHeads, m.Name, m.tensorParallelSizes())
	}
	return r, nil
}

// tensorParallelSizes names the smallest sizes that the model can be split into.
func (m Model) tensorParallelSizes() string {
	s := "1"
	for n, tp := 1, 2; tp <= m.Heads && n < 6; tp++ {
		if m.Heads%tp == 0 && (m.MLA() || m.KVHeads%tp == 0 || tp%m.KVHeads == 0) {
			s += fmt.Sprintf(", %d", tp)
			n++
		}
	}
	return s
}

// BytesPerToken returns the bytes that one token takes on this rank.
func (r Rank) BytesPerToken() int64 { return int64(r.Layers) * r.BytesPerTokenLayer() }

// BytesPerTokenLayer returns the bytes that one token takes in one layer on
// this rank, K and V together.
func (r Rank) BytesPerTokenLayer() int64 { return r.bytesPerTokenLayer(r.RankKVHeads) }

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
