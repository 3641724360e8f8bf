package kv

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// engineLayers are the layers of one kind as vLLM's own cache specification has them.
type engineLayers struct {
	Kind   Kind  `json:"kind"`
	Layers int   `json:"layers"`
	Window int   `json:"window"`
	Slot   int64 `json:"slot"`  // bytes of a token in a layer of one rank
	State  int64 `json:"state"` // bytes of a request, likewise
}

// oracleEntry is a configuration, and by number of ranks what vLLM makes of it; null:
// it refuses that number.
type oracleEntry struct {
	Name   string                    `json:"name"`
	Cache  string                    `json:"cache"`
	Config json.RawMessage           `json:"config"`
	Ranks  map[string][]engineLayers `json:"ranks"`
	// Lists are on one rank with KV blocks of 32 tokens or, beside states, of as many as
	// the engine raises that to.
	Lists []engineList `json:"lists"`
}

// engineList is layers that share the numbers of their KV blocks. Page is the bytes of
// one block in all of them; Tokens is 0 of a state.
type engineList struct {
	Kind   Kind  `json:"kind"`
	Layers int   `json:"layers"`
	Tokens int   `json:"tokens"`
	Page   int64 `json:"page"`
}

func oracle(t *testing.T) (out []oracleEntry) {
	t.Helper()
	data, err := os.ReadFile("testdata/vllm.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// layersOf is what this package says of one of tp ranks, in the oracle's terms.
func layersOf(m Model, tp int) (out []engineLayers) {
	for _, g := range m.Groups {
		l := engineLayers{Kind: g.Kind, Window: g.Window, Slot: g.slot(m.DType, tp) / g.every(), State: g.state(tp)}
		if i := slices.IndexFunc(out, func(o engineLayers) bool { o.Layers = 0; return o == l }); i >= 0 {
			out[i].Layers += g.Layers
			continue
		}
		l.Layers = g.Layers
		out = append(out, l)
	}
	return out
}

// TestAgainstEngine holds every configuration that the engine packages were asked about
// to what they said: kinds, layers, windows, and bytes of a token or state in a layer,
// for each number of ranks (testdata/README.md).
func TestAgainstEngine(t *testing.T) {
	entries, checked := oracle(t), 0
	for _, e := range entries {
		m, err := ParseConfig(e.Name, e.Config)
		if err != nil {
			t.Error(err)
			continue
		}
		if e.Cache != "" {
			if m.DType, err = ParseDType(e.Cache); err != nil {
				t.Error(err)
			}
		}
		for ranks, want := range e.Ranks {
			tp, err := strconv.Atoi(ranks)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				continue
			}
			if _, err := m.Rank(tp); err != nil {
				t.Errorf("%s: %v", e.Name, err)
				continue
			}
			if got := layersOf(m, tp); !reflect.DeepEqual(got, want) {
				t.Errorf("%s on %d ranks:\n got %+v\nwant %+v", e.Name, tp, got, want)
			}
			checked++
		}
	}
	t.Logf("%d configurations, %d times of ranks", len(entries), checked)
	if len(entries) < 60 {
		t.Errorf("%d configurations are fewer than 60", len(entries))
	}
}

// TestArchitecturesSized counts the text-generation architectures of vLLM's registry
// that are sized, and holds that the others say why not.
func TestArchitecturesSized(t *testing.T) {
	var sized, refused int
	for name, a := range known().Architectures {
		switch {
		case a.Refused != "":
			refused++
			if _, err := ParseConfig("x", fmt.Appendf(nil, `{"architectures":[%q]}`, name)); err == nil {
				t.Errorf("%s is refused and was read", name)
			}
		case rules[a.Rule] == nil:
			t.Errorf("%s: there is no rule %q", name, a.Rule)
		default:
			sized++
		}
	}
	t.Logf("%d text-generation architectures: %d sized, %d refused with the reason", sized+refused, sized, refused)
	if all := sized + refused; all < 120 || 10*sized < 9*all {
		t.Errorf("%d of %d architectures are sized; at least 90 %% should be", sized, all)
	}
	for kind, mt := range known().Types {
		if known().Architectures[mt.Architecture] == nil {
			t.Errorf("model_type %s leads to %s, which is not there", kind, mt.Architecture)
		}
	}
	used := map[string]bool{}
	for _, a := range known().Architectures {
		used[a.Rule] = true
	}
	for name := range rules {
		if !used[name] {
			t.Errorf("no architecture has the rule %s", name)
		}
	}
}

// TestCacheTypesAgainstEngine holds the bytes of a head to what vLLM's backends pack.
func TestCacheTypesAgainstEngine(t *testing.T) {
	data, err := os.ReadFile("testdata/cachetypes.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Type         string
		Head, Latent int
		Bytes        int64
	}
	if err := json.Unmarshal(data, &rows); err != nil || len(rows) < 50 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		d, err := ParseDType(r.Type)
		if err != nil {
			t.Error(err)
			continue
		}
		g := Group{Kind: Full, Layers: 1, KVHeads: 1, KeyDim: r.Head, ValueDim: r.Head}
		if r.Latent > 0 {
			g = Group{Kind: Latent, Layers: 1, KeyDim: r.Latent}
		}
		if got := g.slot(d, 1); got != r.Bytes {
			t.Errorf("%s, a head of %d: %d bytes, want %d", r.Type, r.Head+r.Latent, got, r.Bytes)
		}
	}
	// By the comments of vLLM's ops/ultraquant/format.py.
	for head, want := range map[int64]int64{128: 136, 256: 272} {
		if got := UltraQuant4Bit.slot(head, head); got != want {
			t.Errorf("ultraquant_4bit, a head of %d: %d bytes, want %d", head, got, want)
		}
	}
}

// TestPresetsAgainstEngine holds that every preset is what the engine packages said of
// the configuration that it names.
func TestPresetsAgainstEngine(t *testing.T) {
	said := map[string]oracleEntry{}
	for _, e := range oracle(t) {
		said[e.Name] = e
	}
	for _, p := range presets() {
		m, ok := Preset(p.Name)
		if !ok {
			_, err := parse(p.Name, p.Config, p.Quantisation)
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		if p.Source == "" {
			t.Errorf("%s names no source", p.Name)
		}
		e, ok := said[strings.ReplaceAll(p.Repositories[0], "/", "--")]
		if !ok {
			t.Errorf("%s: the engine was not asked about %s", p.Name, p.Repositories[0])
		}
		m.DType = BF16 // the engine was asked without the checkpoint's quantisation
		for ranks, want := range e.Ranks {
			tp, err := strconv.Atoi(ranks)
			if err != nil {
				t.Fatal(err)
			}
			if got := layersOf(m, tp); want != nil && !reflect.DeepEqual(got, want) {
				t.Errorf("%s on %d ranks:\n got %+v\nwant %+v", p.Name, tp, got, want)
			}
		}
	}
}

// TestListsAgainstEngine holds the lists of KV blocks to those that the engine core
// divides the layers into with NixlConnector's layout: their order, layers, tokens of a
// block, and bytes of a block in all of a list's layers.
func TestListsAgainstEngine(t *testing.T) {
	checked := 0
	for _, e := range oracle(t) {
		if e.Lists == nil {
			continue
		}
		m, err := ParseConfig(e.Name, e.Config)
		if err != nil {
			t.Error(err)
			continue
		}
		d := Deployment{Hybrid: true, BlockTokens: 32}
		lists, err := m.lists(&d)
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		var got []engineList
		for _, l := range lists {
			page := l.blockBytes()
			if len(lists) > 1 {
				page = l.spans[0].bytes * int64(l.layers)
			}
			got = append(got, engineList{l.kind, l.layers, l.tokens, page})
		}
		if !reflect.DeepEqual(got, e.Lists) {
			t.Errorf("%s:\n got %+v\nwant %+v", e.Name, got, e.Lists)
		}
		checked++
	}
	t.Logf("%d configurations", checked)
	if checked < 20 {
		t.Errorf("%d configurations have lists; 20 are fewest", checked)
	}
}
