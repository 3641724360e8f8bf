package kv

import (
	_ "embed"
	"encoding/json"
	"sync"
)

// architecture is how one of vLLM's text-generation architectures caches.
type architecture struct {
	// Rule names the function of rules that reads a configuration of it.
	Rule string `json:"rule,omitempty"`
	// Type is the model_type of a file that names the class alone.
	Type string `json:"type,omitempty"`
	// Refused, in place of a rule, says why it is not sized.
	Refused string `json:"refused,omitempty"`
	// Names are the configuration's own names of fields that others call as the rule
	// does; a dot leads into an object.
	Names map[string]string `json:"names,omitempty"`
	// Pattern is the kinds of layers, repeated, where a file names none: F full,
	// s sliding, c chunked, l linear, m state-space, i indexed.
	Pattern string `json:"pattern,omitempty"`
	// Every is the field with the length of a pattern that ends in its one full layer.
	Every string `json:"every,omitempty"`
	// ByLayer says that vLLM's class reads the kind of each layer; without it a window
	// is of all layers or of none.
	ByLayer bool `json:"by_layer,omitempty"`
	// Beyond is the tokens by which vLLM's class keeps more than the window.
	Beyond int `json:"beyond,omitempty"`
	// Derived says that vLLM's class takes no head_dim: a head is its share of
	// hidden_size.
	Derived bool `json:"derived,omitempty"`
}

// modelType is what a model_type stands for.
type modelType struct {
	Architecture string `json:"architecture"`
	// Defaults are what its configuration class has where a file says nothing; nil:
	// the class comes with the checkpoint and is not known.
	Defaults map[string]json.RawMessage `json:"defaults"`
}

// catalogue are the architectures of vLLM's registry of text generation, by name, and
// the model types that lead to them.
type catalogue struct {
	Architectures map[string]*architecture `json:"architectures"`
	Types         map[string]*modelType    `json:"types"`
}

// catalogueJSON is made by testdata/architectures.py.
//
//go:embed architectures.json
var catalogueJSON []byte

var known = sync.OnceValue(func() (c catalogue) {
	if err := json.Unmarshal(catalogueJSON, &c); err != nil {
		return catalogue{} // a test reads it
	}
	return c
})

// find is the architecture of a configuration that names classes and a model_type, and
// the defaults of its fields; nil: neither is known. The class decides how vLLM caches,
// the model_type what a field that is left out means.
func (c catalogue) find(classes []string, kind string) (*architecture, map[string]json.RawMessage) {
	t := c.Types[kind]
	for _, name := range classes {
		a := c.Architectures[name]
		switch {
		case a == nil:
		case t != nil:
			return a, t.Defaults
		case kind != "":
			return a, nil
		default:
			return a, c.Types[a.Type].defaults()
		}
	}
	if t == nil {
		return nil, nil
	}
	return c.Architectures[t.Architecture], t.Defaults
}

func (t *modelType) defaults() map[string]json.RawMessage {
	if t == nil {
		return nil
	}
	return t.Defaults
}
