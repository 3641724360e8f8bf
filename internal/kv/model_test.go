package kv

import (
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// bytesPerToken was worked out by hand from the models' published geometry.
var bytesPerToken = map[string]int64{
	"Qwen2.5-7B":    57_344,  // 2 × 28 × 4 × 128 × 2
	"Qwen2.5-32B":   262_144, // 2 × 64 × 8 × 128 × 2
	"Qwen3-8B":      147_456, // 2 × 36 × 8 × 128 × 2
	"Llama-3.1-8B":  131_072, // 2 × 32 × 8 × 128 × 2
	"Llama-3.1-70B": 327_680, // 2 × 80 × 8 × 128 × 2
	"DeepSeek-V3":   70_272,  // 61 × 576 × 2
	"DeepSeek-R1":   70_272,
	"gpt-oss-120b":  73_728, // 2 × 36 × 8 × 64 × 2
	"Mistral-7B":    131_072,
}

func TestPresets(t *testing.T) {
	if n := len(Presets()); n < 40 {
		t.Errorf("%d presets are fewer than 40", n)
	}
	for name := range bytesPerToken {
		m, err := Resolve(name, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := m.BytesPerToken(); got != bytesPerToken[name] {
			t.Errorf("%s: %d bytes a token, want %d", name, got, bytesPerToken[name])
		}
		// The captured config.json of the same model must say the same.
		c, err := Resolve(filepath.Join("../../testdata/models", name), "")
		if err != nil {
			t.Fatal(err)
		}
		c.Name = m.Name
		if !reflect.DeepEqual(c, m) {
			t.Errorf("config.json gives %+v, the preset is %+v", c, m)
		}
	}
}

func TestPresetAliases(t *testing.T) {
	for alias, want := range map[string]string{
		"qwen2.5-7b": "Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct": "Qwen2.5-7B", "QWEN/qwen3-8b": "Qwen3-8B",
		"meta-llama/Llama-3.1-70B-Instruct": "Llama-3.1-70B", "meta-llama/Meta-Llama-3.1-8B": "Llama-3.1-8B",
		"deepseek-ai/DeepSeek-R1-0528": "DeepSeek-R1", "openai/gpt-oss-120b": "gpt-oss-120b",
		"mistralai/Mistral-7B-Instruct-v0.3": "Mistral-7B",
	} {
		if m, ok := Preset(alias); !ok || m.Name != want {
			t.Errorf("Preset(%q) = %q, %v; want %q", alias, m.Name, ok, want)
		}
	}
	for _, bad := range []string{"", "qwen", "openai/Qwen2.5-7B", "Qwen/", "Qwen2.5-7B/"} {
		if m, ok := Preset(bad); ok {
			t.Errorf("Preset(%q) = %q", bad, m.Name)
		}
	}
	if _, err := Resolve("gpt-5", ""); err == nil || !strings.Contains(err.Error(), "built-in name (gpt-oss-120b, gpt-oss-20b, … ") {
		t.Errorf("unknown model: %v", err)
	}
	if _, err := Resolve("missing.json", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	dir := t.TempDir()
	var missing *fs.PathError
	if _, err := Resolve(dir, ""); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &missing) || missing.Path != filepath.Join(dir, "config.json") {
		t.Errorf("empty directory: %v", err)
	}
}

func TestDTypeOverride(t *testing.T) {
	for dtype, want := range map[string]int64{
		"": 57344, "auto": 57344, "bf16": 57344, "float16": 57344, "FP8": 28672, "fp8_e4m3": 28672, "int8": 28672, "fp32": 114688,
	} {
		m, err := Resolve("qwen2.5-7b", dtype)
		if err != nil || m.BytesPerToken() != want {
			t.Errorf("dtype %q: %d bytes a token, %v; want %d", dtype, m.BytesPerToken(), err, want)
		}
	}
	if _, err := Resolve("qwen2.5-7b", "fp4"); err == nil || !strings.Contains(err.Error(), "use bf16") {
		t.Errorf("fp4: %v", err)
	}
}

func TestRank(t *testing.T) {
	for _, tc := range []struct {
		model           string
		tp, heads, reps int
		perToken        int64
		err             string
	}{
		{"Qwen2.5-7B", 1, 4, 1, 57344, ""},
		{"Qwen2.5-7B", 2, 2, 1, 28672, ""},
		{"Qwen2.5-7B", 4, 1, 1, 14336, ""},
		{"Qwen2.5-7B", 28, 1, 7, 14336, ""},
		{"Qwen2.5-7B", 8, 0, 0, 0, "size 8 does not divide the 28 attention heads of Qwen2.5-7B; try 1, 2, 4, 28"},
		{"Qwen2.5-7B", 14, 0, 0, 0, "neither divides the 4 KV heads"},
		{"Qwen2.5-7B", 3, 0, 0, 0, "does not divide"},
		{"Qwen2.5-7B", 0, 0, 0, 0, "at least 1"},
		{"Qwen2.5-7B", -2, 0, 0, 0, "at least 1"},
		{"Llama-3.1-70B", 16, 1, 2, 40960, ""},
		{"Llama-3.1-70B", 8, 1, 1, 40960, ""},
		{"DeepSeek-R1", 8, 0, 8, 70272, ""},
		{"DeepSeek-R1", 1, 0, 1, 70272, ""},
		{"DeepSeek-R1", 3, 0, 0, 0, "does not divide the 128"},
	} {
		m, err := Resolve(tc.model, "")
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Rank(tc.tp)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s tp %d: error %v, want %q", tc.model, tc.tp, err, tc.err)
			}
			continue
		}
		if err != nil || heads(r) != tc.heads || r.Replicas != tc.reps || r.BytesPerToken() != tc.perToken {
			t.Errorf("%s tp %d: %d heads, %d replicas, %d bytes a token, %v; want %d, %d, %d",
				tc.model, tc.tp, heads(r), r.Replicas, r.BytesPerToken(), err, tc.heads, tc.reps, tc.perToken)
		}
	}
}

func TestIdealTime(t *testing.T) {
	for _, tc := range []struct {
		bytes, link int64
		want        time.Duration
	}{
		{458_752_000, 100e9, 36_700_160},
		{438_000_000, 100e9, 35_040_000},
		{458_752_000, 3200e9, 1_146_880},
		{1, 8e9, 1},
		{1, 3e9, 3}, // 2.67 ns
		{1, 16e9, 1},
		{1, 17e9, 0},
		{0, 1e9, 0},
		{1 << 50, 8e9, 1 << 50},
		{1, 0, math.MaxInt64},
		{1, -1, math.MaxInt64},
		{math.MaxInt64, 1, math.MaxInt64},
	} {
		if got := IdealTime(tc.bytes, tc.link); got != tc.want {
			t.Errorf("IdealTime(%d, %d) = %d, want %d", tc.bytes, tc.link, got, tc.want)
		}
	}
}

// heads are the KV heads of one rank; 0 of a latent cache.
func heads(r Rank) int {
	if r.Groups[0].KVHeads == 0 {
		return 0
	}
	return share(r.Groups[0].KVHeads, r.TensorParallel)
}
