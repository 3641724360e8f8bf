package kv

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
)

// small are models that a test spells out: those of captured engines, as their
// configurations say them, and one with states.
var small = map[string]Model{
	"llama-swa": {Name: "llama-swa", Heads: 4, DType: BF16, Groups: []Group{
		{Kind: Sliding, Layers: 14, KVHeads: 4, KeyDim: 128, ValueDim: 128, Window: 128}, {Kind: Full, Layers: 14, KVHeads: 4, KeyDim: 128, ValueDim: 128}}},
	"gemma3": {Name: "gemma3", Heads: 4, DType: BF16, Groups: []Group{
		{Kind: Sliding, Layers: 10, KVHeads: 4, KeyDim: 128, ValueDim: 128, Window: 256}, {Kind: Full, Layers: 2, KVHeads: 4, KeyDim: 128, ValueDim: 128}}},
	"mla":  {Name: "mla", Heads: 4, DType: BF16, Groups: []Group{{Kind: Latent, Layers: 4, KeyDim: 576}}},
	"push": Uniform("push", 6, 4, 4, 128, BF16),
	"hybrid": {Name: "hybrid", Heads: 4, DType: FP8, Groups: []Group{
		{Kind: State, Layers: 5, States: []Tensor{{Shards: 16, Values: 24, DType: BF16, Pieces: 2}, {Shards: 4, Values: 256, DType: FP32, Pieces: 1}}},
		{Kind: Full, Layers: 2, KVHeads: 2, KeyDim: 16, ValueDim: 8}, {Kind: Sliding, Layers: 3, KVHeads: 4, KeyDim: 8, ValueDim: 8, Window: 64}}},
}

func crossing(t *testing.T, m Model, tokens int, d Deployment) Crossing {
	t.Helper()
	c, err := m.Crossing(tokens, d)
	if err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	return c
}

// TestCrossingOfCapturedEngines holds what real engines of vLLM 0.32.0 counted for one
// request (bytes and descriptors of their metrics pages), and the numbers of blocks in
// the prefill answer's lists.
func TestCrossingOfCapturedEngines(t *testing.T) {
	for _, tc := range []struct {
		model              string
		tokens             int
		d                  Deployment
		bytes              int64
		descLo, descHi     int64
		transfers          int
		lists              []int
		whole, atMostBytes int64 // without the hybrid manager; the largest
	}{
		{"llama-swa", 1000, Deployment{Hybrid: true, BlockTokens: 32, Version: "0.32.0"}, 33_947_648, 14, 14 * 37, 1, []int{5, 32}, 58_720_256, 33_947_648},
		{"gemma3", 1000, Deployment{Hybrid: true, BlockTokens: 32, Version: "0.32.0"}, 10_092_544, 2, 2 * 77, 1, []int{9, 9, 9, 9, 9, 32}, 25_165_824, 10_092_544},
		{"mla", 1000, Deployment{Hybrid: true, BlockTokens: 16, DecodeTP: 2, Version: "0.32.0"}, 9_289_728, 8, 2 * 4 * 63, 2, []int{63}, 9_289_728, 9_289_728},
		{"push", 600, Deployment{Connector: NIXLPush, Hybrid: true, BlockTokens: 32, Version: "0.32.0"}, 7_471_104, 6, 6 * 19, 1, []int{19}, 7_471_104, 7_471_104},
		// 33 blocks of which a window of 128 tokens covers 4: 14 × 65,536 × (33 + 4).
		{"llama-swa", 1056, Deployment{Hybrid: true, BlockTokens: 32, Version: "0.32.0"}, 33_947_648, 14, 14 * 38, 1, []int{4, 33}, 60_555_264, 34_865_152},
	} {
		c := crossing(t, small[tc.model], tc.tokens, tc.d)
		if c.BytesLo != tc.bytes || c.BytesHi != tc.atMostBytes || c.DescriptorsLo != tc.descLo || c.DescriptorsHi != tc.descHi || c.Transfers != tc.transfers {
			t.Errorf("%s at %d: %d to %d bytes, %d to %d descriptors, %d transfers; want %d to %d, %d to %d, %d", tc.model, tc.tokens,
				c.BytesLo, c.BytesHi, c.DescriptorsLo, c.DescriptorsHi, c.Transfers, tc.bytes, tc.atMostBytes, tc.descLo, tc.descHi, tc.transfers)
		}
		var lists []int
		sum := int64(0)
		for _, g := range c.Groups {
			lists, sum = append(lists, g.BlocksLo), sum+g.BytesLo
		}
		if !reflect.DeepEqual(lists, tc.lists) || sum != c.BytesLo {
			t.Errorf("%s at %d: lists of %v blocks, %d bytes; want %v", tc.model, tc.tokens, lists, sum, tc.lists)
		}
		tc.d.Hybrid = false
		if c := crossing(t, small[tc.model], tc.tokens, tc.d); c.BytesLo != tc.whole || c.BytesHi != tc.whole {
			t.Errorf("%s at %d without the hybrid manager: %d to %d bytes, want %d", tc.model, tc.tokens, c.BytesLo, c.BytesHi, tc.whole)
		}
	}
}

// TestCrossing holds numbers worked out by hand.
func TestCrossing(t *testing.T) {
	hybrid := Deployment{Hybrid: true}
	for name, tc := range map[string]struct {
		model     Model
		tokens    int
		d         Deployment
		lo, hi    int64
		transfers int
	}{
		// 18 × 32,768 × (500 + 8), and 9 where the clip is what bounds them.
		"gpt-oss":        {model(t, "gpt-oss-120b"), 8000, hybrid, 299_630_592, 300_220_416, 1},
		"gpt-oss, whole": {model(t, "gpt-oss-120b"), 8000, Deployment{}, 589_824_000, 589_824_000, 1},
		// 256 × 70,272 × 8: 16 blocks of 16 tokens, each rank's copy.
		"R1 at TP8":         {model(t, "DeepSeek-R1"), 256, Deployment{DecodeTP: 8}, 143_917_056, 143_917_056, 8},
		"R1 from TP8":       {model(t, "DeepSeek-R1"), 256, Deployment{PrefillTP: 8, DecodeTP: 2}, 35_979_264, 35_979_264, 2},
		"R1, a draft layer": {model(t, "DeepSeek-R1"), 256, Deployment{DraftLayers: 1}, 256 * 62 * 1152, 256 * 62 * 1152, 1},
		"Qwen at TP2":       {model(t, "Qwen2.5-7B"), 1000, Deployment{PrefillTP: 2, DecodeTP: 2}, 57_802_752, 57_802_752, 2},
		// 4 KV heads on 28 ranks of one head each: 7 copies.
		"Qwen at TP28":   {model(t, "Qwen2.5-7B"), 1000, Deployment{DecodeTP: 28}, 7 * 57_802_752, 7 * 57_802_752, 28},
		"Qwen from TP4":  {model(t, "Qwen2.5-7B"), 1000, Deployment{PrefillTP: 4}, 57_802_752, 57_802_752, 4},
		"Qwen from TP28": {model(t, "Qwen2.5-7B"), 1000, Deployment{PrefillTP: 28}, 57_802_752, 57_802_752, 4},
		"fp8":            {model(t, "Qwen2.5-7B"), 256, Deployment{CacheDType: FP8}, 7_340_032, 7_340_032, 1},
		// 18 windowed layers and 19 full ones are lists of at most 19: 32,768 × (18 × 8 + 19 × 500).
		"gpt-oss, a draft layer": {model(t, "gpt-oss-120b"), 8000, Deployment{Hybrid: true, DraftLayers: 1}, 316_014_592, 316_604_416, 1},
		// 5 full layers and 29 windowed ones are lists of 5; the sixth of 4 moves 5 regions too: 5 × 65,536 × (6 × 64 + 500).
		"a short list": {Model{Name: "gemma3", Heads: 8, DType: BF16, Groups: []Group{
			{Kind: Sliding, Layers: 29, KVHeads: 4, KeyDim: 256, ValueDim: 256, Window: 1024},
			{Kind: Full, Layers: 5, KVHeads: 4, KeyDim: 256, ValueDim: 256}}}, 8000, hybrid, 289_669_120, 291_635_200, 1},
		// Llama 4's chunks: vLLM turns the hybrid manager off.
		"chunks": {model(t, "Llama-4-Scout"), 8000, hybrid, 1_572_864_000, 1_572_864_000, 1},
		// A state takes one copy per rank of its part; the prompt's last token stays with decode. Qwen3.5 at TP2: 10 regions of
		// 3 states of 1,073,152 B and of 1 block of 1,056 tokens × 1,024 B, twice.
		"states": {model(t, "Qwen3.5-35B-A3B"), 1000, Deployment{Hybrid: true, PrefillTP: 2, DecodeTP: 2},
			2 * 10 * (3*1_073_152 + 1056*1024), 2 * 10 * (3*1_073_152 + 1056*1024), 2},
		// Two modules: the prefill engine leaves the last token out, here a block's only one.
		"draft of two": {small["push"], 257, Deployment{DraftLayers: 2}, 16 * 16 * 8 * 2048, 17 * 16 * 8 * 2048, 1},
	} {
		c := crossing(t, tc.model, tc.tokens, tc.d)
		if c.BytesLo != tc.lo || c.BytesHi != tc.hi || c.Transfers != tc.transfers {
			t.Errorf("%s: %d to %d bytes in %d transfers; want %d to %d in %d", name, c.BytesLo, c.BytesHi, c.Transfers, tc.lo, tc.hi, tc.transfers)
		}
	}
}

func TestCrossingRefused(t *testing.T) {
	states := Model{Name: "states", Heads: 8, DType: BF16, Groups: []Group{
		{Kind: Full, Layers: 1, KVHeads: 8, KeyDim: 64, ValueDim: 64}, {Kind: State, Layers: 3, States: []Tensor{{Shards: 8, Values: 64, DType: BF16}}}}}
	for name, tc := range map[string]struct {
		model  Model
		tokens int
		d      Deployment
		want   string
	}{
		"no tokens":     {small["push"], 0, Deployment{}, "a prompt of 0 tokens"},
		"connector":     {small["push"], 1, Deployment{Connector: "mooncake"}, `unknown connector "mooncake"; use nixl or nixl-push`},
		"block":         {small["push"], 1, Deployment{BlockTokens: -1}, "KV blocks of -1 tokens"},
		"draft":         {small["push"], 1, Deployment{DraftLayers: -1}, "-1 draft layers"},
		"ranks":         {small["push"], 1, Deployment{PrefillTP: 2, DecodeTP: 3}, "one must divide the other"},
		"tp":            {small["push"], 1, Deployment{DecodeTP: 8}, "does not divide the 4 attention heads"},
		"negative tp":   {small["push"], 1, Deployment{DecodeTP: -1}, "at least 1"},
		"not a model":   {Model{}, 1, Deployment{}, "0 groups of layers"},
		"cache type":    {small["push"], 1, Deployment{CacheDType: "fp8_ds_mla"}, "is for latent caches"},
		"states":        {states, 1, Deployment{}, "without the hybrid KV cache manager"},
		"huge":          {Uniform("huge", maxLayers, maxHeads, maxHeads, maxHeadDim, FP32), 1 << 40, Deployment{BlockTokens: MaxBlockTokens}, "too large"},
		"many, at many": {Uniform("huge", maxLayers, maxHeads, maxHeads, maxHeadDim, FP32), 1 << 30, Deployment{}, "too large"},
	} {
		if c, err := tc.model.Crossing(tc.tokens, tc.d); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v, %v; want an error with %q", name, c, err, tc.want)
		}
	}
}

// TestModelFromAnotherHost holds that a request that comes over the control channel is
// the one that was sent, and that impossible numbers in it are refused, not multiplied.
func TestModelFromAnotherHost(t *testing.T) {
	for _, m := range small {
		data, err := json.Marshal(Request{Model: m, Tokens: 1000})
		if err != nil {
			t.Fatal(err)
		}
		var got Request
		if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got.Model, m) {
			t.Errorf("%s became %+v, %v", data, got.Model, err)
		}
	}
	full := Group{Kind: Full, Layers: 1, KVHeads: 1, KeyDim: 1, ValueDim: 1}
	state := Group{Kind: State, Layers: 1, States: []Tensor{{Shards: 1, Values: 1, DType: BF16}}}
	with := func(g Group, change func(*Group)) Model {
		change(&g)
		return Model{Name: "x", Heads: 1, DType: BF16, Groups: []Group{g}}
	}
	for name, m := range map[string]Model{
		"heads":       {Name: "x", Heads: math.MaxInt, DType: BF16, Groups: []Group{full}},
		"dtype":       {Name: "x", Heads: 1, DType: "x", Groups: []Group{full}},
		"groups":      {Name: "x", Heads: 1, DType: BF16, Groups: make([]Group, maxGroups+1)},
		"layers":      with(full, func(g *Group) { g.Layers = 1 << 62 }),
		"no layers":   with(full, func(g *Group) { g.Layers = 0 }),
		"kv heads":    with(full, func(g *Group) { g.KVHeads = -1 }),
		"many heads":  with(full, func(g *Group) { g.KVHeads = math.MaxInt }),
		"key":         with(full, func(g *Group) { g.KeyDim = 1 << 40 }),
		"value":       with(full, func(g *Group) { g.ValueDim = -1 }),
		"slot":        with(full, func(g *Group) { g.SlotBytes = 1 << 50 }),
		"every":       with(full, func(g *Group) { g.Every = -1 }),
		"kind":        with(full, func(g *Group) { g.Kind = "x" }),
		"window":      with(full, func(g *Group) { g.Kind = Sliding }),
		"negative":    with(full, func(g *Group) { g.Kind, g.Window = Sliding, -5 }),
		"group dtype": with(full, func(g *Group) { g.DType = "y" }),
		"no values":   with(full, func(g *Group) { g.KeyDim, g.ValueDim = 0, 0 }),
		"latent type": with(full, func(g *Group) { g.DType = FP8Latent }),
		"state":       with(full, func(g *Group) { g.States = state.States }),
		"no state":    with(state, func(g *Group) { g.States = nil }),
		"many states": with(state, func(g *Group) { g.States = make([]Tensor, maxStates+1) }),
		"rows":        with(state, func(g *Group) { g.States = []Tensor{{Shards: math.MaxInt, Values: 1, DType: BF16}} }),
		"row":         with(state, func(g *Group) { g.States = []Tensor{{Shards: 1, Values: math.MaxInt, DType: BF16}} }),
		"pieces":      with(state, func(g *Group) { g.States = []Tensor{{Shards: 1, Values: 1, DType: BF16, Pieces: math.MaxInt}} }),
		"state type":  with(state, func(g *Group) { g.States = []Tensor{{Shards: 1, Values: 1, DType: NVFP4}} }),
		"state slot":  with(state, func(g *Group) { g.SlotBytes = 1 }),
		"all layers":  {Name: "x", Heads: 1, DType: BF16, Groups: []Group{{Kind: Full, Layers: maxLayers, KVHeads: 1, KeyDim: 1, ValueDim: 1}, full}},
	} {
		if err := m.Validate(); err == nil {
			t.Errorf("%s: %+v is valid", name, m)
		}
		if _, err := New(Request{Model: m, Tokens: 1}); err == nil {
			t.Errorf("%s: a transfer was worked out", name)
		}
	}
}

// FuzzCrossing holds that what a valid model moves adds up, never overflows and never
// grows when the hybrid manager comes in.
func FuzzCrossing(f *testing.F) {
	for _, m := range small {
		data, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, 1000, 16, 1, 2)
	}
	f.Fuzz(func(t *testing.T, data []byte, tokens, block, prefill, decode int) {
		var m Model
		if json.Unmarshal(data, &m) != nil {
			return
		}
		d := Deployment{Hybrid: true, BlockTokens: block, PrefillTP: prefill, DecodeTP: decode}
		c, err := m.Crossing(tokens, d)
		if err != nil {
			return
		}
		if c.BytesLo < 1 || c.BytesLo > c.BytesHi || c.DescriptorsLo < 1 || c.DescriptorsLo > c.DescriptorsHi || c.Transfers < 1 {
			t.Fatalf("%+v", c)
		}
		var lo, hi int64
		layers := 0
		for _, g := range c.Groups {
			if g.BlocksLo < 0 || g.BlocksLo > g.BlocksHi || g.BytesPerBlock < 1 {
				t.Fatalf("%+v", g)
			}
			lo, hi, layers = lo+g.BytesLo, hi+g.BytesHi, layers+g.Layers
		}
		if lo != c.BytesLo || hi != c.BytesHi || layers != m.Layers() {
			t.Fatalf("%d to %d bytes in %d layers over the groups of %+v", lo, hi, layers, c)
		}
	})
}
