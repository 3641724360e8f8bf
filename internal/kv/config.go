package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

const maxConfigBytes = 4 << 20

// config is the part of a Hugging Face config.json that describes the text model. The
// first field that is missing or impossible is its error.
type config struct {
	fields   map[string]json.RawMessage
	arch     *architecture
	defaults map[string]json.RawMessage
	err      error
}

// ParseConfig reads the geometry from a Hugging Face config.json. name is used
// in errors and becomes the model's name. Of a multimodal model its text part
// counts. Fields that the file leaves out are those of its configuration class;
// where that has none either, and where the architecture is not one that this
// package knows, it is an error.
//
// A file without torch_dtype or dtype leaves Model.DType empty, except for gpt_oss,
// whose KV cache is bf16. A quantisation that the file states for the KV cache is
// the DType.
func ParseConfig(name string, data []byte) (Model, error) { return parse(name, data, nil) }

// parse reads a config.json, and the hf_quant_config.json that lies beside it where
// there is one.
func parse(name string, data, quant []byte) (Model, error) {
	m, err := parseConfig(data, quant)
	if err != nil {
		return Model{}, fmt.Errorf("model configuration %s: %w", name, err)
	}
	m.Name = name
	probe := m
	if probe.DType == "" {
		probe = probe.typed(BF16) // the caller may name one; the rest is checked here
	}
	return m, probe.Validate()
}

func parseConfig(data, quant []byte) (m Model, err error) {
	outer, err := object(data)
	if err != nil {
		return m, fmt.Errorf("not a config.json: %w", err)
	}
	text, err := textOf(outer, 0)
	if err != nil {
		return m, err
	}
	c := &config{fields: text}
	if c.arch, c.defaults, err = architectureOf(text, outer); err != nil {
		return m, err
	}
	d, err := c.dtype(outer)
	if err != nil {
		return m, err
	}
	heads, layers := rules[c.arch.Rule](c)
	if c.err != nil {
		return m, c.err
	}
	m = Model{Heads: heads, Groups: collect(layers)}
	if d != "" {
		m = m.typed(d)
	}
	q, err := cacheQuantisation(outer, text, quant)
	if err != nil {
		return m, err
	}
	if q != "" {
		m.DType = q
	}
	return m, nil
}

// typed is the model whose activations, and with them states and what its cache holds
// by default, are of type d.
func (m Model) typed(d DType) Model {
	m.DType = d
	m.Groups = slices.Clone(m.Groups)
	for i := range m.Groups {
		g := &m.Groups[i]
		g.States = slices.Clone(g.States)
		for j := range g.States {
			if g.States[j].DType == "" {
				g.States[j].DType = d
			}
		}
	}
	return m
}

// collect is layers that keep the same as groups, in the order of their first one. It
// stops at more groups than a model may have.
func collect(layers []Group) (out []Group) {
	for _, l := range layers {
		if len(out) > maxGroups {
			break
		}
		l.Layers = 0
		same := func(g Group) bool { g.Layers = 0; return reflect.DeepEqual(g, l) }
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i].Layers++
			continue
		}
		l.Layers = 1
		out = append(out, l)
	}
	return out
}

func object(data []byte) (m map[string]json.RawMessage, err error) {
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%d bytes are more than a config.json ever has (limit %d)", len(data), maxConfigBytes)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	return m, nil
}

// textParts are the fields under which multimodal configurations keep their text
// model's.
var textParts = []string{"text_config", "llm_config", "language_config", "thinker_config"}

// textOf is the text model's part of a configuration.
func textOf(m map[string]json.RawMessage, depth int) (map[string]json.RawMessage, error) {
	for _, name := range textParts {
		if isNull(m[name]) {
			continue
		}
		if depth == 2 {
			return nil, fmt.Errorf("%s holds another %s", name, name)
		}
		inner, err := object(m[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return textOf(inner, depth+1)
	}
	return m, nil
}

func isNull(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }

// architectureOf is how the text model caches, and what its fields default to: by the
// class that the file names, else by its model_type; of a multimodal model, the text
// part's first.
func architectureOf(text, outer map[string]json.RawMessage) (*architecture, map[string]json.RawMessage, error) {
	unknown := ""
	for _, m := range []map[string]json.RawMessage{text, outer} {
		var classes []string
		var kind string
		for field, into := range map[string]any{"architectures": &classes, "model_type": &kind} {
			if err := json.Unmarshal(m[field], into); err != nil && !isNull(m[field]) {
				return nil, nil, fmt.Errorf("%s: %w", field, err)
			}
		}
		name := fmt.Sprintf("model_type %.80q", kind)
		if len(classes) > 0 {
			name = fmt.Sprintf("architecture %.80q", classes[0])
		}
		switch a, defaults := known().find(classes, kind); {
		case a != nil && a.Refused != "":
			return nil, nil, fmt.Errorf("the KV cache of %s is not sized: %s", name, a.Refused)
		case a != nil:
			return a, defaults, nil
		case len(classes) > 0 || kind != "":
			unknown = name
		}
	}
	if unknown == "" {
		return nil, nil, errors.New("neither model_type nor architectures says what it is")
	}
	return nil, nil, fmt.Errorf("the KV cache of %s is not known: it is no text-generation architecture of vLLM's; docs/kv.md says which are", unknown)
}

// raw is a field's value: the file's, or its class's where the file does not name it.
// A dot leads into an object. null is as good as none.
func (c *config) raw(name string) json.RawMessage {
	canonical := name
	name, rest, nested := strings.Cut(c.own(name), ".")
	v, ok := c.fields[name]
	if !ok && canonical != name { // transformers writes either
		if own, named := c.fields[canonical]; named {
			v, ok, nested = own, true, false
		}
	}
	if !ok {
		v = c.defaults[name]
	}
	if isNull(v) || !nested {
		if isNull(v) {
			return nil
		}
		return v
	}
	inner, err := object(v)
	if err != nil {
		c.fail("%s: %w", name, err)
		return nil
	}
	if isNull(inner[rest]) {
		return nil
	}
	return inner[rest]
}

// own is the name by which a file calls a field.
func (c *config) own(name string) string {
	if own, ok := c.arch.Names[name]; ok {
		return own
	}
	return name
}

func (c *config) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// read decodes a field; ok is false where there is none.
func read[T any](c *config, name string) (v T, ok bool) {
	raw := c.raw(name)
	if raw == nil {
		return v, false
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		c.fail("%s: %w", c.own(name), err)
		return v, false
	}
	return v, true
}

// int is the value of a field that must be there; in an error it is 1.
func (c *config) int(name string) int {
	n, ok := read[int](c, name)
	if !ok {
		c.fail("%s is missing", c.own(name))
		return 1
	}
	return c.positive(name, n)
}

// intOr is the value of a field, or or.
func (c *config) intOr(name string, or int) int {
	n, ok := read[int](c, name)
	if !ok {
		return or
	}
	return c.positive(name, n)
}

func (c *config) positive(name string, n int) int {
	if n < 1 || n > maxLatent {
		c.fail("%s is %d; it must be from 1 to %d", c.own(name), n, maxLatent)
		return 1
	}
	return n
}

// has reports whether a field has a value.
func (c *config) has(name string) bool { return c.raw(name) != nil }

// is reports whether a field is true.
func (c *config) is(name string) bool {
	v, _ := read[bool](c, name)
	return v
}

// layers is the number of layers.
func (c *config) layers() int {
	n := c.int("num_hidden_layers")
	if n > maxLayers {
		c.fail("the number of layers is %d; it must be from 1 to %d", n, maxLayers)
		return 1
	}
	return n
}

// dtype is the type that the file names for the model, of its text part or else of the
// whole.
func (c *config) dtype(outer map[string]json.RawMessage) (DType, error) {
	for _, m := range []map[string]json.RawMessage{c.fields, outer} {
		var names []string
		for _, field := range []string{"torch_dtype", "dtype"} {
			var s string
			if raw := m[field]; !isNull(raw) {
				if err := json.Unmarshal(raw, &s); err != nil {
					return "", fmt.Errorf("%s: %w", field, err)
				}
				if s != "" {
					names = append(names, s)
				}
			}
		}
		if len(names) == 2 && !strings.EqualFold(names[0], names[1]) {
			return "", fmt.Errorf("torch_dtype %q and dtype %q disagree", names[0], names[1])
		}
		if len(names) > 0 {
			return ParseDType(names[0])
		}
	}
	if c.arch.Rule == "gpt-oss" {
		return BF16, nil
	}
	return "", nil
}

// quantisation is what a checkpoint says of its KV cache: compressed-tensors and
// ModelOpt in config.json, or ModelOpt in hf_quant_config.json.
type quantisation struct {
	Method string          `json:"quant_method"`
	Scheme json.RawMessage `json:"kv_cache_scheme"`
	Algo   *string         `json:"kv_cache_quant_algo"`
	Inner  *quantisation   `json:"quantization"`
}

// scheme is a kv_cache_scheme written out.
type scheme struct {
	Bits int    `json:"num_bits"`
	Type string `json:"type"`
}

// cacheQuantisation is the type that the checkpoint's quantisation gives the KV cache;
// empty: none.
func cacheQuantisation(outer, text map[string]json.RawMessage, beside []byte) (DType, error) {
	for _, from := range []struct {
		name string
		raw  json.RawMessage
	}{
		{"quantization_config", outer["quantization_config"]}, {"quantization_config", text["quantization_config"]},
		{"compression_config", outer["compression_config"]}, {"hf_quant_config.json", beside},
	} {
		if isNull(from.raw) {
			continue
		}
		var q quantisation
		if err := json.Unmarshal(from.raw, &q); err != nil {
			return "", fmt.Errorf("%s: %w", from.name, err)
		}
		for _, q := range []*quantisation{q.Inner, &q} {
			if q == nil {
				continue
			}
			d, err := q.cache()
			if err != nil {
				return "", fmt.Errorf("%s: %w", from.name, err)
			}
			if d != "" {
				return d, nil
			}
		}
	}
	return "", nil
}

// cache is the type of a quantisation's KV cache; empty: it leaves it alone.
func (q *quantisation) cache() (DType, error) {
	name := ""
	if q.Algo != nil {
		name = *q.Algo
	}
	if !isNull(q.Scheme) {
		var s scheme
		switch {
		case json.Unmarshal(q.Scheme, &name) == nil:
		case json.Unmarshal(q.Scheme, &s) == nil && s.Type == "float" && s.Bits == 8:
			return FP8, nil
		case s.Type == "float" && s.Bits == 4:
			return NVFP4, nil
		default:
			return "", fmt.Errorf("a kv_cache_scheme of %d bits and type %.40q is not known; name the type with --dtype", s.Bits, s.Type)
		}
	}
	switch strings.ToLower(name) {
	case "", "none", "auto":
		return "", nil
	}
	d, err := ParseDType(name)
	if err != nil {
		return "", fmt.Errorf("the type of the KV cache: %w", err)
	}
	return d, nil
}
