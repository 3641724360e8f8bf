package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const maxConfigBytes = 1 << 20

// hfConfig holds the fields of a Hugging Face config.json that decide the KV
// cache. Pointers tell "absent or null" from a number.
type hfConfig struct {
	Architectures    []string  `json:"architectures"`
	ModelType        string    `json:"model_type"`
	NumHiddenLayers  *int      `json:"num_hidden_layers"`
	HiddenSize       *int      `json:"hidden_size"`
	NumAttnHeads     *int      `json:"num_attention_heads"`
	NumKVHeads       *int      `json:"num_key_value_heads"`
	HeadDim          *int      `json:"head_dim"`
	TorchDType       string    `json:"torch_dtype"`
	DType            string    `json:"dtype"`
	KVLoraRank       *int      `json:"kv_lora_rank"`
	QKRopeHeadDim    *int      `json:"qk_rope_head_dim"`
	SlidingWindow    *int      `json:"sliding_window"`
	UseSlidingWindow *bool     `json:"use_sliding_window"`
	MaxWindowLayers  *int      `json:"max_window_layers"`
	LayerTypes       []string  `json:"layer_types"`
	TextConfig       *hfConfig `json:"text_config"`
}

// family is how a model type caches keys and values.
type family int

const (
	grouped family = iota + 1 // K and V per KV head
	latent                    // multi-head latent attention
)

// modelTypes are the model_type values whose cache this package knows. Others
// (state-space layers, shared caches between layers) would be counted wrongly,
// so they are refused.
var modelTypes = map[string]family{
	"llama": grouped, "mistral": grouped, "mixtral": grouped, "qwen2": grouped, "qwen2_moe": grouped,
	"qwen2_5_vl": grouped, "qwen2_5_vl_text": grouped, "qwen3": grouped, "qwen3_moe": grouped,
	"qwen3_vl_text": grouped, "gpt_oss": grouped,
	"deepseek_v2": latent, "deepseek_v3": latent, "kimi_k2": latent,
}

// architectureTypes gives the model_type of files that state only the class.
var architectureTypes = map[string]string{
	"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral", "MixtralForCausalLM": "mixtral",
	"Qwen2ForCausalLM": "qwen2", "Qwen2MoeForCausalLM": "qwen2_moe",
	"Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3_moe", "GptOssForCausalLM": "gpt_oss",
	"DeepseekV2ForCausalLM": "deepseek_v2", "DeepseekV3ForCausalLM": "deepseek_v3",
}

// ParseConfig reads the geometry from a Hugging Face config.json. name is used
// in errors and becomes the model's name. head_dim defaults to hidden_size /
// num_attention_heads, num_key_value_heads to num_attention_heads, and for a
// multimodal model the text_config counts.
//
// A file without torch_dtype or dtype leaves Model.DType empty, except for
// gpt_oss, whose KV cache is bf16. Every other number that is missing or
// impossible, and a model type whose cache is not known, is an error.
func ParseConfig(name string, data []byte) (Model, error) {
	m, err := parseConfig(data)
	if err != nil {
		return Model{}, fmt.Errorf("model configuration %s: %w", name, err)
	}
	m.Name = name
	probe := m
	if probe.DType == "" {
		probe.DType = BF16 // the caller may name one; the rest is checked here
	}
	return m, probe.Validate()
}

// shape is what the fields of a file say.
type shape struct {
	layers, heads, kvHeads, headDim, latent int
	sliding                                 []bool // of each layer
	window                                  int
}

func parseConfig(data []byte) (m Model, err error) {
	c, err := decodeConfig(data)
	if err != nil {
		return m, err
	}
	kind, err := c.kind()
	if err != nil {
		return m, err
	}
	var s shape
	if err := c.sizes(modelTypes[kind], &s); err != nil {
		return m, err
	}
	if err := c.window(kind, &s); err != nil {
		return m, err
	}
	m.Heads, m.Groups = s.heads, s.groups()
	m.DType, err = c.dtype(kind)
	return m, err
}

// groups are the layers by kind, in the order of their first one.
func (s *shape) groups() (out []Group) {
	full := Group{Kind: Full, KVHeads: s.kvHeads, KeyDim: s.headDim, ValueDim: s.headDim}
	if s.latent > 0 {
		full = Group{Kind: Latent, KeyDim: s.latent}
	}
	for i := range s.layers {
		g := full
		if i < len(s.sliding) && s.sliding[i] {
			g.Kind, g.Window = Sliding, s.window
		}
		if j := slices.IndexFunc(out, func(o Group) bool { return o.Kind == g.Kind }); j >= 0 {
			out[j].Layers++
		} else {
			g.Layers = 1
			out = append(out, g)
		}
	}
	return out
}

// decodeConfig reads the JSON. Of a multimodal model it is the text_config, with
// what that leaves to the file around it.
func decodeConfig(data []byte) (*hfConfig, error) {
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%d bytes are more than a config.json ever has (limit %d)", len(data), maxConfigBytes)
	}
	var c hfConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("not a config.json: %w", err)
	}
	t := c.TextConfig
	if t == nil {
		return &c, nil
	}
	if t.TextConfig != nil {
		return nil, errors.New("text_config holds another text_config")
	}
	if t.ModelType == "" && len(t.Architectures) == 0 {
		t.ModelType, t.Architectures = c.ModelType, c.Architectures
	}
	if t.TorchDType == "" && t.DType == "" {
		t.TorchDType, t.DType = c.TorchDType, c.DType
	}
	return t, nil
}

// kind is the model type, one of modelTypes.
func (c *hfConfig) kind() (string, error) {
	kind := c.ModelType
	if kind == "" && len(c.Architectures) > 0 {
		kind = architectureTypes[c.Architectures[0]]
		if kind == "" {
			return "", fmt.Errorf("architecture %q is not known; known are %s", c.Architectures[0], knownTypes())
		}
	}
	if kind == "" {
		return "", errors.New("neither model_type nor architectures says what it is")
	}
	if _, ok := modelTypes[kind]; !ok {
		return "", fmt.Errorf("the KV cache of model_type %q is not known; known are %s", kind, knownTypes())
	}
	return kind, nil
}

// sizes fills in the layers, the heads and what a token takes in them.
func (c *hfConfig) sizes(fam family, m *shape) (err error) {
	if m.layers, err = size("num_hidden_layers", c.NumHiddenLayers); err != nil {
		return err
	}
	if m.heads, err = size("num_attention_heads", c.NumAttnHeads); err != nil {
		return err
	}
	if fam == latent {
		return c.latentDim(m)
	}
	m.kvHeads = m.heads
	if c.NumKVHeads != nil {
		if m.kvHeads, err = size("num_key_value_heads", c.NumKVHeads); err != nil {
			return err
		}
	}
	return c.headDim(m)
}

// latentDim fills in the width of multi-head latent attention's one vector.
func (c *hfConfig) latentDim(m *shape) error {
	rank, err := size("kv_lora_rank", c.KVLoraRank)
	if err != nil {
		return err
	}
	rope, err := size("qk_rope_head_dim", c.QKRopeHeadDim)
	if err != nil {
		return err
	}
	m.latent = rank + rope
	return nil
}

// headDim fills in the width of a head: as given, or the hidden state's share.
func (c *hfConfig) headDim(m *shape) (err error) {
	if c.HeadDim != nil {
		m.headDim, err = size("head_dim", c.HeadDim)
		return err
	}
	hidden, err := size("hidden_size", c.HiddenSize)
	if err != nil {
		return fmt.Errorf("%w, and so is head_dim", err)
	}
	if hidden%m.heads != 0 {
		return fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d, and head_dim is missing", hidden, m.heads)
	}
	m.headDim = hidden / m.heads
	return nil
}

// size is the value of a field that must be there.
func size(field string, v *int) (int, error) {
	if v == nil {
		return 0, fmt.Errorf("%s is missing", field)
	}
	if *v < 1 || *v > maxLatent {
		return 0, fmt.Errorf("%s is %d; it must be from 1 to %d", field, *v, maxLatent)
	}
	return *v, nil
}

// window fills in the layers with a sliding window.
func (c *hfConfig) window(kind string, m *shape) error {
	slides := make([]bool, 0, len(c.LayerTypes))
	for _, t := range c.LayerTypes {
		switch t {
		case "sliding_attention", "full_attention":
			slides = append(slides, t == "sliding_attention")
		default:
			return fmt.Errorf("the KV cache of a layer of type %q is not known", t)
		}
	}
	if c.LayerTypes != nil && len(c.LayerTypes) != m.layers {
		return fmt.Errorf("layer_types has %d entries for %d layers", len(c.LayerTypes), m.layers)
	}
	if c.SlidingWindow == nil || c.UseSlidingWindow != nil && !*c.UseSlidingWindow {
		return nil
	}
	if *c.SlidingWindow < 1 {
		return fmt.Errorf("sliding_window is %d; it must be at least 1, or null", *c.SlidingWindow)
	}
	m.window = *c.SlidingWindow
	if c.LayerTypes != nil {
		m.sliding = slides
		return nil
	}
	m.sliding = make([]bool, min(m.layers, maxLayers))
	for i := range m.sliding {
		switch {
		case kind == "gpt_oss":
			m.sliding[i] = i%2 == 0
		case c.MaxWindowLayers != nil: // Qwen: layers from there on
			m.sliding[i] = i >= *c.MaxWindowLayers
		default:
			m.sliding[i] = true
		}
	}
	return nil
}

func (c *hfConfig) dtype(kind string) (DType, error) {
	name := c.TorchDType
	if name == "" {
		name = c.DType
	}
	if c.TorchDType != "" && c.DType != "" && !strings.EqualFold(c.TorchDType, c.DType) {
		return "", fmt.Errorf("torch_dtype %q and dtype %q disagree", c.TorchDType, c.DType)
	}
	if name == "" {
		if kind == "gpt_oss" {
			return BF16, nil
		}
		return "", nil
	}
	return ParseDType(name)
}

func knownTypes() string {
	names := make([]string, 0, len(modelTypes))
	for n := range modelTypes {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
