package kv

import (
	"encoding/json"
	"slices"
	"strings"
)

// rules read a configuration's layers by the rules of vLLM's class: its query heads,
// and what each layer that has a cache keeps.
var rules = map[string]func(*config) (heads int, layers []Group){
	"grouped":       grouped,
	"gpt-oss":       grouped,
	"rnj":           rnj,
	"multi-head":    multiHead,
	"falcon":        falcon,
	"chatglm":       chatGLM,
	"minicpm3":      miniCPM3,
	"step3":         step3,
	"step3.5":       step35,
	"mimo-v2":       mimoV2,
	"gemma4":        gemma4,
	"nas":           nemotronNAS,
	"hrm":           hrm,
	"loop":          loopCoder,
	"windows":       listedWindows,
	"text-part":     textPart,
	"full-index":    fullIndex,
	"llama4":        llama4,
	"muse":          muse,
	"latent":        latent,
	"latent-double": latentDouble,
	"latent-index":  latentIndex,
	"mamba":         mamba,
	"mamba2":        mamba2,
	"jamba":         jamba,
	"nemotron-h":    nemotronH,
	"falcon-h1":     falconH1,
	"granite-h":     graniteH,
	"zamba2":        zamba2,
	"lfm2":          lfm2,
	"gated-delta":   gatedDelta,
	"bailing-2.5":   bailing25,
	"bailing-3":     bailing3,
	"kimi-linear":   kimiLinear,
	"kimi-flat":     kimiFlat,
}

// repeat is n layers that keep g.
func repeat(g Group, n int) []Group { return slices.Repeat([]Group{g}, n) }

// attention is a layer of full attention by the fields that most configurations have,
// and the query heads.
func (c *config) attention() (heads int, g Group) {
	heads = c.int("num_attention_heads")
	g = Group{Kind: Full, KVHeads: c.kvHeads(heads), KeyDim: c.headDim(heads)}
	g.ValueDim = g.KeyDim
	return heads, g
}

// kvHeads is the number of KV heads. Where a file says null, and where its class has no
// number of its own, they are the query heads; a class that is not known may have one.
func (c *config) kvHeads(heads int) int {
	if _, null := c.fields[c.own("num_key_value_heads")]; c.defaults == nil && !null {
		return c.int("num_key_value_heads")
	}
	return c.intOr("num_key_value_heads", heads)
}

// headDim is the width of a head: as given, or the hidden state's share.
func (c *config) headDim(heads int) int {
	if c.has("head_dim") && !c.arch.Derived {
		return c.int("head_dim")
	}
	if !c.has("hidden_size") {
		c.fail("%s is missing, and so is head_dim", c.own("hidden_size"))
		return 1
	}
	hidden := c.int("hidden_size")
	if hidden%heads != 0 {
		c.fail("%s %d is not a multiple of %s %d, and head_dim is missing", c.own("hidden_size"), hidden, c.own("num_attention_heads"), heads)
		return 1
	}
	return hidden / heads
}

// letters are the kinds of layer_types by the letters of a pattern.
var letters = map[string]byte{
	"full_attention": 'F', "attention": 'F', "sliding_attention": 's', "chunked_attention": 'c', "linear_attention": 'l',
	"mamba": 'm', "conv": 'k', "indexed_attention": 'i', "moe": '-', "mlp": '-', "hybrid": 'h',
}

// kinds are the kinds of n layers, a letter each: as the file lists them, by the
// architecture's pattern, or empty where neither says.
func (c *config) kinds(field string, n int) string {
	types, ok := read[[]string](c, field)
	if !ok {
		pattern := c.arch.Pattern
		if c.arch.Every != "" && c.has(c.arch.Every) {
			pattern = strings.Repeat(pattern[:1], c.int(c.arch.Every)-1) + "F"
		}
		if pattern == "" {
			return ""
		}
		return strings.Repeat(pattern, n/len(pattern)+1)[:n]
	}
	if len(types) != n {
		c.fail("%s has %d entries for %d layers", field, len(types), n)
		return strings.Repeat("F", n)
	}
	b := make([]byte, n)
	for i, t := range types {
		if b[i] = letters[t]; b[i] == 0 {
			c.fail("the KV cache of a layer of type %.80q is not known", t)
		}
	}
	return string(b)
}

// window is the length of the sliding window in tokens; 0: there is none.
func (c *config) window() int {
	w, ok := read[int](c, "sliding_window")
	switch {
	case !ok || w == 0, c.has("use_sliding_window") && !c.is("use_sliding_window"):
		return 0
	case w < 0 || w > maxWindow:
		c.fail("%s is %d; it must be at least 1, or null", c.own("sliding_window"), w)
		return 0
	}
	return w
}

// slide gives layer g the window.
func slide(g Group, window int) Group {
	if window > 0 {
		g.Kind, g.Window = Sliding, window
	}
	return g
}

// windows are n layers like g, some or all of them with a window. vLLM takes
// sliding_window for all layers where no list of kinds says otherwise.
func (c *config) windows(g Group, n int) []Group {
	w := c.window()
	kinds := c.kinds("layer_types", n)
	if kinds == "" && c.has("max_window_layers") { // Qwen: layers from there on
		from, _ := read[int](c, "max_window_layers")
		b := []byte(strings.Repeat("F", n))
		for i := max(0, from); i < n && w > 0; i++ {
			b[i] = 's'
		}
		kinds = string(b)
	}
	out := repeat(g, n)
	all := strings.Trim(kinds, "s") == ""
	if !c.arch.ByLayer && !all && w > 0 && strings.Contains(kinds, "s") {
		c.fail("some of its layers have a window, which vLLM's class does not take")
	}
	for i := range out {
		switch {
		case c.arch.ByLayer && kinds != "" && kinds[i] == 's':
			if w == 0 {
				c.fail("%s is missing, and layer %d slides", c.own("sliding_window"), i)
			}
			out[i] = slide(g, w+c.arch.Beyond)
		case all:
			out[i] = slide(g, w)
		}
	}
	return out
}

// grouped is attention with K and V per KV head in every layer; the last
// num_kv_shared_layers read the caches of others.
func grouped(c *config) (int, []Group) {
	heads, g := c.attention()
	n := c.layers()
	out := c.windows(g, n)
	shared, _ := read[int](c, "num_kv_shared_layers")
	if shared < 0 || shared >= n {
		c.fail("num_kv_shared_layers is %d of %d layers", shared, n)
		shared = 0
	}
	return heads, out[:n-shared]
}

// rnj gives the layers that attend to a chunk a window.
func rnj(c *config) (int, []Group) {
	heads, g := c.attention()
	out := repeat(g, c.layers())
	for i, k := range c.kinds("layer_types", len(out)) {
		if k == 'c' {
			out[i] = slide(g, c.window())
		}
	}
	return heads, out
}

// multiHead has as many KV heads as query heads, whatever the file says.
func multiHead(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	d := c.headDim(heads)
	return heads, c.windows(Group{Kind: Full, KVHeads: heads, KeyDim: d, ValueDim: d}, c.layers())
}

func falcon(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	g := Group{Kind: Full, KVHeads: heads, KeyDim: c.headDim(heads)}
	switch {
	case c.is("new_decoder_architecture"):
		g.KVHeads = c.intOr("num_kv_heads", heads)
	case c.is("multi_query"):
		g.KVHeads = 1
	}
	g.ValueDim = g.KeyDim
	return heads, repeat(g, c.layers())
}

func chatGLM(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	g := Group{Kind: Full, KVHeads: heads, KeyDim: c.headDim(heads)}
	if c.is("multi_query_attention") {
		g.KVHeads = c.int("multi_query_group_num")
	}
	g.ValueDim = g.KeyDim
	return heads, repeat(g, c.layers())
}

// miniCPM3 decompresses its latent before it caches it.
func miniCPM3(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	d := c.int("qk_nope_head_dim") + c.int("qk_rope_head_dim")
	return heads, repeat(Group{Kind: Full, KVHeads: heads, KeyDim: d, ValueDim: d}, c.layers())
}

// step3 has one KV head.
func step3(c *config) (int, []Group) {
	d := c.int("head_dim")
	return c.int("num_attention_heads"), repeat(Group{Kind: Full, KVHeads: c.int("num_attention_groups"), KeyDim: d, ValueDim: d}, c.layers())
}

// step35 gives one kind of layers heads of its own.
func step35(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	full := Group{Kind: Full, KVHeads: c.int("num_attention_groups"), KeyDim: c.headDim(heads)}
	full.ValueDim = full.KeyDim
	n := c.layers()
	kinds, w := c.kinds("layer_types", n), c.window()
	other, _ := read[string](c, "attention_other_setting.attention_type")
	out := repeat(full, n)
	for i := range out {
		sliding := kinds == "" && i%2 == 0 || kinds != "" && kinds[i] == 's'
		if kinds != "" && other != "" && letters[other] == kinds[i] {
			out[i].KVHeads = c.int("attention_other_setting.num_attention_groups")
			out[i].KeyDim = c.int("attention_other_setting.head_dim")
			out[i].ValueDim = out[i].KeyDim
		}
		if sliding {
			out[i] = slide(out[i], w)
		}
	}
	return heads, out
}

// mimoV2 has values narrower than keys, and windowed layers with heads of their own.
func mimoV2(c *config) (int, []Group) {
	heads, full := c.attention()
	full.ValueDim = c.intOr("v_head_dim", full.KeyDim)
	n := c.layers()
	pattern, ok := read[[]int](c, "hybrid_layer_pattern")
	if !ok || len(pattern) != n {
		c.fail("hybrid_layer_pattern has %d entries for %d layers", len(pattern), n)
		return heads, nil
	}
	out := repeat(full, n)
	for i, p := range pattern {
		if p == 1 {
			s := Group{Kind: Full, KVHeads: c.int("swa_num_key_value_heads"), KeyDim: c.int("swa_head_dim")}
			s.ValueDim = c.intOr("swa_v_head_dim", s.KeyDim)
			out[i] = slide(s, c.window())
		}
	}
	return heads, out
}

// gemma4 gives full layers a head_dim, and where K is V a number of heads, of their
// own. The last num_kv_shared_layers read the caches of others.
func gemma4(c *config) (int, []Group) {
	heads, sliding := c.attention()
	full := sliding
	full.KeyDim = c.intOr("global_head_dim", 512)
	full.ValueDim = full.KeyDim
	if c.is("attention_k_eq_v") {
		full.KVHeads = c.intOr("num_global_key_value_heads", full.KVHeads)
	}
	n := c.layers()
	kinds := c.kinds("layer_types", n)
	shared, _ := read[int](c, "num_kv_shared_layers")
	if shared < 0 || shared >= n {
		c.fail("num_kv_shared_layers is %d of %d layers", shared, n)
		shared = 0
	}
	out := repeat(full, n-shared)
	for i := range out {
		if kinds[i] == 's' && (c.has("layer_types") || i < n-1) { // the last layer is full
			out[i] = slide(sliding, c.window())
		}
	}
	return heads, out
}

// nemotronNAS leaves attention out of some blocks and groups heads by block.
func nemotronNAS(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	blocks, _ := read[[]struct {
		Attention struct {
			NoOp        bool `json:"no_op"`
			HeadsInGrp  *int `json:"n_heads_in_group"`
			Replacement bool `json:"replace_with_linear"`
		} `json:"attention"`
	}](c, "block_configs")
	n := c.layers()
	if len(blocks) != n {
		c.fail("block_configs has %d entries for %d layers", len(blocks), n)
		return heads, nil
	}
	d := c.headDim(heads)
	var out []Group
	for _, b := range blocks {
		switch a := b.Attention; {
		case a.NoOp || a.Replacement:
		case a.HeadsInGrp == nil || *a.HeadsInGrp < 1 || heads%*a.HeadsInGrp != 0:
			c.fail("block_configs: n_heads_in_group is missing or does not divide %d heads", heads)
		default:
			out = append(out, Group{Kind: Full, KVHeads: heads / *a.HeadsInGrp, KeyDim: d, ValueDim: d})
		}
	}
	return heads, out
}

// hrm runs its two stacks in cycles, each step with a cache of its own.
func hrm(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	d := c.headDim(heads)
	steps := c.int("H_cycles") * (c.int("L_cycles") + 1)
	layers := c.int("num_layers_per_stack")
	if steps > maxLayers/layers {
		c.fail("%d steps of %d layers are more than %d layers", steps, layers, maxLayers)
		return heads, nil
	}
	return heads, repeat(Group{Kind: Full, KVHeads: heads, KeyDim: d, ValueDim: d}, steps*layers)
}

// loopCoder runs its layers several times; from the second time on with a window.
func loopCoder(c *config) (int, []Group) {
	heads, g := c.attention()
	n, loops := c.layers(), c.intOr("loop_num", 2)
	if loops > maxLayers/n {
		c.fail("loop_num is %d for %d layers", loops, n)
		return heads, nil
	}
	local := slide(g, c.intOr("loop_window_size", 64))
	return heads, append(repeat(g, n), repeat(local, n*(loops-1))...)
}

// listedWindows has a window of its own for each layer, by a list that repeats, and
// may have values of a width of their own.
func listedWindows(c *config) (int, []Group) {
	heads, g := c.attention()
	g.ValueDim = c.intOr("v_channels", g.KeyDim)
	out := repeat(g, c.layers())
	raw := c.raw("interleaved_sliding_window")
	if raw == nil {
		return heads, out
	}
	var list []*int
	if json.Unmarshal(raw, &list) != nil {
		list = []*int{new(int)}
		*list[0] = c.int("interleaved_sliding_window")
	}
	for i := range out {
		if len(list) > 0 && list[i%len(list)] != nil {
			out[i] = slide(g, c.positive("interleaved_sliding_window", *list[i%len(list)]))
		}
	}
	return heads, out
}

// textPart is a model that another one's configuration inside its own describes.
func textPart(c *config) (int, []Group) {
	c.fail("text_config is missing: it says which model this is")
	return 0, nil
}

// fullIndex is full attention whose later layers choose their blocks by an index of
// keys in bf16.
func fullIndex(c *config) (int, []Group) {
	heads, full := c.attention()
	n := c.layers()
	sparse, ok := read[[]int](c, "sparse_attention_config.sparse_attention_freq")
	if !ok || len(sparse) != n {
		c.fail("sparse_attention_config.sparse_attention_freq has %d entries for %d layers", len(sparse), n)
		return heads, nil
	}
	index := Group{Kind: Index, SlotBytes: 2 * c.int("sparse_attention_config.sparse_index_dim")}
	var out []Group
	for _, s := range sparse {
		out = append(out, full)
		if s != 0 {
			out = append(out, index)
		}
	}
	return heads, out
}

func llama4(c *config) (int, []Group) {
	heads, g := c.attention()
	n := c.layers()
	chunk := g
	if c.has("attention_chunk_size") {
		chunk.Kind, chunk.Window = Chunked, c.int("attention_chunk_size")
	}
	// 1: the layer has rotary positions and attends to its chunk.
	rope, ok := read[[]int](c, "no_rope_layers")
	if ok && len(rope) != 0 && len(rope) != n {
		c.fail("no_rope_layers has %d entries for %d layers", len(rope), n)
		return heads, nil
	}
	every := c.intOr("no_rope_layer_interval", 4)
	out := repeat(g, n)
	for i := range out {
		if len(rope) > 0 && rope[i] != 0 || len(rope) == 0 && (i+1)%every != 0 {
			out[i] = chunk
		}
	}
	return heads, out
}

// muse gives the layers with rotary positions a window.
func muse(c *config) (int, []Group) {
	heads, g := c.attention()
	return heads, c.windows(g, c.layers())
}

// latentVector is a layer of multi-head latent attention.
func (c *config) latentVector() Group {
	return Group{Kind: Latent, KeyDim: c.int("kv_lora_rank") + c.int("qk_rope_head_dim")}
}

func latent(c *config) (int, []Group) {
	return c.int("num_attention_heads"), repeat(c.latentVector(), c.layers())
}

// latentDouble has two attentions per layer.
func latentDouble(c *config) (int, []Group) {
	heads, layers := latent(c)
	return heads, append(layers, layers...)
}

// indexScale is the tokens' scale beside the keys of an index, a float32 per 128 values.
func indexSlot(dim int) int { return dim + (dim+127)/128*4 }

// latentIndex is latent attention whose layers choose their tokens by an index of fp8
// keys; some layers take the choice of the one before.
func latentIndex(c *config) (int, []Group) {
	heads, n := c.int("num_attention_heads"), c.layers()
	index := Group{Kind: Index, SlotBytes: indexSlot(c.int("index_head_dim"))}
	every, from := c.intOr("index_topk_freq", 1), c.intOr("index_skip_topk_offset", 2)
	pattern, _ := read[string](c, "index_topk_pattern")
	var out []Group
	for i := range n {
		skip := max(i-from+1, 0)%every != 0
		if pattern != "" {
			skip = i < len(pattern) && pattern[i] == 'S'
		}
		if !skip {
			out = append(out, index)
		}
		out = append(out, c.latentVector())
	}
	return heads, out
}

// State types: empty is the model's. vLLM's mamba_ssm_cache_dtype "auto" is the type
// of the activations, except where a model or its configuration says otherwise.
func (c *config) stateType(field string, or DType) DType {
	s, ok := read[string](c, field)
	if !ok {
		return or
	}
	d, err := ParseDType(s)
	if err != nil {
		c.fail("%s: %w", field, err)
	}
	return d
}

// selective is a layer of Mamba: inner channels, each with a state.
func selective(inner, state, kernel int) Group {
	return Group{Kind: State, States: []Tensor{{Shards: inner, Values: kernel - 1, Pieces: 1}, {Shards: inner, Values: state, Pieces: 1}}}
}

// structured is a layer of Mamba 2: heads of width values, each with a state, and
// groups of B and C before them.
func structured(heads, width, groups, state, kernel int, d DType) Group {
	return Group{Kind: State, States: []Tensor{
		{Shards: heads, Values: width * (kernel - 1), Pieces: 1}, {Shards: groups, Values: 2 * state * (kernel - 1), Pieces: 2},
		{Shards: heads, Values: width * state, DType: d, Pieces: 1}}}
}

// delta is a layer of gated delta attention: keys and values pass a convolution, and
// each value head has a matrix.
func delta(keys, values, keyDim, valueDim, kernel int, d DType) Group {
	return Group{Kind: State, States: []Tensor{
		{Shards: keys, Values: 2 * keyDim * (kernel - 1), Pieces: 2}, {Shards: values, Values: valueDim * (kernel - 1), Pieces: 1},
		{Shards: values, Values: keyDim * valueDim, DType: d, Pieces: 1}}}
}

func mamba(c *config) (int, []Group) {
	return 0, repeat(selective(c.int("intermediate_size"), c.int("state_size"), c.int("conv_kernel")), c.layers())
}

func mamba2(c *config) (int, []Group) {
	return 0, repeat(structured(c.int("num_heads"), c.int("head_dim"), c.int("n_groups"), c.int("state_size"), c.int("conv_kernel"), ""), c.layers())
}

func jamba(c *config) (int, []Group) {
	heads, full := c.attention()
	state := selective(c.int("mamba_expand")*c.int("hidden_size"), c.int("mamba_d_state"), c.int("mamba_d_conv"))
	offset, _ := read[int](c, "attn_layer_offset")
	out, period := repeat(state, c.layers()), c.int("attn_layer_period")
	for i := range out {
		if i%period == offset {
			out[i] = full
		}
	}
	return heads, out
}

func nemotronH(c *config) (int, []Group) {
	heads, full := c.attention()
	state := structured(c.int("mamba_num_heads"), c.int("mamba_head_dim"), c.int("n_groups"), c.int("ssm_state_size"), c.int("conv_kernel"),
		c.stateType("mamba_ssm_cache_dtype", FP32))
	// M Mamba 2, * attention; - and E have no cache.
	pattern, ok := read[string](c, "hybrid_override_pattern")
	if !ok {
		types, _ := read[[]string](c, "layers_block_type")
		for _, t := range types {
			switch t {
			case "mamba":
				pattern += "M"
			case "attention":
				pattern += "*"
			}
		}
	}
	if pattern == "" || len(pattern) > maxLayers {
		c.fail("hybrid_override_pattern names %d layers; it must be from 1 to %d", len(pattern), maxLayers)
		return heads, nil
	}
	var out []Group
	for _, k := range pattern {
		switch k {
		case 'M':
			out = append(out, state)
		case '*':
			out = append(out, slide(full, c.window()))
		}
	}
	return heads, out
}

// falconH1 has attention and Mamba 2 side by side in every layer.
func falconH1(c *config) (int, []Group) {
	heads, full := c.attention()
	state := structured(c.int("mamba_n_heads"), c.int("mamba_d_head"), c.int("mamba_n_groups"), c.int("mamba_d_state"), c.int("mamba_d_conv"), "")
	var out []Group
	for range c.layers() {
		out = append(out, full, state)
	}
	return heads, out
}

func graniteH(c *config) (int, []Group) {
	heads, full := c.attention()
	state := structured(c.int("mamba_n_heads"), c.int("mamba_d_head"), c.int("mamba_n_groups"), c.int("mamba_d_state"), c.int("mamba_d_conv"), "")
	n := c.layers()
	field := "layer_types"
	if !c.has(field) {
		field = "layers_block_type"
	}
	kinds := c.kinds(field, n)
	out := repeat(state, n)
	for i := range out {
		if kinds != "" && kinds[i] == 'F' {
			out[i] = full
		}
	}
	return heads, out
}

// zamba2 has Mamba 2 in every layer, and attention before it in the hybrid ones.
func zamba2(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	d := c.intOr("attention_head_dim", 2*c.int("hidden_size")/heads)
	full := Group{Kind: Full, KVHeads: heads, KeyDim: d, ValueDim: d}
	width := c.int("mamba_expand") * c.int("hidden_size") / c.int("n_mamba_heads")
	state := structured(c.int("n_mamba_heads"), width, c.int("mamba_ngroups"), c.int("mamba_d_state"), c.int("mamba_d_conv"), "")
	kinds := c.kinds("layers_block_type", c.layers())
	if kinds == "" {
		c.fail("layers_block_type is missing")
	}
	return heads, append(repeat(full, strings.Count(kinds, "h")), repeat(state, len(kinds))...)
}

// lfm2 has short convolutions in place of most attention.
func lfm2(c *config) (int, []Group) {
	heads, full := c.attention()
	dim := c.intOr("conv_dim", c.int("hidden_size"))
	state := Group{Kind: State, States: []Tensor{{Shards: dim, Values: c.int("conv_L_cache") - 1, Pieces: 1}}}
	n := c.layers()
	out := repeat(state, n)
	indices, listed := read[[]int](c, "full_attn_idxs")
	kinds := c.kinds("layer_types", n)
	if kinds == "" && !listed {
		c.fail("layer_types is missing")
	}
	for i, k := range kinds {
		if k == 'F' {
			out[i] = full
		}
	}
	for _, i := range indices {
		if kinds == "" && i >= 0 && i < n {
			out[i] = full
		}
	}
	return heads, out
}

// gatedDelta has gated delta attention in all but every fourth layer.
func gatedDelta(c *config) (int, []Group) {
	heads, full := c.attention()
	state := delta(c.int("linear_num_key_heads"), c.int("linear_num_value_heads"), c.int("linear_key_head_dim"), c.int("linear_value_head_dim"),
		c.int("linear_conv_kernel_dim"), c.stateType("mamba_ssm_dtype", ""))
	n := c.layers()
	kinds := c.kinds("layer_types", n)
	out := repeat(full, n)
	for i := range out {
		if kinds != "" && kinds[i] == 'l' {
			out[i] = state
		}
	}
	return heads, out
}

// bailing25 has linear attention in all but the last layer of each group.
func bailing25(c *config) (int, []Group) {
	heads := c.int("num_attention_heads")
	d := c.headDim(heads)
	state := Group{Kind: State, States: []Tensor{{Shards: heads, Values: d * d, Pieces: 1}}}
	group, n := c.intOr("layer_group_size", 1), c.layers()
	out := repeat(state, n)
	for i := range out {
		if (i+1)%group == 0 {
			out[i] = c.latentVector()
		}
	}
	return heads, out
}

// kimiDelta is a layer of Kimi delta attention.
func kimiDelta(heads, width, kernel int) Group {
	return delta(heads, heads, width, width, kernel, FP32)
}

func bailing3(c *config) (int, []Group) {
	heads, n, group := c.int("num_attention_heads"), c.layers(), c.int("layer_group_size")
	state := kimiDelta(heads, c.int("head_dim"), c.int("short_conv_kernel_size"))
	out := repeat(state, n)
	for i := range out {
		if (i+1)%group == 0 || i >= n/group*group {
			out[i] = c.latentVector()
		}
	}
	return heads, out
}

// kimiLinear lists its layers of either kind, counted from 1.
func kimiLinear(c *config) (int, []Group) {
	state := kimiDelta(c.int("linear_attn_config.num_heads"), c.int("linear_attn_config.head_dim"), c.int("linear_attn_config.short_conv_kernel_size"))
	linear, ok := read[[]int](c, "linear_attn_config.kda_layers")
	if !ok {
		c.fail("linear_attn_config.kda_layers is missing")
	}
	out := repeat(c.latentVector(), c.layers())
	for _, n := range linear {
		if n >= 1 && n <= len(out) {
			out[n-1] = state
		}
	}
	return c.int("num_attention_heads"), out
}

// kimiFlat has Kimi delta attention in all but every fourth layer.
func kimiFlat(c *config) (int, []Group) {
	heads, full := c.attention()
	n := c.layers()
	kinds := c.kinds("layer_types", n)
	if kinds == "" {
		c.fail("layer_types is missing")
		return heads, nil
	}
	state := kimiDelta(c.int("linear_num_key_heads"), c.int("linear_key_head_dim"), c.int("linear_conv_kernel_dim"))
	out := repeat(full, n)
	for i := range out {
		if kinds[i] == 'l' {
			out[i] = state
		}
	}
	return heads, out
}
