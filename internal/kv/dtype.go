package kv

import (
	"fmt"
	"strings"
)

// DType is the type of the cached values. The zero value is unknown.
type DType string

// The types that engines keep KV caches in. Those from FP8Token on store scales
// beside the values; their names are vLLM's.
const (
	BF16 DType = "bf16"
	FP16 DType = "fp16"
	FP32 DType = "fp32"
	FP8  DType = "fp8"
	INT8 DType = "int8"

	FP8Token       DType = "fp8_per_token_head"
	INT8Token      DType = "int8_per_token_head"
	INT4Token      DType = "int4_per_token_head"
	NVFP4          DType = "nvfp4"
	FP8Latent      DType = "fp8_ds_mla"
	NVFP4Latent    DType = "nvfp4_ds_mla"
	TurboK8V4      DType = "turboquant_k8v4"
	Turbo4Bit      DType = "turboquant_4bit_nc"
	TurboK3V4      DType = "turboquant_k3v4_nc"
	Turbo3Bit      DType = "turboquant_3bit_nc"
	UltraQuant4Bit DType = "ultraquant_4bit"
)

// dtypeNames maps what model configurations and engines write to a DType.
var dtypeNames = map[string]DType{
	"bf16": BF16, "bfloat16": BF16, "torch.bfloat16": BF16,
	"fp16": FP16, "float16": FP16, "half": FP16, "torch.float16": FP16,
	"fp32": FP32, "float32": FP32, "float": FP32, "torch.float32": FP32,
	"fp8": FP8, "fp8_e4m3": FP8, "fp8_e5m2": FP8, "fp8_inc": FP8, "float8_e4m3fn": FP8, "float8_e5m2": FP8,
	"int8":               INT8,
	"fp8_per_token_head": FP8Token, "int8_per_token_head": INT8Token, "int4_per_token_head": INT4Token,
	"nvfp4": NVFP4, "nvfp4_4over6": NVFP4, "fp8_ds_mla": FP8Latent, "nvfp4_ds_mla": NVFP4Latent,
	"turboquant_k8v4": TurboK8V4, "turboquant_4bit_nc": Turbo4Bit, "turboquant_k3v4_nc": TurboK3V4, "turboquant_3bit_nc": Turbo3Bit,
	"ultraquant_4bit": UltraQuant4Bit,
}

// ParseDType reads a type by the names that model configurations (bfloat16) and
// vLLM's --kv-cache-dtype (fp8_e4m3, nvfp4) use, in any case.
func ParseDType(s string) (DType, error) {
	if d, ok := dtypeNames[strings.ToLower(s)]; ok {
		return d, nil
	}
	return "", fmt.Errorf("unknown dtype %q; use bf16, fp16, fp32, fp8, int8, or a name of vLLM's --kv-cache-dtype", s)
}

// Known reports whether d is one of the types above.
func (d DType) Known() bool { return dtypeNames[string(d)] == d && d != "" }

// Bytes returns the bytes of one value, 0 for an unknown type and for one that
// packs values or stores scales beside them.
func (d DType) Bytes() int64 {
	switch d {
	case BF16, FP16:
		return 2
	case FP32:
		return 4
	case FP8, INT8:
		return 1
	}
	return 0
}

// activation reports whether a model can compute in d.
func (d DType) activation() bool { return d == BF16 || d == FP16 || d == FP32 }

// latentSlots are the bytes of one token's slot in a latent cache whose layout is
// fixed: values, scales and position part together.
var latentSlots = map[DType]int64{FP8Latent: 656, NVFP4Latent: 352}

// slot is the bytes that one head of one token takes, K of k values and V of v
// together with their scales, as vLLM 0.32's attention backends pack them; 0 for a type
// that cannot hold them.
func (d DType) slot(k, v int64) int64 {
	const scale = 4 // one fp32 each for K and V
	switch d {
	case FP8Token, INT8Token:
		return k + v + 2*scale
	case INT4Token:
		return k/2 + v/2 + 2*scale
	case NVFP4: // two values per byte, one fp8 scale per 16
		return k/2 + k/16 + v/2 + v/16
	case TurboK8V4:
		return even(k + turboValue(v, 4))
	case Turbo4Bit:
		return even(turboKey(k, 4) + turboValue(v, 4))
	case TurboK3V4:
		return even(turboKey(k, 3) + turboValue(v, 4))
	case Turbo3Bit:
		return even(turboKey(k, 3) + turboValue(v, 3))
	case UltraQuant4Bit: // two values per byte, one scale byte per 32
		return k/2 + k/32 + v/2 + v/32
	}
	return (k + v) * d.Bytes()
}

// turboKey is a key of n values in bits each, with its norm; turboValue a value
// with scale and zero point.
func turboKey(n, bits int64) int64   { return (n*bits+7)/8 + 2 }
func turboValue(n, bits int64) int64 { return (n*bits+7)/8 + 4 }

func even(n int64) int64 { return n + n%2 }
