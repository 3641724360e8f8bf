// Package pool models the KV block pools of a prefill and a decode engine,
// to predict how many descriptors NIXL posts for a request after it merged
// neighbours. That number depends on the order in which both pools hand out
// blocks, hence on how many requests came before: while the pools are fresh each
// region is one descriptor, and when the free list wraps around for the first
// time (a pool lap) it becomes one per block. A step in TTFT at that index is
// an effect of the block pool, not of the network.
//
// The analysis holds records against the model, and simulated engines behave by it.
//
// Sources: vLLM, vllm/v1/core/block_pool.py and kv_cache_utils.py (free list);
// NIXL, nixlAgent::makeXferReq (merging of descriptors that follow one another
// on both sides).
package pool

import (
	"errors"
	"fmt"
	"slices"
)

// Order says where an engine puts freed blocks in its free list.
type Order string

const (
	// FIFO appends them, last block first: vLLM up to 0.23, and later releases
	// for blocks that hold a cached prefix.
	FIFO Order = "fifo"
	// LIFO puts them to the front: vLLM from 0.24 on with prefix caching off.
	LIFO Order = "lifo"
)

// ParseOrder reads an Order.
func ParseOrder(s string) (Order, error) {
	if o := Order(s); o == FIFO || o == LIFO {
		return o, nil
	}
	return "", fmt.Errorf("unknown pool order %q; use fifo or lifo", s)
}

// ErrFull says that a pool has too few free blocks.
var ErrFull = errors.New("not enough free blocks")

// Pool is the free list of one engine's KV blocks. Block 0 is never handed out:
// vLLM keeps it as the null block. A Pool is for one goroutine at a time.
type Pool struct {
	ring    []int // free list, first at head
	head, n int
	order   Order
	caching bool
}

// NewPool returns the pool of a freshly started engine. blocks counts block
// 0, as num_gpu_blocks does; caching says whether prefix caching is on.
func NewPool(blocks int, order Order, caching bool) (*Pool, error) {
	if blocks < 2 {
		return nil, fmt.Errorf("a pool of %d blocks has none to give: block 0 is reserved", blocks)
	}
	if _, err := ParseOrder(string(order)); err != nil {
		return nil, err
	}
	p := &Pool{ring: make([]int, blocks-1), n: blocks - 1, order: order, caching: caching}
	for i := range p.ring {
		p.ring[i] = i + 1
	}
	return p, nil
}

// Available is the number of blocks that can be allocated.
func (p *Pool) Available() int { return p.n }

// Alloc takes k blocks from the front of the free list. The slice is the
// caller's.
func (p *Pool) Alloc(k int) ([]int, error) {
	if k < 0 || k > p.n {
		return nil, fmt.Errorf("%d blocks of %d: %w", k, p.n, ErrFull)
	}
	out := make([]int, k)
	for i := range out {
		out[i] = p.ring[p.head]
		p.head = (p.head + 1) % len(p.ring)
	}
	p.n -= k
	return out, nil
}

// Free gives back the blocks of one request, in the order in which it held
// them. hashed is how many of them, from the first, are full and so carry a
// prefix hash; it matters with prefix caching only. Freeing a block that is
// free already is the caller's mistake and corrupts the pool.
func (p *Pool) Free(blocks []int, hashed int) {
	if p.order == FIFO {
		for i := len(blocks) - 1; i >= 0; i-- {
			p.pushBack(blocks[i])
		}
		return
	}
	// Blocks without a hash go to the front, so that the last one is handed out
	// first; cached ones to the back, where they live longest.
	for i := range blocks {
		if !p.caching || i >= hashed {
			p.pushFront(blocks[i])
		}
	}
	for i := len(blocks) - 1; i >= 0; i-- {
		if p.caching && i < hashed {
			p.pushBack(blocks[i])
		}
	}
}

func (p *Pool) pushBack(b int) {
	p.ring[(p.head+p.n)%len(p.ring)] = b
	p.n++
}

func (p *Pool) pushFront(b int) {
	p.head = (p.head + len(p.ring) - 1) % len(p.ring)
	p.ring[p.head] = b
	p.n++
}

// Run is a stretch of blocks that follow one another on both sides: one
// descriptor in each region.
type Run struct{ Local, Remote, Blocks int }

// Runs merges the blocks of a transfer as NIXL does: a block joins the one
// before it if its number is one higher on both sides. Descending or
// interleaved numbers never merge. The slices must be equally long.
func Runs(local, remote []int) []Run {
	var out []Run
	for i := range local {
		if k := len(out) - 1; k >= 0 && local[i] == out[k].Local+out[k].Blocks && remote[i] == out[k].Remote+out[k].Blocks {
			out[k].Blocks++
			continue
		}
		out = append(out, Run{local[i], remote[i], 1})
	}
	return out
}

// LapIndex is the index, from 0, of the first request for which the free list
// of a pool wraps around, when each takes perRequest blocks and one is in flight
// at a time: ⌊(blocks-1)/perRequest⌋. It is 0 if a request does not fit.
func LapIndex(blocks, perRequest int) int {
	if blocks < 2 || perRequest < 1 {
		return 0
	}
	return (blocks - 1) / perRequest
}

// Predictor predicts the descriptors of requests that run one after another
// over one prefill and one decode engine, both fresh at the start.
type Predictor struct {
	prefill, decode *Pool
	regions         int
	block           int
	groups          []int
}

// Config describes the two engines of a [Predictor].
type Config struct {
	PrefillBlocks, DecodeBlocks int // num_gpu_blocks of each
	Order                       Order
	Caching                     bool // prefix caching on
	// Regions is the number of memory regions that NIXL registered, over all ranks:
	// layers, or twice that where K and V are separate tensors; of layer groups, the
	// tensors that they share.
	Regions     int
	BlockTokens int
	// Groups is how many of a prompt's blocks cross in each layer group: the last ones
	// of windowed layers, all of others. Nil is one group, of which all cross. All
	// groups take their blocks out of one pool.
	Groups []int
}

// NewPredictor returns the predictor of a fresh pair of engines.
func NewPredictor(c Config) (*Predictor, error) {
	if c.Regions < 1 || c.BlockTokens < 1 {
		return nil, fmt.Errorf("a prediction needs regions and a block size, not %d and %d", c.Regions, c.BlockTokens)
	}
	p, err := NewPool(c.PrefillBlocks, c.Order, c.Caching)
	if err != nil {
		return nil, fmt.Errorf("prefill engine: %w", err)
	}
	d, err := NewPool(c.DecodeBlocks, c.Order, c.Caching)
	if err != nil {
		return nil, fmt.Errorf("decode engine: %w", err)
	}
	return &Predictor{prefill: p, decode: d, regions: c.Regions, block: c.BlockTokens, groups: c.Groups}, nil
}

// Next predicts the descriptors of the next request of promptTokens that makes
// outputTokens on the decode engine.
func (p *Predictor) Next(promptTokens, outputTokens int) (int, error) {
	if promptTokens < 1 || outputTokens < 0 {
		return 0, fmt.Errorf("a request of %d prompt and %d output tokens", promptTokens, outputTokens)
	}
	blocks := (promptTokens + p.block - 1) / p.block
	groups := p.groups
	if groups == nil {
		groups = []int{blocks}
	}
	for _, n := range groups {
		if n < 1 || n > blocks {
			return 0, fmt.Errorf("%d blocks cross of a layer group, and the prompt has %d", n, blocks)
		}
	}
	// The prefill engine computes the whole prompt before it gives up what lies
	// outside of a window.
	held, err := p.prefill.AllocGroups(slices.Repeat([]int{blocks}, len(groups)))
	if err != nil {
		return 0, fmt.Errorf("prefill engine: %w", err)
	}
	loaded, err := p.decode.AllocGroups(groups)
	if err != nil {
		p.prefill.FreeGroups(held, make([]int, len(groups)))
		return 0, fmt.Errorf("decode engine: %w", err)
	}
	var local, remote []int
	for i, n := range groups {
		local, remote = append(local, loaded[i]...), append(remote, held[i][blocks-n:]...)
	}
	descs := len(Runs(local, remote)) * p.regions
	// The last output token is not written to the cache before the request ends.
	written := promptTokens + max(outputTokens-1, 0)
	for range (written+p.block-1)/p.block - blocks {
		for i := range loaded {
			more, err := p.decode.Alloc(1)
			if err != nil {
				p.prefill.FreeGroups(held, make([]int, len(groups)))
				p.decode.FreeGroups(loaded, make([]int, len(groups)))
				return 0, fmt.Errorf("decode engine: %w", err)
			}
			loaded[i] = append(loaded[i], more...)
		}
	}
	hashed := make([]int, len(groups))
	for i, n := range groups {
		hashed[i] = max(0, written/p.block-(blocks-n))
	}
	p.decode.FreeGroups(loaded, hashed)
	p.prefill.FreeGroups(held, slices.Repeat([]int{promptTokens / p.block}, len(groups)))
	return descs, nil
}

// AllocGroups takes the blocks of each layer group, one group after the other, or
// none. The slices are the caller's.
func (p *Pool) AllocGroups(sizes []int) ([][]int, error) {
	var out [][]int
	for i, n := range sizes {
		b, err := p.Alloc(n)
		if err != nil {
			p.FreeGroups(out, make([]int, i))
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// FreeGroups gives the blocks of layer groups back, in the order of the groups, as
// [Pool.Free] does with each.
func (p *Pool) FreeGroups(groups [][]int, hashed []int) {
	for i, b := range groups {
		p.Free(b, hashed[i])
	}
}
