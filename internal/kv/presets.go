package kv

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// preset is a model by name. Repositories are those on Hugging Face that state its
// geometry, Config the fields of the first one's config.json that decide it, and
// Quantisation those of the hf_quant_config.json beside it.
type preset struct {
	Name         string          `json:"name"`
	Repositories []string        `json:"repositories"`
	Source       string          `json:"source"`
	Config       json.RawMessage `json:"config"`
	Quantisation json.RawMessage `json:"quantization"`
}

// presetsJSON is made by testdata/presets.py. The KV cache of a model whose weights are
// quantised is of the type of its activations (vLLM's kv-cache-dtype auto), unless its
// checkpoint states one.
//
//go:embed presets.json
var presetsJSON []byte

var presets = sync.OnceValue(func() (out []preset) {
	if err := json.Unmarshal(presetsJSON, &out); err != nil {
		return nil // a test reads it
	}
	return out
})

// DefaultModel is the preset that a command without a model uses.
const DefaultModel = "Qwen2.5-7B"

// Presets returns the names of the built-in models.
func Presets() []string {
	var names []string
	for _, p := range presets() {
		names = append(names, p.Name)
	}
	return names
}

// Preset returns the built-in model of that name. Case does not count, and the
// name of the model's repository ("Qwen/Qwen2.5-7B-Instruct") is as good, with its
// owner or without.
func Preset(name string) (Model, bool) {
	for _, p := range presets() {
		if p.is(name) {
			m, err := parse(p.Name, p.Config, p.Quantisation)
			return m, err == nil
		}
	}
	return Model{}, false
}

// is reports whether name means the preset.
func (p preset) is(name string) bool {
	return strings.EqualFold(name, p.Name) || slices.ContainsFunc(p.Repositories, func(r string) bool {
		_, short, _ := strings.Cut(r, "/")
		return strings.EqualFold(name, r) || strings.EqualFold(name, short)
	})
}

// Resolve returns the model that name means: a directory that holds a config.json, a
// preset, or a config.json. dtype, when not empty, replaces the type of the KV
// cache ("fp8"); "auto" and empty keep the model's own.
//
// A directory wins over a preset of its name; the model's Name then is the path of
// what was read.
func Resolve(name, dtype string) (Model, error) {
	m, ok := Model{}, false
	if info, err := os.Stat(filepath.Join(name, "config.json")); err != nil || !info.Mode().IsRegular() {
		m, ok = Preset(name)
	}
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
		if m.DType == "" && d.activation() {
			m = m.typed(d)
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
			name, strings.Join(near(name), ", "))
	case err != nil:
		return Model{}, fmt.Errorf("model configuration: %w", err)
	}
	data, err := readSmall(path, info)
	if err != nil {
		return Model{}, err
	}
	// ModelOpt's checkpoints may state their quantisation beside the file.
	var quant []byte
	beside := filepath.Join(filepath.Dir(path), "hf_quant_config.json")
	if info, err := os.Stat(beside); err == nil {
		if quant, err = readSmall(beside, info); err != nil {
			return Model{}, err
		}
	}
	return parse(path, data, quant)
}

// readSmall reads a configuration.
func readSmall(path string, info fs.FileInfo) ([]byte, error) {
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("model configuration %s is not a regular file", path)
	case info.Size() > maxConfigBytes:
		return nil, fmt.Errorf("model configuration %s has %d bytes, more than a config.json ever has (limit %d)", path, info.Size(), maxConfigBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("model configuration: %w", err)
	}
	return data, nil
}

// near are the presets to name beside one that is none: those that begin like it, or a
// few.
func near(name string) (out []string) {
	_, short, ok := strings.Cut(name, "/")
	if !ok {
		short = name
	}
	all := Presets()
	for n := min(len(short), 8); n >= 3 && len(out) == 0; n-- {
		for _, p := range all {
			if len(p) >= n && strings.EqualFold(p[:n], short[:n]) {
				out = append(out, p)
			}
		}
	}
	if len(out) == 0 {
		out = []string{DefaultModel, "Llama-3.1-70B", "DeepSeek-R1", "gpt-oss-120b"}
	}
	return append(out, fmt.Sprintf("… %d in docs/kv.md", len(all)))
}
