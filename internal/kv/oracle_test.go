package kv

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
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
