package kv

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Connectors are the KV connectors whose transfers this package knows: vLLM's
// NixlConnector, where the decode engine reads, and NixlPushConnector, where the
// prefill engine writes. Both move the same bytes.
const (
	NIXL     = "nixl"
	NIXLPush = "nixl-push"
)

// Connectors returns all connectors.
func Connectors() []string { return []string{NIXL, NIXLPush} }

// Deployment is what of a pair of engines decides which part of a KV cache crosses.
type Deployment struct {
	// Connector is one of [Connectors]; empty is [NIXL].
	Connector string
	// Hybrid says that the engines run the hybrid KV cache manager, which keeps and
	// sends of windowed layers the last blocks alone. vLLM does with NIXL since 0.23;
	// for chunked attention it does not, and Hybrid is ignored.
	Hybrid bool
	// BlockTokens is the tokens of a KV block as the engine states them; 0 is
	// [DefaultBlockTokens]. A hybrid with state layers raises it until a block of
	// attention holds a state; a smaller number here is raised the same way.
	BlockTokens int
	// PrefillTP and DecodeTP are the tensor-parallel ranks of both engines; 0 is 1.
	PrefillTP, DecodeTP int
	// DraftLayers are the layers of a multi-token-prediction or EAGLE head, each of
	// which keeps a cache like the model's first full or latent layers and sends it.
	DraftLayers int
	// CacheDType, when set, takes the place of the model's DType.
	CacheDType DType
	// Version is the engine's release, such as "0.32.0"; it decides how K and V of a
	// block lie (one descriptor or two). Empty: not known, both are possible.
	Version string
}

// Crossing is what one request moves from prefill to decode, all ranks together as
// NIXL counts them: from the smallest to the largest valid transfer of a prompt that
// the decode engine holds nothing of.
type Crossing struct {
	// BlockTokens is the tokens of a KV block of the first group, after rounding.
	BlockTokens int
	// Groups are the engine's lists of blocks, in its order: of each, the prefill
	// answer's remote_block_ids holds one list. A 0 in a list stands for a block that
	// the engine has freed and does not move.
	Groups []GroupCrossing
	// BytesLo and BytesHi are over all groups and ranks.
	BytesLo, BytesHi int64
	// DescriptorsLo is when all blocks lie side by side, DescriptorsHi when none do.
	DescriptorsLo, DescriptorsHi int64
	// Transfers is the number of NIXL transfers.
	Transfers int
}

// GroupCrossing is the part of one list of blocks.
type GroupCrossing struct {
	// Kind is that of its layers; groups that share a list are named by the first.
	Kind Kind
	// Layers is the layers of the model that it has. An engine that splits layers into
	// lists of equal length moves the regions that a shorter list leaves empty too.
	Layers int
	// BlockTokens is the tokens of one of its blocks; 0: a block is one request's state.
	BlockTokens int
	// Window is its window in tokens; 0: it has none.
	Window int
	// BlocksLo and BlocksHi are the blocks that move: of a window, what it covers
	// after the last token, and the most that the connector's clip lets through.
	BlocksLo, BlocksHi int
	// BytesPerBlock is the bytes of one block in all its regions, on one rank of the
	// decode engine.
	BytesPerBlock int64
	// BytesLo and BytesHi are over all ranks.
	BytesLo, BytesHi int64
}

// maxCrossingTokens is the longest prompt.
const maxCrossingTokens = 1 << 40

// Crossing works out what a prompt of tokens moves in d.
//
// Source: vLLM 0.32.0. Lists of blocks: get_kv_cache_groups in v1/core; what a list
// sends: get_exchange_clipped_blocks and get_num_skipped_tokens; regions:
// register_kv_caches and _compute_desc_ids; ranks: compute_tp_mapping. Held to
// captured engines by the tests.
func (m Model) Crossing(tokens int, d Deployment) (Crossing, error) {
	lists, err := m.lists(&d)
	if err != nil {
		return Crossing{}, err
	}
	if tokens < 1 || tokens > maxCrossingTokens {
		return Crossing{}, fmt.Errorf("a prompt of %d tokens: the number must be from 1 to %d", tokens, maxCrossingTokens)
	}
	c := Crossing{Transfers: m.transfers(d)}
	last := tokens - m.backoff(d)
	for _, l := range lists {
		if c.BlockTokens == 0 {
			c.BlockTokens = l.tokens
		}
		g := GroupCrossing{Kind: l.kind, Layers: l.layers, BlockTokens: l.tokens, Window: l.window, BytesPerBlock: l.blockBytes()}
		g.BlocksLo, g.BlocksHi = l.blocks(int64(max(1, last)), int64(tokens))
		var lo, hi bool
		g.BytesLo, lo = mul(int64(g.BlocksLo)*int64(d.DecodeTP), g.BytesPerBlock)
		g.BytesHi, hi = mul(int64(g.BlocksHi)*int64(d.DecodeTP), g.BytesPerBlock)
		if !lo || !hi || c.BytesHi > math.MaxInt64-g.BytesHi {
			return Crossing{}, fmt.Errorf("%d tokens of %s over %d ranks are %w", tokens, m.Name, d.DecodeTP, ErrTooLarge)
		}
		c.Groups = append(c.Groups, g)
		c.BytesLo, c.BytesHi = c.BytesLo+g.BytesLo, c.BytesHi+g.BytesHi
	}
	c.DescriptorsLo, c.DescriptorsHi = m.descriptors(lists, c.Groups, d)
	return c, nil
}

// backoff is the last tokens of a prompt that the prefill engine leaves to the
// decode engine: one before a state, which must not have seen the token that is
// decoded first, and all but one of a draft head with several modules.
func (m Model) backoff(d Deployment) int {
	n := max(0, d.DraftLayers-1)
	if slices.ContainsFunc(m.Groups, func(g Group) bool { return g.Kind == State }) {
		n = max(n, 1)
	}
	return n
}

// span is regions that hold a block of the same length each. kv says that it has a K
// and a V of one length, which older engines lay apart.
type span struct {
	regions int
	bytes   int64
	kv      bool
}

// list is layers that share the numbers of their blocks.
type list struct {
	kind   Kind
	layers int
	tokens int   // of a block; 0: a state
	every  int64 // tokens of a slot
	window int
	spans  []span
	states []Tensor // of a state, what NIXL moves one by one
	cut    int      // kernel blocks of a block
}

func (l list) blockBytes() (n int64) {
	for _, s := range l.spans {
		n += int64(s.regions) * s.bytes
	}
	return n
}

func (l list) regions() (n int) {
	for _, s := range l.spans {
		n += s.regions
	}
	return n
}

// pieces are the lengths of the descriptors of a state in one region of one of tp
// ranks.
func (l list) pieces(tp int) (out []int64) {
	for _, t := range l.states {
		n := int64(share(t.Shards, tp)) * int64(t.Values) * t.DType.Bytes()
		if t.Pieces == 0 && len(out) > 0 {
			out[len(out)-1] += n
			continue
		}
		parts := int64(max(1, t.Pieces))
		for i := range parts {
			out = append(out, n*(i+1)/parts-n*i/parts)
		}
	}
	return out
}

// blocks is the fewest and the most blocks that move of a prompt of n tokens of which
// the prefill engine computes the first last.
func (l list) blocks(last, n int64) (lo, hi int) {
	b, w := int64(l.tokens), int64(l.window)
	if b == 0 {
		return 1, 1
	}
	keep := func(n int64) int64 { return ceilDiv(n, b) }
	var a, z int64
	switch l.kind {
	case Cross:
		a = keep(w)
		z = a
	case Sliding:
		clip := ceilDiv(w, b) + 1
		a = min(keep(last)-max(0, last-w+1)/b, clip)
		z = min(keep(n), clip)
	case Chunked:
		a = keep(last) - last/w*w/b
		z = keep(n) - (last/w*w)/b
	default:
		a, z = keep(last), keep(n)
	}
	return int(min(a, z, math.MaxInt32)), int(min(max(a, z), math.MaxInt32))
}

// fill replaces what is empty in d and reports what cannot be.
func (d *Deployment) fill() error {
	for _, n := range []*int{&d.PrefillTP, &d.DecodeTP} {
		if *n == 0 {
			*n = 1
		}
	}
	if d.BlockTokens == 0 {
		d.BlockTokens = DefaultBlockTokens
	}
	if d.Connector == "" {
		d.Connector = NIXL
	}
	if !slices.Contains(Connectors(), d.Connector) {
		return fmt.Errorf("unknown connector %q; use %s", d.Connector, strings.Join(Connectors(), " or "))
	}
	if d.BlockTokens < 1 || d.BlockTokens > MaxBlockTokens {
		return fmt.Errorf("KV blocks of %d tokens: the number must be from 1 to %d", d.BlockTokens, MaxBlockTokens)
	}
	if d.DraftLayers < 0 || d.DraftLayers > maxLayers {
		return fmt.Errorf("%d draft layers: the number must be from 0 to %d", d.DraftLayers, maxLayers)
	}
	if d.PrefillTP%d.DecodeTP != 0 && d.DecodeTP%d.PrefillTP != 0 {
		return fmt.Errorf("%d ranks of prefill and %d of decode: one must divide the other", d.PrefillTP, d.DecodeTP)
	}
	return nil
}

// drafted is the model with the layers of its draft head.
func (m Model) drafted(d Deployment) Model {
	if d.CacheDType != "" {
		m.DType = d.CacheDType
	}
	if d.DraftLayers == 0 {
		return m
	}
	m.Groups = slices.Clone(m.Groups)
	for _, kind := range []Kind{Full, Latent, Sliding} {
		if i := slices.IndexFunc(m.Groups, func(g Group) bool { return g.Kind == kind }); i >= 0 {
			m.Groups[i].Layers += d.DraftLayers
			for j := range m.Groups {
				if kind == Latent && m.Groups[j].Kind == Index {
					m.Groups[j].Layers += d.DraftLayers
				}
			}
			return m
		}
	}
	return m
}

// lists are the engine's lists of blocks, each with the bytes of one rank of the
// decode engine. It fills in d.
func (m Model) lists(d *Deployment) ([]list, error) {
	if err := d.fill(); err != nil {
		return nil, err
	}
	m = m.drafted(*d)
	for _, tp := range []int{d.PrefillTP, d.DecodeTP} {
		if _, err := m.Rank(tp); err != nil {
			return nil, err
		}
	}
	hybrid := d.Hybrid
	if slices.ContainsFunc(m.Groups, func(g Group) bool { return g.Kind == Chunked }) {
		hybrid = false
	}
	specs, err := m.specs(*d, hybrid)
	if err != nil {
		return nil, err
	}
	if one, ok := uniform(specs); ok {
		return []list{one}, nil
	}
	if !hybrid {
		return nil, fmt.Errorf("the layers of %s do not fit one list of KV blocks, and without the hybrid KV cache manager there is one", m.Name)
	}
	return divide(specs, m.Name)
}

// spec is layers with the page that a block takes in each of them.
type spec struct {
	list
	page  int64 // what blocks are laid out by
	moves int64 // what of it moves
	kv    bool
}

// specs are the groups of m as the engine's KV cache manager sees them.
func (m Model) specs(d Deployment, hybrid bool) ([]spec, error) {
	block := m.blockTokens(d)
	plain := slices.ContainsFunc(m.Groups, func(g Group) bool { return g.Kind == Full || g.Kind == Latent || g.Kind == Index })
	var out []spec
	for _, g := range m.Groups {
		s := spec{list: list{kind: g.Kind, layers: g.Layers, window: g.Window, every: g.every(), cut: 1}, kv: g.KeyDim == g.ValueDim && g.SlotBytes == 0}
		if g.Kind == State {
			s.page, s.states = g.state(d.DecodeTP), g.States
		} else {
			s.tokens = block
			if int64(block)%s.every != 0 {
				return nil, fmt.Errorf("KV blocks of %d tokens do not hold whole slots of %d tokens; use a multiple of it", block, s.every)
			}
			page, ok := mul(int64(block)/s.every, g.slot(m.DType, d.DecodeTP))
			if all, fits := mul(page, int64(g.Layers)); !ok || !fits || all > math.MaxInt64/maxGroups {
				return nil, fmt.Errorf("KV blocks of %d tokens of %s are %w", block, m.Name, ErrTooLarge)
			}
			s.page = page
		}
		s.moves = s.page
		if g.windowed() && !hybrid && plain {
			s.kind, s.window = Full, 0
		}
		out = append(out, s)
	}
	return out, nil
}

// stateAlign is what blocks are a multiple of where attention shares memory with
// states; mlaAlign where that attention is latent.
const (
	stateAlign = 16
	mlaAlign   = 128
)

// blockTokens is the tokens of a KV block: as d says, or the fewest whose page of
// attention is not smaller than a state (_align_hybrid_block_size).
func (m Model) blockTokens(d Deployment) int {
	var state, slot int64
	align := max(stateAlign, d.BlockTokens)
	for _, g := range m.Groups {
		switch {
		case g.Kind == State:
			state = max(state, g.state(d.DecodeTP))
		case slot == 0:
			slot = g.slot(m.DType, d.DecodeTP)
			if g.Kind == Latent {
				align = max(align, mlaAlign)
			}
		}
	}
	if state == 0 || slot == 0 || int64(d.BlockTokens)*slot >= state {
		return d.BlockTokens
	}
	return int(min(int64(align)*ceilDiv(state, int64(align)*slot), MaxBlockTokens))
}

// uniform is the one list of layers that are all of one type: windows of one length,
// or none.
func uniform(specs []spec) (list, bool) {
	one := specs[0].list
	one.layers = 0
	for _, s := range specs {
		mixed := s.kind != one.kind && (s.window != 0 || one.window != 0 || s.kind == State || one.kind == State)
		if mixed || s.window != one.window || s.tokens != one.tokens {
			return list{}, false
		}
		if s.kind == State && s.moves != specs[0].moves {
			return list{}, false
		}
		one.layers += s.layers
		one.spans = append(one.spans, span{s.layers, s.moves, s.kv})
	}
	return one, true
}

// divide is the lists of layers of several types. All blocks take one page: a group
// with a smaller one has more tokens per block where that fits, and is padded where it
// does not. Layers of a type are dealt out over lists of one length, and all lists
// share the memory of as many regions.
func divide(specs []spec, name string) ([]list, error) {
	var page int64
	state := false
	for _, s := range specs {
		page = max(page, s.page)
		state = state || s.kind == State
	}
	for i := range specs {
		s := &specs[i]
		switch {
		case s.page == page || s.kind == State:
		case page%s.page == 0 && s.tokens <= MaxBlockTokens/int(page/s.page):
			s.tokens *= int(page / s.page)
			s.moves = page
		case s.kind == Latent || s.kind == Index:
			return nil, fmt.Errorf("blocks of %d and %d bytes of %s cannot share memory: vLLM refuses it", s.page, page, name)
		default:
			s.moves = page
		}
	}
	size := groupSize(specs)
	var out []list
	for _, s := range specs {
		n := (s.layers + size - 1) / size
		for i := range n {
			l := s.list
			l.layers = (s.layers - i + n - 1) / n
			if state && l.tokens > 0 {
				l.cut = max(1, l.tokens/stateAlign)
			}
			l.spans = []span{{bytes: s.moves, kv: s.kv}}
			out = append(out, l)
		}
	}
	for i, n := range regions(out, state) {
		out[i].spans[0].regions = n
	}
	return out, nil
}

// groupSize is how many layers a list has at most: those of the type with the fewest,
// or of the one with the most where that is less than half as many again.
func groupSize(specs []spec) int {
	least, most := specs[0].layers, specs[0].layers
	for _, s := range specs {
		least, most = min(least, s.layers), max(most, s.layers)
	}
	if 2*most < 3*least {
		return most
	}
	return least
}

// regions is how many regions a block of each list is moved in. A region that two
// lists use is moved for each; the rest of the longest list is its own. Next to
// states attention moves all regions, and a state those that hold one.
func regions(lists []list, state bool) []int {
	var first, second, states int
	for _, l := range lists {
		if l.layers > first {
			first, second = l.layers, first
		} else {
			second = max(second, l.layers)
		}
		if l.kind == State {
			states = max(states, l.layers)
		}
	}
	out := make([]int, len(lists))
	for i, l := range lists {
		switch {
		case l.kind == State:
			out[i] = states
		case state || l.layers == first:
			out[i] = first
		default:
			out[i] = second
		}
	}
	return out
}

// transfers is how many NIXL transfers a request takes: each rank of the decode engine
// reads from each rank of the prefill engine that holds a part of what it needs. The
// push connector's writes pair the same ranks.
func (m Model) transfers(d Deployment) int {
	if d.PrefillTP <= d.DecodeTP {
		return d.DecodeTP
	}
	each := d.PrefillTP / d.DecodeTP
	most := 1
	for _, g := range m.Groups {
		switch {
		case g.Kind == State:
			most = each
		case g.KVHeads > 0:
			// Ranks that hold the same heads are read once.
			most = max(most, min(each, max(1, g.KVHeads/d.DecodeTP)))
		}
	}
	return d.DecodeTP * most
}

// descriptors is the fewest and the most descriptors that NIXL is left with once it
// has merged neighbours. Lists that share regions merge across each other too.
func (m Model) descriptors(lists []list, groups []GroupCrossing, d Deployment) (lo, hi int64) {
	sources := int64(m.transfers(d))
	shared, states := 0, int64(0)
	for i, l := range lists {
		if l.kind == State {
			n := int64(l.regions()) * int64(len(l.pieces(d.DecodeTP)))
			states, hi = states+n, hi+n
			continue
		}
		shared = max(shared, l.regions())
		hi += int64(groups[i].BlocksHi) * int64(l.regions()) * int64(l.cut)
	}
	lo = int64(shared) + states
	if m.splitKV(d.Version, &lo) {
		hi *= 2
	}
	return lo * sources, hi * sources
}

// splitKV reports whether K and V of a block may lie apart; where they surely do, it
// doubles lo. Up to 0.22 with FlashAttention they do, from 0.26 on they lie together.
func (m Model) splitKV(version string, lo *int64) bool {
	if !slices.ContainsFunc(m.Groups, func(g Group) bool { return g.ValueDim > 0 }) {
		return false
	}
	var major, minor int
	if n, err := fmt.Sscanf(version, "%d.%d", &major, &minor); n < 2 || err != nil {
		return true
	}
	if major > 0 || minor >= 26 {
		return false
	}
	if minor <= 22 {
		*lo *= 2
	}
	return true
}
