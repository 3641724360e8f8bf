package ttft

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// Prompts have their length, their ids are in the vocabulary and not special,
// and no two of a run, nor of runs with other seeds, share their first block.
func TestPromptsAreUniqueInTheirFirstBlock(t *testing.T) {
	for _, vocab := range []int{512, 32_000, 151_936} {
		seen := map[string]uint64{}
		for _, seed := range []uint64{1, 2, 1 << 60} {
			p := prompts{TokenPrompts, seed, vocab}
			for i := range uint64(2000) {
				ids := p.ids(i, 40)
				if len(ids) != 40 || int(slices.Min(ids)) < p.lowest() || int(slices.Max(ids)) >= vocab {
					t.Fatalf("vocabulary %d: prompt %v", vocab, ids)
				}
				first, err := json.Marshal(ids[:16])
				if err != nil {
					t.Fatal(err)
				}
				if other, twice := seen[string(first)]; twice {
					t.Fatalf("vocabulary %d: prompts %d and %d share their first block", vocab, other, i)
				}
				seen[string(first)] = i
			}
			if !slices.Equal(p.ids(7, 40), p.ids(7, 40)) {
				t.Error("a prompt is not the same the second time")
			}
		}
	}
}

// Even the few tokens that make a prompt unique are, by arithmetic and not by
// chance: a prompt that is no longer has no two equal ones.
func TestShortPromptsAreUnique(t *testing.T) {
	p := prompts{TokenPrompts, 3, 256}
	n := p.digits()
	seen := map[string]bool{}
	for i := range uint64(50_000) {
		b, err := json.Marshal(p.ids(i, n))
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(b)] {
			t.Fatalf("prompt %d of %d tokens came before", i, n)
		}
		seen[string(b)] = true
	}
	if err := p.check(n - 1); err == nil {
		t.Error("a prompt that cannot be unique was accepted")
	}
	if err := p.check(n); err != nil {
		t.Error(err)
	}
}

func TestBodies(t *testing.T) {
	p := prompts{TokenPrompts, 1, 32_000}
	r, err := p.prepare(5, "id", `a "model"`, 20, 8)
	if err != nil {
		t.Fatal(err)
	}
	type body struct {
		Model         string          `json:"model"`
		Prompt        []int32         `json:"prompt"`
		MaxTokens     int             `json:"max_tokens"`
		MinTokens     int             `json:"min_tokens"`
		IgnoreEOS     bool            `json:"ignore_eos"`
		Temperature   *float64        `json:"temperature"`
		Stream        bool            `json:"stream"`
		StreamOptions map[string]bool `json:"stream_options"`
		Params        map[string]any  `json:"kv_transfer_params"`
	}
	decode := func(b []byte) (out body) {
		t.Helper()
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if out.Model != `a "model"` || !slices.Equal(out.Prompt, p.ids(5, 20)) || !out.IgnoreEOS || out.Temperature == nil || *out.Temperature != 0 {
			t.Errorf("body %+v", out)
		}
		return out
	}
	whole := decode(r.whole)
	if whole.MaxTokens != 8 || whole.MinTokens != 0 || !whole.Stream || !whole.StreamOptions["include_usage"] || whole.Params != nil {
		t.Errorf("whole %+v", whole)
	}
	prefill := decode(r.prefill)
	if prefill.MaxTokens != 1 || prefill.MinTokens != 0 || prefill.Stream || prefill.StreamOptions != nil || prefill.Params["do_remote_decode"] != true {
		t.Errorf("prefill leg %+v", prefill)
	}
	params := json.RawMessage(`{"do_remote_prefill":true,"remote_block_ids":[[1,2]]}`)
	d := decode(r.decodeBody(params))
	if d.MaxTokens != 8 || !d.Stream || d.Params["do_remote_prefill"] != true || !strings.Contains(string(r.decodeBody(params)), string(params)) {
		t.Errorf("decode leg %+v", d)
	}
}

func TestTextPromptsDifferAtTheirEnd(t *testing.T) {
	p := prompts{TextPrompts, 1, 32_000}
	a, b := p.text(1, 100), p.text(2, 100)
	same := 0
	for same < len(a) && a[same] == b[same] {
		same++
	}
	if a == b || same < len(a)*3/4 {
		t.Errorf("texts share %d of %d bytes", same, len(a))
	}
	if _, err := p.prepare(1, "id", "m", 100, 2); err != nil {
		t.Error(err)
	}
}
