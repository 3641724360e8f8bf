#!/usr/bin/env python3
"""Bytes of one head of one token by type of cache, as vLLM's attention backends pack it. README.md says how to run it."""
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
from unittest.mock import MagicMock

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "VLLM_LOGGING_LEVEL": "ERROR"}


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Kernels that only GPUs have; no layout depends on them."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("cutlass", "cuda", "quack", "flashinfer"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        m = MagicMock(name=spec.name)
        m.__path__, m.__spec__, m.__name__ = [], spec, spec.name
        return m

    def exec_module(self, m):
        pass


sys.meta_path.append(Absent())
from vllm.config import ModelConfig  # noqa: E402, F401: before the backends
from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, get_kv_quant_mode  # noqa: E402

BACKENDS = {"triton_attn.TritonAttentionBackend": ("float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "int4_per_token_head",
                                                   "int8_per_token_head", "fp8_per_token_head"),
            "flashinfer.FlashInferBackend": ("nvfp4", "nvfp4_4over6"),
            "turboquant_attn.TurboQuantAttentionBackend": ("turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc")}
rows = []
for backend, types in BACKENDS.items():
    module, cls = backend.split(".")
    backend = getattr(importlib.import_module("vllm.v1.attention.backends." + module), cls)
    for name in types:
        for head in (64, 128, 256):
            s = FullAttentionSpec(block_size=16, num_kv_heads=8, head_size=head, dtype=STR_DTYPE_TO_TORCH_DTYPE[name],
                                  kv_quant_mode=get_kv_quant_mode(name))
            rows.append({"type": name, "head": head, "bytes": backend.customize_spec(s).page_size_bytes // 16 // 8})
from vllm.model_executor.layers.attention.mla_attention import MLACommonBackend  # noqa: E402

for name in ("bfloat16", "fp8", "fp8_ds_mla", "nvfp4_ds_mla", "fp8_per_token_head", "int8_per_token_head"):
    s = MLAAttentionSpec(block_size=16, num_kv_heads=1, head_size=576, dtype=STR_DTYPE_TO_TORCH_DTYPE[name], cache_dtype_str=name,
                         kv_quant_mode=get_kv_quant_mode(name), state_content_bytes={"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}.get(name))
    rows.append({"type": name, "latent": 576, "bytes": MLACommonBackend.customize_spec(s).page_size_bytes // 16})
with open(sys.argv[1], "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
