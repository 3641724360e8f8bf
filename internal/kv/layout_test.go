package kv

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func model(t testing.TB, name string) Model {
	t.Helper()
	m, err := Resolve(name, "")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestTransferArithmetic holds numbers worked out by hand and, for Qwen2.5-7B,
// those that vLLM's NixlConnector was seen to post: K and V of a block are
// 16,384 B each in split pools, 32,768 B together in packed ones.
func TestTransferArithmetic(t *testing.T) {
	for _, tc := range []struct {
		model         string
		req           Request
		count         int
		descBytes     int64 // length of each descriptor
		tokens, bytes int64
		blocks        int
	}{
		{"Qwen2.5-7B", Request{Tokens: 4000, Layout: Split, Shape: Fragmented}, 14_000, 16_384, 4000, 229_376_000, 250},
		{"Qwen2.5-7B", Request{Tokens: 4000, Layout: Split, Shape: Merged}, 56, 4_096_000, 4000, 229_376_000, 250},
		{"Qwen2.5-7B", Request{Tokens: 4000, Layout: Packed, Shape: Fragmented}, 7_000, 32_768, 4000, 229_376_000, 250},
		{"Qwen2.5-7B", Request{Tokens: 4000, Layout: Packed, Shape: Merged}, 28, 8_192_000, 4000, 229_376_000, 250},
		{"Qwen2.5-7B", Request{Tokens: 8000, Layout: Split, Shape: Fragmented}, 28_000, 16_384, 8000, 458_752_000, 500},
		{"Qwen2.5-7B", Request{Tokens: 8000, Shape: Fragmented}, 14_000, 32_768, 8000, 458_752_000, 500},
		{"Qwen2.5-7B", Request{Tokens: 8000, Shape: Contiguous}, 1, 458_752_000, 8000, 458_752_000, 0},
		{"Qwen2.5-7B", Request{Tokens: 4000, BlockTokens: 128, Shape: Fragmented}, 896, 262_144, 4096, 234_881_024, 32},
		{"Qwen2.5-7B", Request{Bytes: 438_000_000, Shape: Fragmented}, 28 * 478, 32_768, 7648, 438_566_912, 478},
		{"Qwen2.5-7B", Request{Bytes: 438_000_000}, 28, 478 * 32_768, 7648, 438_566_912, 478},
		{"Qwen2.5-7B", Request{Bytes: 438_000_000, Shape: Contiguous}, 1, 438_000_000, 7638, 438_000_000, 0},
		{"Qwen2.5-7B", Request{Bytes: 458_752_000, Shape: Fragmented}, 14_000, 32_768, 8000, 458_752_000, 500},
		{"Qwen2.5-7B", Request{Bytes: 1}, 28, 32_768, 16, 917_504, 1},
		{"Qwen2.5-7B", Request{Tokens: 7, Shape: Contiguous}, 1, 401_408, 7, 401_408, 0},
		{"Qwen2.5-7B", Request{Tokens: 8000, TensorParallel: 4, Shape: Fragmented}, 14_000, 8_192, 8000, 114_688_000, 500},
		{"DeepSeek-R1", Request{Tokens: 4000, Shape: Fragmented}, 15_250, 18_432, 4000, 281_088_000, 250},
		{"DeepSeek-R1", Request{Tokens: 4000, Shape: Fragmented, Layout: Split, TensorParallel: 8}, 15_250, 18_432, 4000, 281_088_000, 250},
		{"Llama-3.1-70B", Request{Tokens: 8000, Shape: Fragmented, TensorParallel: 8}, 40_000, 8_192, 8000, 327_680_000, 500},
	} {
		tc.req.Model = model(t, tc.model)
		tr, err := New(tc.req)
		if err != nil {
			t.Errorf("%s %+v: %v", tc.model, tc.req, err)
			continue
		}
		ds := tr.Descs()
		if tr.Count() != tc.count || len(ds) != tc.count || tr.Tokens != tc.tokens || tr.Bytes != tc.bytes || tr.Blocks != tc.blocks {
			t.Errorf("%s %s: %d descriptors (%d built), %d tokens, %d bytes, %d blocks; want %d, %d, %d, %d", tc.model, tr.Shape,
				tr.Count(), len(ds), tr.Tokens, tr.Bytes, tr.Blocks, tc.count, tc.tokens, tc.bytes, tc.blocks)
		}
		for _, d := range ds {
			if d.Len != uint64(tc.descBytes) {
				t.Errorf("%s %s: a descriptor of %d bytes, want %d", tc.model, tr.Shape, d.Len, tc.descBytes)
				break
			}
		}
	}
}

// TestDescsCoverTheBuffer holds for every shape that each byte of both buffers
// is named exactly once.
func TestDescsCoverTheBuffer(t *testing.T) {
	for _, shape := range Shapes() {
		for _, layout := range []Layout{Packed, Split} {
			tr, err := New(Request{Model: model(t, "Qwen2.5-7B"), Tokens: 1000, Shape: shape, Layout: layout, Seed: 7})
			if err != nil {
				t.Fatal(err)
			}
			ds := tr.Descs()
			for side, at := range map[string]func(Desc) uint64{
				"local":  func(d Desc) uint64 { return d.Local },
				"remote": func(d Desc) uint64 { return d.Remote },
			} {
				s := slices.Clone(ds)
				slices.SortFunc(s, func(a, b Desc) int { return int(int64(at(a)) - int64(at(b))) })
				var end uint64
				for _, d := range s {
					if at(d) != end {
						t.Fatalf("%s %s %s: a descriptor at %d after one that ends at %d", shape, layout, side, at(d), end)
					}
					end += d.Len
				}
				if end != uint64(tr.Bytes) {
					t.Fatalf("%s %s %s: descriptors end at %d of %d", shape, layout, side, end, tr.Bytes)
				}
			}
		}
	}
}

// mergeable counts the descriptors that continue the one before on both sides.
func mergeable(ds []Desc) (n int) {
	for i := 1; i < len(ds); i++ {
		p, d := ds[i-1], ds[i]
		if p.Local+p.Len == d.Local && p.Remote+p.Len == d.Remote {
			n++
		}
	}
	return n
}

// TestFragmentedNeverMerges proves it on the descriptors: over many seeds, and
// over all pairs of permutations of up to five blocks, where the repair has
// least room.
func TestFragmentedNeverMerges(t *testing.T) {
	for blocks := int64(2); blocks < 40; blocks++ {
		for seed := range uint64(50) {
			tr, err := New(Request{Model: model(t, "Qwen2.5-7B"), Tokens: 16 * blocks, Shape: Fragmented, Seed: seed})
			if err != nil {
				t.Fatal(err)
			}
			if n := mergeable(tr.Descs()); n != 0 {
				t.Fatalf("%d blocks, seed %d: %d descriptors can be merged", blocks, seed, n)
			}
		}
	}
	for n := 2; n <= 5; n++ {
		perms := permutations(n)
		for _, l := range perms {
			for _, r := range perms {
				local, remote := slices.Clone(l), slices.Clone(r)
				separate(local, remote)
				sorted := slices.Clone(remote)
				slices.Sort(sorted)
				if !slices.Equal(local, l) || !slices.Equal(sorted, ascending(n)) {
					t.Fatalf("%v and %v became %v and %v: no permutation", l, r, local, remote)
				}
				var ds []Desc
				for region := range 2 {
					for i := range local {
						ds = append(ds, Desc{uint64(region*n) + uint64(local[i]), uint64(region*n) + uint64(remote[i]), 1})
					}
				}
				if m := mergeable(ds); m != 0 {
					t.Fatalf("%v and %v became %v and %v: %d descriptors can be merged", l, r, local, remote, m)
				}
			}
		}
	}
}

func permutations(n int) [][]int32 {
	if n == 0 {
		return [][]int32{{}}
	}
	var out [][]int32
	for _, p := range permutations(n - 1) {
		for at := range n {
			out = append(out, slices.Insert(slices.Clone(p), at, int32(n-1)))
		}
	}
	return out
}

// TestSeedDecides pins one draw: a seed in a record must mean the same blocks in
// every version of the tool and of Go.
func TestSeedDecides(t *testing.T) {
	ids := func(seed uint64) ([]int32, []int32) {
		tr, err := New(Request{Model: model(t, "Qwen2.5-7B"), Tokens: 16 * 12, Shape: Fragmented, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		return tr.blockIDs(0)
	}
	l1, r1 := ids(1)
	if got, want := fmt.Sprint(l1, r1), pinned; got != want {
		t.Errorf("seed 1 draws %s, want %s", got, want)
	}
	l2, r2 := ids(2)
	if slices.Equal(l1, l2) || slices.Equal(r1, r2) || slices.Equal(l1, r1) {
		t.Errorf("seeds 1 and 2, or both sides, draw the same: %v %v %v %v", l1, r1, l2, r2)
	}
}

// pinned was drawn by a separate Python implementation of PCG-DXSM and of
// Fisher and Yates's shuffle.
const pinned = "[10 3 5 7 0 4 6 2 9 8 1 11] [4 8 3 10 5 2 0 1 11 7 6 9]"

// TestOneBlock: with one block a region there is only one order.
func TestOneBlock(t *testing.T) {
	tr, err := New(Request{Model: model(t, "Qwen2.5-7B"), Tokens: 16, Shape: Fragmented})
	if err != nil {
		t.Fatal(err)
	}
	if tr.Count() != 28 || tr.Descs()[27] != (Desc{27 * 32768, 27 * 32768, 32768}) {
		t.Errorf("%d descriptors, last %+v", tr.Count(), tr.Descs()[27])
	}
}

func TestRounding(t *testing.T) {
	m := model(t, "Qwen2.5-7B")
	for _, tc := range []struct {
		req     Request
		want    Rounding
		changed bool
	}{
		{Request{Model: m, Bytes: 438_000_000}, Rounding{438_000_000, 7639, 7648, 478, 16, 438_566_912}, true},
		{Request{Model: m, Bytes: 458_752_000}, Rounding{458_752_000, 8000, 8000, 500, 16, 458_752_000}, false},
		{Request{Model: m, Tokens: 1000}, Rounding{0, 1000, 1008, 63, 16, 57_802_752}, true},
		{Request{Model: m, Tokens: 8000}, Rounding{0, 8000, 8000, 500, 16, 458_752_000}, false},
		{Request{Model: m, Bytes: 438_000_000, Shape: Contiguous}, Rounding{438_000_000, 7639, 7638, 0, 16, 438_000_000}, false},
	} {
		tr, err := New(tc.req)
		if err != nil {
			t.Fatal(err)
		}
		if got, changed := tr.Rounding(); got != tc.want || changed != tc.changed {
			t.Errorf("%+v: rounding %+v, %v; want %+v, %v", tc.req, got, changed, tc.want, tc.changed)
		}
	}
	tr, err := New(Request{Model: m, Bytes: 438_000_000, Shape: Contiguous})
	if err != nil || math.Abs(tr.TokensExact()-7638.114) > 0.001 {
		t.Errorf("438 MB are %v tokens, %v", tr.TokensExact(), err)
	}
}

func TestRequestRefused(t *testing.T) {
	m := model(t, "Qwen2.5-7B")
	for name, tc := range map[string]struct {
		req  Request
		want string
	}{
		"neither":     {Request{Model: m}, "either tokens or bytes"},
		"both":        {Request{Model: m, Tokens: 1, Bytes: 1}, "either tokens or bytes"},
		"negative":    {Request{Model: m, Tokens: -1}, "cannot have"},
		"no model":    {Request{Tokens: 1, Shape: Contiguous}, "needs a model"},
		"no model kv": {Request{Bytes: 1, Shape: Merged}, "needs a model"},
		"block":       {Request{Model: m, Tokens: 1, BlockTokens: -1}, "blocks of -1 tokens"},
		"block big":   {Request{Model: m, Tokens: 1, BlockTokens: MaxBlockTokens + 1}, "must be from 1"},
		"layout":      {Request{Model: m, Tokens: 1, Layout: "x"}, "unknown KV layout"},
		"shape":       {Request{Model: m, Tokens: 1, Shape: "x"}, "unknown shape"},
		"tp":          {Request{Model: m, Tokens: 1, TensorParallel: 3}, "does not divide"},
		"limit":       {Request{Model: m, Tokens: 1, MaxBytes: -1}, "negative"},
	} {
		if _, err := New(tc.req); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tc.want)
		}
	}
	huge := Uniform("huge", maxLayers, maxHeads, maxHeads, maxHeadDim, FP32)
	for name, req := range map[string]Request{
		"max bytes":  {Model: m, Tokens: 8000, MaxBytes: 458_751_999},
		"contiguous": {Bytes: 1001, Shape: Contiguous, MaxBytes: 1000},
		"descs":      {Model: m, Tokens: 16_000_000, BlockTokens: 1, Shape: Fragmented},
		"overflow":   {Model: m, Tokens: math.MaxInt64},
		"overflow c": {Model: m, Tokens: math.MaxInt64, Shape: Contiguous},
		"overflow b": {Model: huge, Tokens: 1, BlockTokens: MaxBlockTokens},
		"bytes":      {Model: m, Bytes: math.MaxInt64},
	} {
		if tr, err := New(req); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, %v; want ErrTooLarge", name, tr, err)
		}
	}
	if tr, err := New(Request{Model: m, Tokens: 8000, MaxBytes: 458_752_000}); err != nil || tr.Bytes != 458_752_000 {
		t.Errorf("exactly the limit: %v", err)
	}
	tr, err := New(Request{Bytes: 5, Shape: Contiguous})
	if err != nil || tr.Bytes != 5 || tr.TokensExact() != 0 {
		t.Errorf("contiguous without a model: %+v, %v", tr, err)
	}
}

func TestDescs(t *testing.T) {
	tr, err := New(Request{Model: model(t, "Qwen2.5-7B"), Tokens: 160, Shape: Fragmented})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(tr.Descs()); n != 280 || n != tr.Count() {
		t.Errorf("%d descriptors of %d, want 280", n, tr.Count())
	}
	for range tr.All() {
		break // an early stop must not panic
	}
}

func TestParseShapes(t *testing.T) {
	if got, err := ParseShapes("fragmented,merged"); err != nil || !slices.Equal(got, []Shape{Fragmented, Merged}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "merged,", "Merged", "merged,merged"} {
		if got, err := ParseShapes(bad); err == nil {
			t.Errorf("ParseShapes(%q) = %v", bad, got)
		}
	}
	if _, err := ParseLayout("PACKED"); err == nil {
		t.Error("PACKED was accepted")
	}
}

func FuzzParseShapes(f *testing.F) {
	f.Add("merged,fragmented")
	f.Add("contiguous")
	f.Add(",")
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseShapes(s); err == nil && (len(v) == 0 || len(v) > 3) {
			t.Fatalf("ParseShapes(%q) = %v", s, v)
		}
	})
}

func BenchmarkDescs28000(b *testing.B) {
	tr, err := New(Request{Model: model(b, "Qwen2.5-7B"), Tokens: 8000, Layout: Split, Shape: Fragmented, Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		tr.Descs()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(tr.Count()), "ns/desc")
}

// TestTransferOfSeveralKinds holds numbers worked out by hand for layers of more than
// one kind, that each byte of both buffers is named once, and that nothing merges.
func TestTransferOfSeveralKinds(t *testing.T) {
	hybrid := Model{Name: "hybrid", Heads: 4, DType: BF16, Groups: []Group{
		{Kind: State, Layers: 3, States: []Tensor{{Shards: 128, Values: 8, DType: BF16, Pieces: 1}, {Shards: 128, Values: 16, DType: BF16, Pieces: 1}}},
		{Kind: Full, Layers: 3, KVHeads: 2, KeyDim: 16, ValueDim: 16}}}
	index := Model{Name: "index", Heads: 8, DType: BF16, Groups: []Group{{Kind: Index, Layers: 2, SlotBytes: 132}, {Kind: Latent, Layers: 3, KeyDim: 576}}}
	for name, tc := range map[string]struct {
		m             Model
		req           Request
		bytes, tokens int64
		merged, split int // descriptors
	}{
		// 14 regions of 32 + 5 blocks of 65,536 B.
		"windows": {small["llama-swa"], Request{Tokens: 1000, BlockTokens: 32}, 33_947_648, 1024, 14, 28},
		// A KV block of 48 tokens is as large as a state of 6,144 B; 3 hold 99 tokens.
		"states":       {hybrid, Request{Tokens: 100}, 3 * 4 * 6144, 144, 3 + 3*2, 2*3 + 3*2},
		"half a state": {hybrid, Request{Tokens: 100, TensorParallel: 2}, 3 * 4 * 3072, 144, 3 + 3*2, 2*3 + 3*2},
		// One list: two regions of 132 B and three of 1,152 B per token.
		"index": {index, Request{Tokens: 100}, 7 * 16 * (2*132 + 3*1152), 112, 5, 5},
		// As many whole blocks as take a megabyte: 200,000 / (16 × 3,720) rounded up.
		"index, bytes": {index, Request{Bytes: 200_000}, 4 * 16 * 3720, 64, 5, 5},
	} {
		for _, shape := range []Shape{Merged, Fragmented} {
			for _, layout := range []Layout{Packed, Split} {
				tc.req.Model, tc.req.Shape, tc.req.Layout, tc.req.Seed = tc.m, shape, layout, 3
				tr, err := New(tc.req)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				ds := tr.Descs()
				if tr.Bytes != tc.bytes || tr.Tokens != tc.tokens || len(ds) != tr.Count() {
					t.Errorf("%s %s %s: %d bytes, %d tokens, %d of %d descriptors; want %d and %d", name, shape, layout, tr.Bytes, tr.Tokens, len(ds), tr.Count(), tc.bytes, tc.tokens)
				}
				want := map[Layout]int{Packed: tc.merged, Split: tc.split}[layout]
				if shape == Merged && len(ds) != want {
					t.Errorf("%s %s: %d descriptors, want %d", name, layout, len(ds), want)
				}
				once(t, name, ds, tr.Bytes)
			}
		}
	}
	if _, err := New(Request{Model: Model{Name: "mamba", DType: BF16, Groups: hybrid.Groups[:1]}, Bytes: 1 << 30}); err == nil ||
		!strings.Contains(err.Error(), "no prompt of mamba takes 1073741824 bytes") {
		t.Errorf("a size that states alone never take: %v", err)
	}
}

// once holds that descriptors name each byte of both buffers once.
func once(t *testing.T, name string, ds []Desc, bytes int64) {
	t.Helper()
	for _, at := range []func(Desc) uint64{func(d Desc) uint64 { return d.Local }, func(d Desc) uint64 { return d.Remote }} {
		s := slices.Clone(ds)
		slices.SortFunc(s, func(a, b Desc) int { return int(int64(at(a)) - int64(at(b))) })
		var end uint64
		for _, d := range s {
			if at(d) != end {
				t.Fatalf("%s: a descriptor at %d after one that ends at %d", name, at(d), end)
			}
			end += d.Len
		}
		if end != uint64(bytes) {
			t.Fatalf("%s: descriptors end at %d of %d", name, end, bytes)
		}
	}
}
