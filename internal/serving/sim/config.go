package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/analysis/pool"
	"github.com/xferbench/xferbench/internal/kv"
)

// Role is what an engine does.
type Role string

// Roles of an engine.
const (
	Prefill Role = "prefill"
	Decode  Role = "decode"
	Unified Role = "unified"
)

// Geometry is the shape of the KV cache, region by region as vLLM's NIXL
// connector registers it. The bytes of one block are spread evenly over the
// regions.
type Geometry struct {
	BlockTokens   int // tokens in a block
	Regions       int // memory regions: one a layer and rank
	BytesPerToken int // over all regions
	// Ranks is the tensor-parallel size, 0 is 1: each rank has its part of the regions
	// and makes a transfer of its own.
	Ranks int
	// Windows is the window of each layer group in tokens, 0: it keeps all; nil is one
	// group that does. All groups share the regions and take their blocks out of one pool.
	Windows []int
}

// Qwen25 is the geometry of Qwen2.5-7B in bf16 with blocks of 16 tokens, K and V
// packed: 57,344 B a token.
var Qwen25 = Geometry{BlockTokens: 16, Regions: 28, BytesPerToken: 57_344}

// GeometryOf is the geometry of a model over so many ranks of a release. Models whose
// layer groups do not share all regions are refused.
func GeometryOf(m kv.Model, blockTokens, ranks int, release string) (g Geometry, err error) {
	c, err := m.Crossing(1, kv.Deployment{Hybrid: !(Config{Release: release}).before(23), BlockTokens: blockTokens, PrefillTP: ranks, DecodeTP: ranks, Version: release})
	if err != nil {
		return g, err
	}
	first := c.Groups[0]
	for _, of := range c.Groups {
		g.Regions = max(g.Regions, of.Layers)
		g.Windows = append(g.Windows, of.Window)
		plain := of.Kind == kv.Full || of.Kind == kv.Sliding || of.Kind == kv.Latent
		if !plain || of.BytesPerBlock != first.BytesPerBlock || of.BlockTokens != first.BlockTokens {
			return g, fmt.Errorf("the layer groups of %s do not share all memory regions, which simulated engines cannot play; use a model with full, sliding or latent attention", m.Name)
		}
	}
	if first.BytesPerBlock%int64(g.Regions*first.BlockTokens) != 0 || first.BytesPerBlock/int64(g.Regions) > math.MaxInt32 {
		return g, fmt.Errorf("%d bytes of a block of %s do not divide over %d regions and %d tokens", first.BytesPerBlock, m.Name, g.Regions, first.BlockTokens)
	}
	g.BlockTokens, g.Ranks = first.BlockTokens, ranks
	g.BytesPerToken = int(first.BytesPerBlock) / g.BlockTokens * ranks
	g.Regions *= ranks
	return g, nil
}

// blockBytes is the length of one block in one region.
func (g Geometry) blockBytes() int { return g.BytesPerToken / g.Regions * g.BlockTokens }

// Blocks is the number of blocks that hold tokens, in each layer group.
func (g Geometry) Blocks(tokens int) int { return (tokens + g.BlockTokens - 1) / g.BlockTokens }

// windows are those of the layer groups.
func (g Geometry) windows() []int {
	if g.Windows == nil {
		return []int{0}
	}
	return g.Windows
}

// skipped is how many blocks of a prompt, from the first, the decode engine does not
// load of each layer group: those that end before the window of the next token.
func (g Geometry) skipped(tokens int) []int {
	out := make([]int, len(g.windows()))
	for i, w := range g.windows() {
		if w > 0 {
			out[i] = max(0, tokens-w+1) / g.BlockTokens
		}
	}
	return out
}

// clip is how many blocks of a prompt the prefill engine hands over of each layer
// group: of a window as many as it may ever cover, and so at times one more than the
// decode engine loads.
func (g Geometry) clip(tokens int) []int {
	out := make([]int, len(g.windows()))
	for i, w := range g.windows() {
		if out[i] = g.Blocks(tokens); w > 0 {
			out[i] = min(out[i], g.Blocks(w)+1)
		}
	}
	return out
}

// Config describes one engine. The zero values of Geometry, Blocks, Order,
// Model and Release mean the defaults named there.
type Config struct {
	Role  Role
	Model string // served name, "simulated" by default
	// Release is the vLLM release whose metrics are shown, "0.32.0" by default.
	// Before 0.16 there is no prompt_tokens_by_source.
	Release  string
	Geometry Geometry // Qwen25 by default
	Blocks   int      // of the pool, with block 0; 200 by default
	Order    pool.Order
	// DType is the cache_dtype that the metrics page states, "auto" by default.
	DType string
	// Push plays NixlPushConnector: the prefill engine counts the transfers, as if it had
	// written what the decode engine reads all the same.
	Push bool
	// Caching lets the block pool keep freed blocks as with prefix caching on. No
	// request ever hits the cache, except by a fault.
	Caching bool
	// Transport is the provider of package transport that moves the KV cache of an engine
	// made by [Listen]: "socket" (kernel TCP) by default, "tcp", "efa", "ucx:tcp", ….
	Transport string
	// MaxTokens is the longest prompt and output together, 131,072 by default.
	MaxTokens int

	PrefillTime     time.Duration // constant part of a prompt's computation
	PrefillPerToken time.Duration
	// Parallel is how many prompts are computed at once, each in its whole time; 1
	// by default, which makes a queue.
	Parallel   int
	StepTime   time.Duration // one decode step: the one-token forward and each later token
	MoverDelay time.Duration // added to each transfer: a slow peer
	Lease      time.Duration // how long a prefill engine keeps blocks, 30 s by default
	// Recompute computes the prompt locally when a transfer fails, as
	// kv_load_failure_policy "recompute" does; otherwise the request fails.
	Recompute bool

	Faults []Injection
	// Pings sends comment lines between events; Split sends each event in two
	// pieces with a flush between. Neither is a fault.
	Pings, Split bool
	// HideSeries leaves series of the metrics page out whose name contains one of
	// these.
	HideSeries []string
}

// Fault is something that goes wrong in an engine.
type Fault string

// Faults and the engine in which they take place.
const (
	NullParams      Fault = "null-params"      // prefill: kv_transfer_params is null
	PrefixHit       Fault = "prefix-hit"       // prefill, unified: all but the last block was cached
	DecodePrefixHit Fault = "decode-cache-hit" // decode: so it loads only one block
	SilentRecompute Fault = "silent-recompute" // decode: ignores the parameters and computes the prompt
	FailedTransfer  Fault = "failed-transfer"  // decode: the transfer fails, then as Recompute says
	ExpiredLease    Fault = "expired-lease"    // prefill: releases the blocks at once
	ShortTransfer   Fault = "short-transfer"   // decode: loads one block less of the last layer group
	ShortWindow     Fault = "short-window"     // decode: loads one block less of the first layer group
	ExcessTransfer  Fault = "excess-transfer"  // decode: loads one block of the last layer group twice
	ShortRank       Fault = "short-rank"       // decode: its last rank loads one block less
	ShortList       Fault = "short-list"       // prefill: hands over one block less of the first layer group
	DyingPeer       Fault = "dying-peer"       // prefill: its memory server goes away when the transfer begins
	StreamError     Fault = "stream-error"     // decode, unified: an error inside the stream after the first token
	TruncatedStream Fault = "truncated"        // decode, unified: the connection is cut after the first token
	NoUsage         Fault = "no-usage"         // decode, unified: no usage chunk
	EarlyEOS        Fault = "early-eos"        // decode, unified: ends after one token
	Hang            Fault = "hang"             // any: never answers
	ServerError     Fault = "server-error"     // any: status 500
	NoMetrics       Fault = "no-metrics"       // any: /metrics is not there
)

// Faults lists all faults.
func Faults() []Fault {
	return []Fault{NullParams, PrefixHit, DecodePrefixHit, SilentRecompute, FailedTransfer, ExpiredLease, ShortTransfer,
		ShortWindow, ExcessTransfer, ShortRank, ShortList, DyingPeer, StreamError, TruncatedStream, NoUsage, EarlyEOS, Hang, ServerError, NoMetrics}
}

// Injection injects a fault into every Every-th request, 1 for all.
type Injection struct {
	Fault Fault
	Every int
}

// ParseInjection reads FAULT or FAULT:EVERY.
func ParseInjection(s string) (Injection, error) {
	name, every, has := strings.Cut(s, ":")
	in := Injection{Fault: Fault(name), Every: 1}
	if !slices.Contains(Faults(), in.Fault) {
		var names []string
		for _, f := range Faults() {
			names = append(names, string(f))
		}
		return in, fmt.Errorf("unknown fault %q; use one of %s", name, strings.Join(names, ", "))
	}
	if has {
		n, err := strconv.Atoi(every)
		if err != nil || n < 1 {
			return in, fmt.Errorf("fault %s: %q is no count; NAME:N hits every N-th request", name, every)
		}
		in.Every = n
	}
	return in, nil
}

// filled is the configuration with defaults, or why it cannot be.
func (c Config) filled() (Config, error) {
	c.Model = cmp.Or(c.Model, "simulated")
	c.Release = cmp.Or(c.Release, "0.32.0")
	c.DType = cmp.Or(c.DType, "auto")
	if c.Geometry.Regions == 0 {
		c.Geometry = Qwen25
	}
	c.Geometry.Ranks = cmp.Or(c.Geometry.Ranks, 1)
	c.Blocks = cmp.Or(c.Blocks, 200)
	c.Order = cmp.Or(c.Order, pool.FIFO)
	c.MaxTokens = cmp.Or(c.MaxTokens, 131_072)
	c.Parallel = cmp.Or(c.Parallel, 1)
	c.Lease = cmp.Or(c.Lease, 30*time.Second)
	return c, c.check()
}

// maxGroups bounds the layer groups of a model.
const maxGroups = 1 << 10

// check tells why a configuration with defaults cannot be.
func (c Config) check() error {
	if !slices.Contains([]Role{Prefill, Decode, Unified}, c.Role) {
		return fmt.Errorf("unknown role %q; use prefill, decode or unified", c.Role)
	}
	if c.Parallel < 1 {
		return fmt.Errorf("%d prompts at once", c.Parallel)
	}
	g := c.Geometry
	if g.BlockTokens < 1 || g.Regions < 1 || g.BytesPerToken < 8*g.Regions || g.BytesPerToken%g.Regions != 0 {
		return fmt.Errorf("a KV cache of %d regions with %d bytes a token in blocks of %d tokens: the bytes must divide evenly, 8 or more a region",
			g.Regions, g.BytesPerToken, g.BlockTokens)
	}
	if g.Ranks < 1 || g.Regions%g.Ranks != 0 || len(g.Windows) > maxGroups || slices.ContainsFunc(g.Windows, func(w int) bool { return w < 0 }) {
		return fmt.Errorf("%d regions over %d ranks in groups with windows of %v tokens: the ranks must divide the regions, and windows be 0 or more", g.Regions, g.Ranks, g.Windows)
	}
	if c.Blocks < 2 || float64(c.Blocks)*float64(g.BlockTokens)*float64(g.BytesPerToken) > math.MaxInt32*64 {
		return fmt.Errorf("a pool of %d blocks of %d bytes: from 2 blocks to 128 GiB are possible", c.Blocks, g.BlockTokens*g.BytesPerToken)
	}
	for name, d := range map[string]time.Duration{"prefill time": c.PrefillTime, "prefill time per token": c.PrefillPerToken,
		"step time": c.StepTime, "transfer delay": c.MoverDelay, "lease": c.Lease} {
		if d < 0 {
			return fmt.Errorf("%s %s is negative", name, d)
		}
	}
	for _, in := range c.Faults {
		if in.Every < 1 {
			return fmt.Errorf("fault %s on every %d-th request: the number must be at least 1", in.Fault, in.Every)
		}
	}
	return nil
}
