package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// preset is a model by name. org and variants are the spellings of its
// repositories on Hugging Face.
type preset struct {
	model    Model
	org      string
	variants []string
}

// presets hold the geometry that the models' own config.json files state. The
// KV cache of DeepSeek is kept in bf16 though the weights are fp8: vLLM's
// default, kv-cache-dtype auto, is the type of the activations.
var presets = []preset{
	{Uniform("Qwen2.5-7B", 28, 28, 4, 128, BF16),
		"Qwen", []string{"Qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct-1M", "Qwen2.5-Coder-7B", "Qwen2.5-Coder-7B-Instruct"}},
	{Uniform("Qwen2.5-32B", 64, 40, 8, 128, BF16),
		"Qwen", []string{"Qwen2.5-32B-Instruct", "Qwen2.5-Coder-32B", "Qwen2.5-Coder-32B-Instruct"}},
	{Uniform("Qwen3-8B", 36, 32, 8, 128, BF16),
		"Qwen", []string{"Qwen3-8B-Base"}},
	{Uniform("Llama-3.1-8B", 32, 32, 8, 128, BF16),
		"meta-llama", []string{"Llama-3.1-8B-Instruct", "Meta-Llama-3.1-8B", "Meta-Llama-3.1-8B-Instruct"}},
	{Uniform("Llama-3.1-70B", 80, 64, 8, 128, BF16),
		"meta-llama", []string{"Llama-3.1-70B-Instruct", "Meta-Llama-3.1-70B", "Meta-Llama-3.1-70B-Instruct"}},
	{Model{Name: "DeepSeek-V3", Heads: 128, DType: BF16, Groups: []Group{{Kind: Latent, Layers: 61, KeyDim: 512 + 64}}},
		"deepseek-ai", []string{"DeepSeek-V3-Base", "DeepSeek-V3-0324"}},
	{Model{Name: "DeepSeek-R1", Heads: 128, DType: BF16, Groups: []Group{{Kind: Latent, Layers: 61, KeyDim: 512 + 64}}},
		"deepseek-ai", []string{"DeepSeek-R1-0528", "DeepSeek-R1-Zero"}},
	{Model{Name: "gpt-oss-120b", Heads: 64, DType: BF16, Groups: []Group{
		{Kind: Sliding, Layers: 18, KVHeads: 8, KeyDim: 64, ValueDim: 64, Window: 128}, {Kind: Full, Layers: 18, KVHeads: 8, KeyDim: 64, ValueDim: 64}}},
		"openai", nil},
	{Uniform("Mistral-7B", 32, 32, 8, 128, BF16),
		"mistralai", []string{"Mistral-7B-v0.3", "Mistral-7B-Instruct-v0.3", "Mistral-7B-Instruct-v0.2"}},
}

// DefaultModel is the preset that a command without a model uses.
const DefaultModel = "Qwen2.5-7B"

// Presets returns the names of the built-in models.
func Presets() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.model.Name
	}
	return names
}

// Preset returns the built-in model of that name. Case does not count, and the
// name of the model's repository ("Qwen/Qwen2.5-7B-Instruct") is as good.
func Preset(name string) (Model, bool) {
	for _, p := range presets {
		n := name
		if org, rest, ok := strings.Cut(name, "/"); ok && strings.EqualFold(org, p.org) {
			n = rest
		}
		for _, v := range append([]string{p.model.Name}, p.variants...) {
			if strings.EqualFold(n, v) {
				return p.model, true
			}
		}
	}
	return Model{}, false
}

// Resolve returns the model that name means: a preset, a config.json, or a
// directory that holds one. dtype, when not empty, replaces the type of the KV
// cache ("fp8"); "auto" and empty keep the model's own.
func Resolve(name, dtype string) (Model, error) {
	m, ok := Preset(name)
	if !ok {
		var err error
		if m, err = fromFile(name); err != nil {
			return Model{}, err
		}
	}
	if dtype != "" && !strings.EqualFold(dtype, "auto") {
		d, err := ParseDType(dtype)
		if err != nil {
			return Model{}, err
		}
		m.DType = d
	}
	return m, m.Validate()
}

func fromFile(name string) (Model, error) {
	path := name
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, "config.json")
		info, err = os.Stat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && path == name && !strings.HasSuffix(name, ".json"):
		return Model{}, fmt.Errorf("unknown model %q: neither a built-in name (%s) nor a file; give one of these or the path of the model's config.json",
			name, strings.Join(Presets(), ", "))
	case err != nil:
		return Model{}, fmt.Errorf("model configuration: %w", err)
	case info.Size() > maxConfigBytes:
		return Model{}, fmt.Errorf("model configuration %s has %d bytes, more than a config.json ever has (limit %d)", path, info.Size(), maxConfigBytes)
	case !info.Mode().IsRegular():
		return Model{}, fmt.Errorf("model configuration %s is not a regular file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Model{}, fmt.Errorf("model configuration: %w", err)
	}
	return ParseConfig(path, data)
}
