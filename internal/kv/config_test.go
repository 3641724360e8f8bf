package kv

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

const llamaBase = `"model_type":"llama","num_hidden_layers":4,"num_attention_heads":8,"hidden_size":512`

func TestParseConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		json string
		want Model
	}{
		"defaults": {`{` + llamaBase + `,"torch_dtype":"float16"}`,
			Uniform("", 4, 8, 8, 64, FP16)},
		"nulls": {`{` + llamaBase + `,"num_key_value_heads":null,"head_dim":null,"dtype":"bfloat16","sliding_window":null}`,
			Uniform("", 4, 8, 8, 64, BF16)},
		"head_dim wins": {`{` + llamaBase + `,"head_dim":128,"num_key_value_heads":2,"torch_dtype":"bfloat16"}`,
			Uniform("", 4, 8, 2, 128, BF16)},
		"head_dim without hidden_size": {`{"model_type":"qwen3","num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":null,"head_dim":128,"dtype":"bfloat16"}`,
			Uniform("", 4, 8, 8, 128, BF16)},
		"no dtype": {`{` + llamaBase + `}`,
			Uniform("", 4, 8, 8, 64, "")},
		"architecture only": {`{"architectures":["MistralForCausalLM"],"num_hidden_layers":4,"num_attention_heads":8,"hidden_size":512,"sliding_window":4096,"dtype":"bfloat16"}`,
			Model{Heads: 8, DType: BF16, Groups: []Group{{Kind: Sliding, Layers: 4, KVHeads: 8, KeyDim: 64, ValueDim: 64, Window: 4096}}}},
		"text_config": {`{"model_type":"mistral3","torch_dtype":"bfloat16","text_config":{"model_type":"mistral","sliding_window":null,"num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":2,"hidden_size":512}}`,
			Uniform("", 4, 8, 2, 64, BF16)},
		"llm_config": {`{"model_type":"internvl_chat","torch_dtype":"bfloat16","llm_config":{"architectures":["LlamaForCausalLM"],"model_type":"llama","num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":2,"hidden_size":512}}`,
			Uniform("", 4, 8, 2, 64, BF16)},
		"language_config": {`{"model_type":"deepseek_vl_v2","language_config":{"model_type":"deepseek_v2","torch_dtype":"bfloat16","num_hidden_layers":27,"num_attention_heads":16,"kv_lora_rank":512,"qk_rope_head_dim":64}}`,
			Model{Heads: 16, DType: BF16, Groups: []Group{{Kind: Latent, Layers: 27, KeyDim: 576}}}},
		"thinker_config": {`{"model_type":"qwen3_omni_moe","thinker_config":{"dtype":"bfloat16","text_config":{"model_type":"qwen3_omni_moe_text","num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":2,"head_dim":64,"dtype":"bfloat16"}}}`,
			Uniform("", 4, 8, 2, 64, BF16)},
		// google/gemma-3's files leave out what their class says: 8 heads, 4 KV heads of 256 values, five of six layers with a window.
		"class defaults": {`{"model_type":"gemma3","torch_dtype":"bfloat16","text_config":{"model_type":"gemma3_text","num_hidden_layers":34,"sliding_window":1024}}`,
			Model{Heads: 8, DType: BF16, Groups: []Group{{Kind: Sliding, Layers: 29, KVHeads: 4, KeyDim: 256, ValueDim: 256, Window: 1024},
				{Kind: Full, Layers: 5, KVHeads: 4, KeyDim: 256, ValueDim: 256}}}},
		"nvfp4 cache": {`{` + llamaBase + `,"torch_dtype":"bfloat16","quantization_config":{"quant_method":"modelopt","kv_cache_scheme":{"num_bits":4,"type":"float"}}}`,
			Uniform("", 4, 8, 8, 64, NVFP4)},
		"no cache type": {`{` + llamaBase + `,"torch_dtype":"bfloat16","quantization_config":{"quant_method":"modelopt","kv_cache_quant_algo":null,"kv_cache_scheme":null}}`,
			Uniform("", 4, 8, 8, 64, BF16)},
		"qwen window off": {`{"model_type":"qwen2","num_key_value_heads":8,"num_hidden_layers":4,"num_attention_heads":8,"hidden_size":512,"sliding_window":1024,"use_sliding_window":false,"max_window_layers":4,"dtype":"bfloat16"}`,
			Uniform("", 4, 8, 8, 64, BF16)},
		"qwen window on": {`{"model_type":"qwen3","head_dim":64,"num_key_value_heads":8,"num_hidden_layers":4,"num_attention_heads":8,"hidden_size":512,"sliding_window":1024,"use_sliding_window":true,"max_window_layers":0,"dtype":"bfloat16"}`,
			Model{Heads: 8, DType: BF16, Groups: []Group{{Kind: Sliding, Layers: 4, KVHeads: 8, KeyDim: 64, ValueDim: 64, Window: 1024}}}},
		"gpt_oss": {`{"model_type":"gpt_oss","num_hidden_layers":3,"num_attention_heads":8,"num_key_value_heads":2,"head_dim":64,"sliding_window":128}`,
			Model{Heads: 8, DType: BF16, Groups: []Group{{Kind: Sliding, Layers: 2, KVHeads: 2, KeyDim: 64, ValueDim: 64, Window: 128}, {Kind: Full, Layers: 1, KVHeads: 2, KeyDim: 64, ValueDim: 64}}}},
		"deepseek": {`{"model_type":"deepseek_v2","num_hidden_layers":27,"num_attention_heads":16,"num_key_value_heads":16,"kv_lora_rank":512,"qk_rope_head_dim":64,"torch_dtype":"bfloat16"}`,
			Model{Heads: 16, DType: BF16, Groups: []Group{{Kind: Latent, Layers: 27, KeyDim: 576}}}},
	} {
		tc.want.Name = name
		if got, err := ParseConfig(name, []byte(tc.json)); err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tc.want)
		}
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ json, want string }{
		"empty":            {``, "not a config.json"},
		"array":            {`[]`, "not a config.json"},
		"trailing":         {`{} {}`, "not a config.json"},
		"nothing":          {`{}`, "neither model_type nor architectures"},
		"unknown type":     {`{"model_type":"rwkv"}`, `model_type "rwkv" is not known`},
		"unknown class":    {`{"architectures":["RWKVForCausalLM"]}`, `architecture "RWKVForCausalLM" is not known`},
		"no layers at all": {`{"model_type":"sarvam_moe"}`, "num_attention_heads is missing"},
		"no heads":         {`{"model_type":"sarvam_moe","num_attention_heads":4,"num_key_value_heads":4,"head_dim":64}`, "num_hidden_layers is missing"},
		"no hidden":        {`{"model_type":"sarvam_moe","num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":4}`, "hidden_size is missing, and so is head_dim"},
		"odd hidden":       {`{"model_type":"llama","num_hidden_layers":4,"num_attention_heads":3,"hidden_size":512}`, "not a multiple of num_attention_heads 3"},
		"zero layers":      {`{"model_type":"llama","num_hidden_layers":0}`, "num_hidden_layers is 0"},
		"negative":         {`{` + llamaBase + `,"num_key_value_heads":-1}`, "num_key_value_heads is -1"},
		"kv heads":         {`{` + llamaBase + `,"num_key_value_heads":3}`, "not a multiple of 3 KV heads"},
		"fraction":         {`{"model_type":"llama","num_hidden_layers":4.5}`, "num_hidden_layers"},
		"string":           {`{"model_type":"llama","num_hidden_layers":"4"}`, "num_hidden_layers"},
		"huge":             {`{"model_type":"llama","num_hidden_layers":1e30}`, "num_hidden_layers"},
		"many layers":      {`{"model_type":"llama","num_hidden_layers":20000,"num_attention_heads":8,"hidden_size":512}`, "number of layers is 20000"},
		"no lora":          {`{"model_type":"sarvam_mla","num_hidden_layers":61,"num_attention_heads":128,"qk_rope_head_dim":64}`, "kv_lora_rank is missing"},
		"no rope":          {`{"model_type":"sarvam_mla","num_hidden_layers":61,"num_attention_heads":128,"kv_lora_rank":512}`, "qk_rope_head_dim is missing"},
		"dtype":            {`{` + llamaBase + `,"torch_dtype":"complex64"}`, `unknown dtype "complex64"`},
		"two dtypes":       {`{` + llamaBase + `,"torch_dtype":"float16","dtype":"bfloat16"}`, "disagree"},
		"layer types":      {`{` + llamaBase + `,"layer_types":["rotary_attention","full_attention","full_attention","full_attention"]}`, `"rotary_attention" is not known`},
		"layer count":      {`{` + llamaBase + `,"layer_types":["full_attention"]}`, "1 entries for 4 layers"},
		"window":           {`{` + llamaBase + `,"sliding_window":-1}`, "sliding_window is -1"},
		"some windows":     {`{"model_type":"qwen3","num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":8,"sliding_window":1024,"use_sliding_window":true,"max_window_layers":3}`, "some of its layers have a window"},
		"cache scheme":     {`{` + llamaBase + `,"torch_dtype":"float16","quantization_config":{"kv_cache_scheme":{"num_bits":3,"type":"int"}}}`, "a kv_cache_scheme of 3 bits"},
		"cache algo":       {`{` + llamaBase + `,"torch_dtype":"float16","quantization_config":{"kv_cache_quant_algo":"X"}}`, `the type of the KV cache: unknown dtype "X"`},
		"nested twice":     {`{"text_config":{"text_config":{"text_config":{}}}}`, "another text_config"},
		"100%d":            {`{}`, "100%d: neither"},
	} {
		if m, err := ParseConfig(name, []byte(tc.json)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v, %v; want an error with %q", name, m, err, tc.want)
		}
	}
	if _, err := ParseConfig("big", make([]byte, maxConfigBytes+1)); err == nil {
		t.Error("an oversized file was read")
	}
}

// FuzzParseConfig holds that whatever parses is a usable geometry, and that a
// transfer of it stays inside its limits.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{` + llamaBase + `,"torch_dtype":"float16"}`))
	f.Add([]byte(`{"model_type":"deepseek_v3","num_hidden_layers":61,"num_attention_heads":128,"kv_lora_rank":512,"qk_rope_head_dim":64}`))
	f.Add([]byte(`{"model_type":"gpt_oss","num_hidden_layers":36,"num_attention_heads":64,"num_key_value_heads":8,"head_dim":64,"sliding_window":128}`))
	f.Add([]byte(`{"text_config":{` + llamaBase + `},"quantization_config":{"quant_method":"modelopt","kv_cache_scheme":{"num_bits":8,"type":"float"}}}`))
	// One of each rule, as the engine packages were asked about them.
	data, err := os.ReadFile("testdata/vllm.json")
	if err != nil {
		f.Fatal(err)
	}
	var entries []oracleEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		f.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range entries {
		m, err := ParseConfig(e.Name, e.Config)
		if kinds := fmt.Sprint(m.Groups); err == nil && len(e.Config) < 1500 && !seen[kinds] {
			seen[kinds] = true
			f.Add([]byte(e.Config))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseConfig("fuzz", data)
		if err != nil {
			return
		}
		if m.DType == "" {
			m = m.typed(FP32)
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("parsed but not valid: %v", err)
		}
		if m.BytesPerToken() < 0 || m.StateBytes() < 0 || m.BytesPerToken()+m.StateBytes() < 1 {
			t.Fatalf("%d bytes per token, %d of states", m.BytesPerToken(), m.StateBytes())
		}
		tr, err := New(Request{Model: m, Tokens: 1000, Shape: Fragmented})
		if err != nil {
			return
		}
		if tr.Bytes < 1 || tr.Bytes > DefaultMaxBytes || tr.Count() > DefaultMaxDescs {
			t.Fatalf("transfer of %d bytes, %d descriptors", tr.Bytes, tr.Count())
		}
	})
}
