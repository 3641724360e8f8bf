package ttft

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// capture is a request of a real engine of 0.32.0, with what is known of it.
type capture struct {
	dir      string
	tokens   int
	decodeTP int
	block    int64 // bytes of one KV block on one rank of decode, by hand
	blocks   []int // that the prefill engine handed over, in each layer group
	bytes    int64 // that NIXL counted
}

var captures = []capture{
	{"two-leg-1000", 1000, 1, 28 * 65_536, []int{32}, 58_720_256},
	{"windows-1000", 1000, 1, 14 * 65_536, []int{5, 32}, 33_947_648},
	{"gemma3-1000", 1000, 1, 2 * 65_536, []int{9, 9, 9, 9, 9, 32}, 10_092_544},
	{"mla-tp1-2-1000", 1000, 2, 4 * 16 * 1152, []int{63}, 9_289_728},
	{"push-600", 600, 1, 6 * 65_536, []int{19}, 7_471_104},
	// Blocks of 160 tokens, and of the states no last token: 6 x (3,072 + 65,536) + 7 x 163,840.
	{"states-1000", 1000, 1, 2 * 81_920, []int{1, 1, 1, 7}, 1_558_528},
}

// of is the bytes of a block of a layer group.
func (c capture) of(group int) int64 {
	if c.dir == "states-1000" && group < 3 {
		return 2 * (3_072 + 65_536)
	}
	return c.block
}

// evidence is that of the captured request, over a two-leg path.
func (c capture) evidence(t *testing.T) evidence {
	t.Helper()
	dir := filepath.Join(captured, "0.32.0", c.dir)
	ev := evidence{path: record.PathTwoLeg, prefill: delta(t, dir, "prefill"), decode: delta(t, dir, "decode")}
	config := filepath.Join(dir, "config.json")
	if c.dir == "two-leg-1000" {
		config = "../../testdata/kvshape/config.json"
	}
	m, err := kv.Resolve(config, "auto")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := os.ReadFile(filepath.Join(dir, "prefill-response.json"))
	if err != nil {
		t.Fatal(err)
	}
	params, err := twoleg.Params(answer)
	if err != nil {
		t.Fatal(err)
	}
	ev.reqs = []reqEvidence{{tokens: c.tokens, reachedDecode: true, prefillCached: -1, decodeCached: -1, decodeTP: c.decodeTP, handed: handedOver(twoleg.HandedBy(params))}}
	ev.expects = expects{Geometry: Geometry{Model: m}, known: true, version: "0.32.0", blockTokens: ev.prefill.Cache.BlockTokens}
	if err := ev.expects.publish([]metrics.Cache{ev.decode.Cache}); err != nil {
		t.Fatal(err)
	}
	return ev
}

// set gives the side that moved the cache other counts.
func (ev *evidence) set(transfers, bytes int64) {
	side := &ev.decode
	if ev.pushed() {
		side = &ev.prefill
	}
	side.Set(metrics.Transfers, transfers)
	side.Set(metrics.TransferBytes, bytes)
}

// Every captured request is proven by each rule that can be known of it, and one KV
// block too few or too many on one rank is found by each that holds bytes.
func TestEachRuleOnCapturedCaches(t *testing.T) {
	unknown := func(ev *evidence) { ev.expects.known = false }
	noLists := func(ev *evidence) { ev.reqs[0].handed = nil }
	noPage := func(ev *evidence) { ev.expects.pageLo, ev.expects.pageHi = 0, 0 }
	for name, tt := range map[string]struct {
		change []func(*evidence)
		rule   func(capture) string
	}{
		"lists, geometry, page": {nil, func(capture) string { return record.RuleBlocks }},
		"lists, geometry":       {[]func(*evidence){noPage}, func(capture) string { return record.RuleBlocks }},
		"lists, page": {[]func(*evidence){unknown}, func(c capture) string {
			if len(c.blocks) > 1 {
				return record.RuleTokens // a group need not move all that a block takes
			}
			return record.RuleBlocks
		}},
		"lists":          {[]func(*evidence){unknown, noPage}, func(capture) string { return record.RuleTokens }},
		"geometry, page": {[]func(*evidence){noLists}, func(capture) string { return record.RuleGeometry }},
		"geometry":       {[]func(*evidence){noLists, noPage}, func(capture) string { return record.RuleGeometry }},
		"page":           {[]func(*evidence){noLists, unknown}, func(capture) string { return record.RuleTokens }},
	} {
		for _, c := range captures {
			judged := func(transfers, bytes int64) verdict {
				ev := c.evidence(t)
				for _, f := range tt.change {
					f(&ev)
				}
				if bytes > 0 {
					ev.set(transfers, bytes)
				}
				return judge(ev)[0]
			}
			n := int64(c.decodeTP)
			want := tt.rule(c)
			if v := judged(n, 0); v.reason != "" || v.rule != want || v.note != "" {
				t.Errorf("%s, %s: %q (%s) by %s, note %q; want valid by %s", c.dir, name, v.reason, v.detail, v.rule, v.note, want)
			}
			short, excess := record.ReasonShortBytes, record.ReasonExcessBytes
			if want == record.RuleTokens {
				short, excess = "", ""
			}
			if v := judged(n, c.bytes-c.block); v.reason != short {
				t.Errorf("%s, %s, a block too few: %q (%s), want %q", c.dir, name, v.reason, v.detail, short)
			}
			if v := judged(n, c.bytes+c.block); v.reason != excess {
				t.Errorf("%s, %s, a block too many: %q (%s), want %q", c.dir, name, v.reason, v.detail, excess)
			}
			if v := judged(0, c.bytes); v.reason != record.ReasonNoTransfer {
				t.Errorf("%s, %s, no transfer: %q (%s)", c.dir, name, v.reason, v.detail)
			}
			if v := judged(n-1, c.bytes/n); n > 1 && v.reason != record.ReasonNoTransfer {
				t.Errorf("%s, %s, a rank got nothing: %q (%s)", c.dir, name, v.reason, v.detail)
			}
		}
	}
}

// Lists that are not those of the prompt are found in any layer group, although the
// bytes are those of the lists.
func TestListsThatAreNotThePrompts(t *testing.T) {
	for _, c := range captures {
		for i := range c.blocks {
			for change, want := range map[int]record.Reason{-1: record.ReasonShortBytes, 1: record.ReasonExcessBytes} {
				ev := c.evidence(t)
				h := *ev.reqs[0].handed
				if !slices.Equal(h.Groups, c.blocks) {
					t.Fatalf("%s: lists of %v blocks", c.dir, h.Groups)
				}
				h.Groups = slices.Clone(h.Groups)
				h.Groups[i] += change
				ev.reqs[0].handed = &h
				ev.set(int64(c.decodeTP), c.bytes+int64(change*c.decodeTP)*c.of(i))
				if v := judge(ev)[0]; v.reason != want || v.rule != record.RuleBlocks || !strings.Contains(v.detail, "layer group") {
					t.Errorf("%s, group %d, %+d: %q (%s) by %s, want %s", c.dir, i+1, change, v.reason, v.detail, v.rule, want)
				}
			}
		}
	}
}

// Of a window the prefill engine may list a block more than the decode engine loads.
// Seen on 0.32.0 with the model of windows-1000 and 1,056 tokens: [5, 33] were listed,
// and 33,947,648 bytes moved, 4 + 33 blocks of 917,504.
func TestListThatTheWindowDoesNotCover(t *testing.T) {
	const block = 14 * 65_536
	for blocks, want := range map[int64]record.Reason{36: record.ReasonShortBytes, 37: "", 38: record.ReasonExcessBytes} {
		ev := captures[1].evidence(t)
		for _, side := range []*metrics.Reading{&ev.prefill, &ev.decode} {
			for _, c := range []metrics.Count{metrics.PromptTokens, metrics.LocalCompute, metrics.ExternalKV, metrics.ExternalHits} {
				if n := get(*side, c); n == 1000 {
					side.Set(c, 1056)
				}
			}
		}
		ev.reqs[0].tokens, ev.reqs[0].handed = 1056, &twoleg.Handed{Groups: []int{5, 33}, Tokens: 1056, TP: 1}
		ev.set(1, blocks*block)
		if v := judge(ev)[0]; v.reason != want || !slices.Equal(v.blocks, []int{4, 33}) {
			t.Errorf("%d blocks: %q (%s), %v have to cross; want %q", blocks, v.reason, v.detail, v.blocks, want)
		}
	}
}

// Requests in flight together add up, and one block of any of them is found.
func TestBatchOfCapturedCaches(t *testing.T) {
	for _, c := range captures {
		ev := c.evidence(t)
		sum := func(side *metrics.Reading) {
			one := *side
			for range 3 {
				*side = side.Plus(one)
			}
		}
		sum(&ev.prefill)
		sum(&ev.decode)
		for range 3 {
			ev.reqs = append(ev.reqs, ev.reqs[0])
		}
		for bytes, want := range map[int64]record.Reason{0: "", -c.block: record.ReasonShortBytes, c.block: record.ReasonExcessBytes} {
			ev.set(int64(4*c.decodeTP), 4*c.bytes+bytes)
			for i, v := range judge(ev) {
				if v.reason != want || v.proof != record.ProofBatch {
					t.Errorf("%s, request %d, %+d bytes: %q (%s), proof %s; want %q", c.dir, i, bytes, v.reason, v.detail, v.proof, want)
				}
			}
		}
	}
}

// The engines' own word on their caches goes before what a name or a flag says.
// 7,340,032 bytes are 256 tokens of Qwen2.5-7B in fp8: 256 x 28 x 2 x 4 x 128.
func TestEnginesCorrectTheGeometry(t *testing.T) {
	c := capture{dir: "two-leg-256", tokens: 256, decodeTP: 1, bytes: 14_680_064}
	base := func(change func(*evidence)) verdict {
		dir := filepath.Join(captured, "0.32.0", c.dir)
		ev := evidence{path: record.PathTwoLeg, prefill: delta(t, dir, "prefill"), decode: delta(t, dir, "decode")}
		m, err := kv.Resolve("Qwen2.5-7B", "auto")
		if err != nil {
			t.Fatal(err)
		}
		ev.reqs = []reqEvidence{{tokens: 256, reachedDecode: true, prefillCached: -1, decodeCached: -1, decodeTP: 1}}
		ev.expects = expects{Geometry: Geometry{Model: m}, known: true, version: "0.32.0", blockTokens: 32}
		change(&ev)
		return judge(ev)[0]
	}
	page := func(ev *evidence, cache metrics.Cache) {
		if err := ev.expects.publish([]metrics.Cache{cache}); err != nil {
			t.Error(err)
		}
	}
	list := func(ev *evidence) { ev.reqs[0].handed = &twoleg.Handed{Groups: []int{8}, Tokens: 256, TP: 1} }
	for name, tt := range map[string]struct {
		change func(*evidence)
		want   record.Reason
		rule   string
		note   string
	}{
		"bf16 as the name says": {func(*evidence) {}, "", record.RuleGeometry, ""},
		"fp8 by the page":       {func(ev *evidence) { page(ev, metrics.Cache{DType: "fp8"}); ev.set(1, 7_340_032) }, "", record.RuleGeometry, ""},
		"fp8 and bf16 moved":    {func(ev *evidence) { page(ev, metrics.Cache{DType: "fp8_e4m3"}) }, record.ReasonExcessBytes, record.RuleGeometry, ""},
		"fp8 that nobody says":  {func(ev *evidence) { ev.set(1, 7_340_032) }, record.ReasonShortBytes, record.RuleGeometry, ""},
		// Another model under a preset's name: the engine's page rules the name out.
		"another model": {func(ev *evidence) { page(ev, metrics.Cache{BlockLo: 2_000_000, BlockHi: 2_100_000}); ev.set(1, 999) },
			"", record.RuleTokens, "1835008 bytes on each rank by the geometry of Qwen2.5-7B"},
		"another model with lists": {func(ev *evidence) {
			page(ev, metrics.Cache{BlockLo: 1_999_000, BlockHi: 2_001_000})
			list(ev)
			ev.set(1, 16_000_000)
		}, "", record.RuleBlocks, "by the engines' own page"},
		"another model, a block short": {func(ev *evidence) {
			page(ev, metrics.Cache{BlockLo: 1_999_000, BlockHi: 2_001_000})
			list(ev)
			ev.set(1, 14_000_000)
		}, record.ReasonShortBytes, record.RuleBlocks, "by the engines' own page"},
		// More lists than the geometry has groups: it is not the engines'.
		"more groups": {func(ev *evidence) { ev.reqs[0].handed = &twoleg.Handed{Groups: []int{8, 3}} }, "", record.RuleTokens, "lists the blocks of 2 layer groups"},
		// A draft head that is not stated moves too much; stated, it is right: 1 of 28
		// layers more.
		"draft head":        {func(ev *evidence) { ev.set(1, 14_680_064*29/28) }, record.ReasonExcessBytes, record.RuleGeometry, ""},
		"draft head stated": {func(ev *evidence) { ev.expects.DraftLayers = 1; ev.set(1, 14_680_064*29/28) }, "", record.RuleGeometry, ""},
		// 28 query heads do not divide over 8 ranks, or 3.
		"eight ranks": {func(ev *evidence) { ev.reqs[0].decodeTP = 8; ev.set(8, 14_680_064) }, "", record.RuleTokens, "size 8 does not divide"},
		"three ranks": {func(ev *evidence) { ev.reqs[0].decodeTP = 3; ev.set(3, 14_680_064) }, "", record.RuleTokens, "size 3 does not divide"},
	} {
		v := base(tt.change)
		if v.reason != tt.want || v.rule != tt.rule || !strings.Contains(v.note, tt.note) || (tt.note == "") != (v.note == "") {
			t.Errorf("%s: %q (%s) by %s, note %q; want %q by %s, note %q", name, v.reason, v.detail, v.rule, v.note, tt.want, tt.rule, tt.note)
		}
	}
}

// DeepSeek-R1 over eight ranks, each with a copy: 256 x 70,272 x 8 bytes. What is
// not said of the ranks is taken from the flags, or from the transfers.
func TestReplicasOfLatentCaches(t *testing.T) {
	const copies = 256 * 70_272
	m, err := kv.Resolve("DeepSeek-R1", "auto")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		flags, fingerprint, handed int
		transfers                  int
		want                       int64 // copies
	}{
		"by the engines":      {0, 8, 8, 8, 8},
		"against the flags":   {2, 8, 8, 8, 8},
		"by the flags":        {8, 0, 0, 8, 8},
		"by prefill's answer": {0, 0, 8, 8, 8},
		"by the transfers":    {0, 0, 1, 8, 8},
		"a rank without":      {0, 0, 8, 7, 8},
		"nothing said":        {0, 0, 0, 1, 1},
	} {
		x := expects{Geometry: Geometry{Model: m, DecodeTP: tt.flags}, known: true, version: "0.32.0", blockTokens: 16}
		r := reqEvidence{tokens: 256, decodeTP: tt.fingerprint}
		if tt.handed > 0 {
			r.handed = &twoleg.Handed{Groups: []int{16}, Tokens: 256, TP: tt.handed}
		}
		n := x.of(r, tt.transfers)
		if want := (span{tt.want * copies, tt.want * copies}); len(n.ways) != 1 || n.ways[0] != want || n.note != "" {
			t.Errorf("%s: %+v, want %+v", name, n, want)
		}
	}
}

// gpt-oss-120b at 8,000 tokens: releases that send all that the clip lets through
// move 300,220,416 bytes, those that do not one block less in each windowed layer,
// and engines without the hybrid manager all of it.
func TestWaysOfAWindowedModel(t *testing.T) {
	m, err := kv.Resolve("gpt-oss-120b", "auto")
	if err != nil {
		t.Fatal(err)
	}
	const all, clipped, exact = 589_824_000, 300_220_416, 300_220_416 - 18*32_768
	for version, want := range map[string][]int64{"0.32.0": {exact, all}, "1.0": {exact, all}, "0.1.dev14213+g9d8e1c": {exact, clipped, all}, "0.24.0": {exact, clipped, all}, "0.15.1": {all}, "": {exact, clipped, all}} {
		x := expects{Geometry: Geometry{Model: m}, known: true, version: release(version), blockTokens: 16}
		var got []int64
		for _, w := range x.of(reqEvidence{tokens: 8000}, 0).ways {
			got = append(got, w.lo)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %d bytes, want %d", version, got, want)
		}
	}
}

// DeepSeek-V3.2, whose page says fp8: a slot of 576 bytes, or of the 656 of fp8_ds_mla
// where vLLM runs FlashMLA, beside the 132 of the index, in 61 layers.
func TestWaysOfAnIndexInFP8(t *testing.T) {
	m, err := kv.Resolve("DeepSeek-V3.2", "auto")
	if err != nil {
		t.Fatal(err)
	}
	x := expects{Geometry: Geometry{Model: m}, known: true, version: "0.32.0", blockTokens: 64}
	if err := x.publish([]metrics.Cache{{DType: "fp8"}}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []reqEvidence{{tokens: 256}, {tokens: 256, handed: &twoleg.Handed{Groups: []int{4}, Tokens: 256, TP: 1}}} {
		want := []span{{256 * 61 * (576 + 132), 256 * 61 * (576 + 132)}, {256 * 61 * (656 + 132), 256 * 61 * (656 + 132)}}
		if got := x.of(r, 1); !slices.Equal(got.ways, want) || got.note != "" {
			t.Errorf("%+v, want %v", got, want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	for s, want := range map[string]int{
		"vllm-0.32.0-ee0c3325": 1, "vllm-0.32.0-tp2-ac44c9b0": 2, "vllm-0.33.0-tp16": 16, "": 0, "fp_44709d6fcb": 0, "vllm-0.32.0-tp99999-a": 1,
	} {
		if got := fingerprintTP(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

// FuzzNeed: whatever engines say of a request, what it has to move is within bounds.
func FuzzNeed(f *testing.F) {
	m, err := kv.Resolve("gpt-oss-120b", "auto")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("67108864", "vllm-0.32.0-tp4096-a", 1000, 16, int64(1)<<47, 4096)
	f.Add("5,32; tokens=1000; tp=2; push", "vllm-0.32.0-tp2-a", 1000, 32, int64(917_000), 3)
	f.Fuzz(func(t *testing.T, header, fingerprint string, tokens, block int, page int64, transfers int) {
		r := reqEvidence{tokens: tokens, decodeTP: fingerprintTP(fingerprint), handed: handedOver(twoleg.ParseHanded(header))}
		x := expects{Geometry: Geometry{Model: m}, known: true, blockTokens: block, pageLo: max(page, 0) % (1 << 48), pageHi: max(page, 0) % (1 << 48)}
		for _, known := range []bool{true, false} {
			x.known = known
			for _, w := range x.of(r, transfers).ways {
				if w.lo < 0 || w.hi < w.lo {
					t.Fatalf("%+v", w)
				}
			}
		}
	})
}
