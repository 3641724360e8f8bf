package kv

import (
	"fmt"
	"strings"
)

// DType is the type of one cached value. The zero value is unknown.
type DType string

// The types that engines keep KV caches in.
const (
	BF16 DType = "bf16"
	FP16 DType = "fp16"
	FP32 DType = "fp32"
	FP8  DType = "fp8"
	INT8 DType = "int8"
)

// dtypeNames maps what model configurations and engines write to a DType.
var dtypeNames = map[string]DType{
	"bf16": BF16, "bfloat16": BF16, "torch.bfloat16": BF16,
	"fp16": FP16, "float16": FP16, "half": FP16, "torch.float16": FP16,
	"fp32": FP32, "float32": FP32, "float": FP32, "torch.float32": FP32,
	"fp8": FP8, "fp8_e4m3": FP8, "fp8_e5m2": FP8, "float8_e4m3fn": FP8, "float8_e5m2": FP8,
	"int8": INT8,
}

// ParseDType reads a type by the names that model configurations (bfloat16) and
// vLLM's --kv-cache-dtype (fp8_e4m3) use, in any case.
func ParseDType(s string) (DType, error) {
	if d, ok := dtypeNames[strings.ToLower(s)]; ok {
		return d, nil
	}
	return "", fmt.Errorf("unknown dtype %q; use bf16, fp16, fp32, fp8 or int8", s)
}

// Bytes returns the bytes of one value, 0 for an unknown type.
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
