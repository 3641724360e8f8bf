#!/usr/bin/env python3
"""Asks vLLM's own classes what KV cache each layer of a configuration has. README.md says how to run it.

oracle.py CONFIGS.jsonl OUT.json: a line of CONFIGS is {"name", "config", "tp": [1, 2, …]}.
"""
import copy
import gc
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import re
import sys
import tempfile
from types import SimpleNamespace
from unittest.mock import MagicMock

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Kernels that only GPUs have; no layer's size depends on them."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("cutlass", "cuda", "quack", "nvidia_cutlass_dsl"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        m = MagicMock(name=spec.name)
        m.__path__, m.__spec__, m.__name__ = [], spec, spec.name
        return m

    def exec_module(self, m):
        pass


sys.meta_path.append(Absent())
import torch  # noqa: E402

torch.cpu._is_avx512_bf16_supported = lambda: False  # else the CPU platform makes every state float32
import vllm.model_executor.layers.attention.mla_attention as mla  # noqa: E402
import vllm.model_executor.layers.fused_moe.config as experts  # noqa: E402
import vllm.triton_utils  # noqa: E402
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, Qwen2Config  # noqa: E402
from vllm.config import (CacheConfig, LoadConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig,  # noqa: E402
                         get_layers_from_vllm_config, set_current_vllm_config)
from vllm.distributed import parallel_state  # noqa: E402
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase  # noqa: E402
from vllm.model_executor.model_loader.utils import initialize_model  # noqa: E402
from vllm.model_executor.models import registry  # noqa: E402
from vllm.platforms.cpu import CpuPlatform  # noqa: E402
from vllm.transformers_utils.config import _CONFIG_REGISTRY  # noqa: E402
from vllm.v1.attention.backends import cpu_attn  # noqa: E402
from vllm.v1.core.kv_cache_utils import get_kv_cache_groups  # noqa: E402
from vllm.v1.kv_cache_interface import AttentionSpec, MambaSpec, iter_layer_specs  # noqa: E402

BLOCK = 32  # the CPU backend's kernels want multiples of it
registry._run_in_subprocess = lambda fn: fn()  # a fresh interpreter each takes a minute
vllm.triton_utils.triton.set_allocator = lambda *a: None
sys.modules["triton"] = sys.modules.get("triton", vllm.triton_utils.triton)


class Box(dict):
    __getattr__ = dict.get


def box(v):
    if isinstance(v, dict):
        return Box({k: box(x) for k, x in v.items()})
    return [box(x) for x in v] if isinstance(v, list) else v


class Deci(PretrainedConfig):
    model_type = "nemotron-nas"
    max_position_embeddings = 4096

    def __init__(self, **kw):
        blocks = kw.pop("block_configs", [])
        super().__init__(**kw)
        self.block_configs = box(blocks)


class Exaone(PretrainedConfig):
    model_type, attribute_map = "exaone", {"num_hidden_layers": "num_layers"}


class MiMo(Qwen2Config):  # as the checkpoint's own class
    model_type = "mimo"


for cls in (Deci, Exaone, MiMo):
    AutoConfig.register(cls.model_type, cls)


def register(kind):
    """A class for a model type whose own comes with its checkpoints."""
    if kind not in CONFIG_MAPPING and kind not in _CONFIG_REGISTRY:
        AutoConfig.register(kind, type("C_" + kind.replace("-", "_"), (PretrainedConfig,), {"model_type": kind}))


def lenient(cls):
    """A backend that ignores what only others take."""
    init = cls.__init__
    names = inspect.signature(init).parameters
    cls.__init__ = lambda self, *a, **k: init(self, *a, **{x: y for x, y in k.items() if x in names})


lenient(cpu_attn.CPUAttentionBackendImpl)
lenient(mla.MLACommonImpl)
cpu_attn.CPUAttentionBackend.supports_alibi_sqrt = classmethod(lambda cls: True)
pick = CpuPlatform.get_attn_backend_cls.__func__
CpuPlatform.get_attn_backend_cls = classmethod(
    lambda cls, b, attn_selector_config, *a, **k: pick(cls, b, attn_selector_config._replace(use_sparse=False), *a, **k))
real_platform = experts.current_platform


class Pretend:
    """The checks of expert layers alone see a GPU."""

    def __getattr__(self, name):
        return getattr(real_platform, name)

    def is_cuda_alike(self):
        return True

    is_cuda = is_cuda_alike


experts.current_platform = Pretend()
for name in ("Stream", "Event", "CUDAGraph"):
    setattr(torch.cuda, name, MagicMock())
torch.cuda.get_device_properties = lambda *a: SimpleNamespace(multi_processor_count=132, major=9, minor=0, name="none")
torch.cuda.get_device_capability = lambda *a: (9, 0)
torch.cuda.current_device = lambda: 0


def reduce(c):
    """The configuration with what no cache depends on made small."""
    c = copy.deepcopy(c)
    parts = [c] + [v for v in c.values() if isinstance(v, dict)]
    for c_ in parts:
        if isinstance(c_.get("hybrid_override_pattern"), str):
            c_["hybrid_override_pattern"] = c_["hybrid_override_pattern"].replace("E", "-")
        for b in c_.get("block_configs") or []:
            b.setdefault("ffn", {})["hidden_act"] = b["ffn"].get("hidden_act") or "silu"
        small = {"vocab_size": 512, "padded_vocab_size": 512, "moe_intermediate_size": 64, "n_group": 1, "topk_group": 1, "num_expert_group": 1,
                 "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1}
        few = {"n_routed_experts": 16, "num_experts": 16, "num_local_experts": 16, "moe_num_experts": 16, "num_experts_per_tok": 2, "moe_k": 2,
               "moe_topk": 2, "top_k_experts": 2}
        for k, v in small.items():
            if isinstance(c_.get(k), int):
                c_[k] = v
        for k, v in few.items():
            if isinstance(c_.get(k), int):
                c_[k] = min(v, c_[k])
    return c


def engine(folder):
    mc = ModelConfig(model=folder, skip_tokenizer_init=True, max_model_len=None, enforce_eager=True)
    vc = VllmConfig(model_config=mc, cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=False), parallel_config=ParallelConfig(),
                    load_config=LoadConfig(load_format="dummy"),
                    scheduler_config=SchedulerConfig(max_num_batched_tokens=8192, max_num_seqs=4, max_model_len=mc.max_model_len,
                                                     is_encoder_decoder=mc.is_encoder_decoder))
    vc.cache_config.block_size = BLOCK
    types = getattr(mc.hf_text_config, "layer_types", None)
    if types is None or all(t == "sliding_attention" for t in types):  # as arg_utils.py does
        vc.cache_config.sliding_window = mc.get_sliding_window()
    return vc


def specs(config, tp, lists=False):
    """The specification of each layer on tp ranks, as gpu_model_runner.get_kv_cache_spec collects them; with lists, the
    lists of blocks that the engine core divides them into, too."""
    with tempfile.TemporaryDirectory() as folder:
        register(config["model_type"])
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f)
        vc = engine(folder)
        vc.parallel_config.tensor_parallel_size = tp
        group = parallel_state.get_tp_group()
        group.world_size = tp
        try:
            with set_current_vllm_config(vc), torch.device("cpu"):
                initialize_model(vc)
            layers = get_layers_from_vllm_config(vc, AttentionLayerBase)
            if lists and vc.model_config.is_hybrid:
                backends = CpuPlatform._find_non_ssm_backends(vc)
                if backends:
                    CpuPlatform._align_hybrid_block_size(vc, backends[0])
            out = {}
            for name, layer in layers.items():
                if getattr(layer, "kv_sharing_target_layer_name", None):
                    continue
                s = layer.get_kv_cache_spec(vc)
                if s is not None:
                    out[name] = layer.get_attn_backend().customize_spec(s) if isinstance(s, AttentionSpec) else s
            if not lists:
                return rows(out)
            vc.cache_config.kv_cache_layout = "LBHNC"  # NixlConnector's
            return [one(g) for g in get_kv_cache_groups(vc, out)]
        finally:
            group.world_size = 1
            vc.compilation_config.static_forward_context.clear()
            gc.collect()


KINDS = {"FullAttentionSpec": "full", "SlidingWindowSpec": "sliding", "ChunkedLocalAttentionSpec": "chunked", "MLAAttentionSpec": "latent",
         "SlidingWindowMLASpec": "latent-sliding", "MambaSpec": "state", "CrossAttentionSpec": "cross", "SinkFullAttentionSpec": "full"}


def kind(s):
    if getattr(getattr(s, "cache_role", None), "value", "") == "indexer":
        return "index"
    return KINDS.get(type(s).__name__, type(s).__name__)


def rows(out):
    found = {}
    for s in out.values():
        if isinstance(s, MambaSpec):
            key = ("state", 0, 0, s.state_content_size_bytes)
        else:
            window = getattr(s, "sliding_window", None) or getattr(s, "attention_chunk_size", None) or 0
            assert s.unpadded_page_size_bytes % s.block_size == 0
            key = (kind(s), window, s.unpadded_page_size_bytes // s.block_size, 0)
        found[key] = found.get(key, 0) + 1
    names = ("window", "slot", "state")
    return [{"kind": k, "layers": n} | {f: v for f, v in zip(names, rest) if v} for (k, *rest), n in found.items()]


def one(g):
    """A list of blocks: its first kind, layers, tokens of a block, and bytes of a block in all of its layers."""
    all_specs = list(iter_layer_specs(g.kv_cache_spec))
    if len(all_specs) == 1:
        all_specs *= len(g.layer_names)
    first = all_specs[0]
    state = isinstance(first, MambaSpec)
    return {"kind": kind(first), "layers": len(g.layer_names)} | ({} if state else {"tokens": first.block_size}) | {
        "page": sum(s.state_content_size_bytes if state else s.page_size_bytes for s in all_specs)}


HERE = os.path.dirname(os.path.abspath(__file__))


def fields():
    """Fields that this package reads."""
    source = "".join(open(os.path.join(HERE, "..", n)).read() for n in ("rules.go", "config.go"))
    out = set(re.findall(r'\(c, "([a-z_A-Z0-9.]+)"', source)) | set(re.findall(r'c\.\w+\("([a-z_A-Z0-9.]+)"', source))
    for a in json.load(open(os.path.join(HERE, "..", "architectures.json")))["architectures"].values():
        out |= set(a.get("names", {}).values()) | {a.get("every", "")}
    return {f.split(".")[0] for f in out} | {"architectures", "model_type", "dtype", "torch_dtype", "layer_types", "layers_block_type"}


def main():
    with set_current_vllm_config(VllmConfig()):
        parallel_state.init_distributed_environment(1, 0, "file://" + tempfile.mktemp(), 0, "gloo")
        parallel_state.ensure_model_parallel_initialized(1, 1)
    keep, out = fields(), []
    for line in open(sys.argv[1]):
        e = json.loads(line)
        config = reduce(e["config"])
        result = {"name": e["name"], "config": {k: v for k, v in e["config"].items() if k in keep}, "ranks": {}}
        try:
            for tp in e["tp"]:
                try:
                    result["ranks"][str(tp)] = specs(config, tp)
                except Exception as x:  # noqa: BLE001: vLLM's word for what it does not do
                    if tp == 1:
                        raise
                    result["ranks"][str(tp)] = None
                    print(e["name"], tp, "ranks:", str(x)[:100].replace("\n", " "))
            try:
                result["lists"] = specs(config, 1, lists=True)
            except Exception as x:  # noqa: BLE001
                print(e["name"], "lists:", repr(x)[:100].replace("\n", " "))
            out.append(result)
            print(e["name"], "ok", flush=True)
        except Exception as x:  # noqa: BLE001
            print(e["name"], "FAIL", repr(x)[:300].replace("\n", " "), flush=True)
    with open(sys.argv[2], "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r) for r in out) + "\n]\n")


main()
