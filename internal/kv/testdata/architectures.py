#!/usr/bin/env python3
"""Makes ../architectures.json. README.md says how to run it.

What is written by hand below was read in vLLM's model classes; oracle.py holds it to
what they do. The defaults of fields are those of the configuration classes, read here.
"""
import dataclasses
import inspect
import json
import os
import re
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import CONFIG_MAPPING  # noqa: E402
from vllm.transformers_utils.config import _CONFIG_REGISTRY  # noqa: E402

GPT = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "hidden_size": "n_embd"}


def g(*types, rule="grouped", **more):
    return {"rule": rule, "types": list(types), **more}


def no(reason, *types):
    return {"refused": reason, "types": list(types)}


DERIVED = {"derived": True}
LAYERS = {"by_layer": True}
OWN = "vLLM lays its cache out by a scheme of its own that is not modelled here"
NEW = "it is new in vLLM 0.33 and no engine package was at hand to hold its size to"

ARCHITECTURES = {
    "AfmoeForCausalLM": g("afmoe", **LAYERS, pattern="sssF", every="global_attn_every_n_layers"),
    "AliceAIForCausalLM": g("alice_ai", rule="kimi-flat"),
    "ApertusForCausalLM": g("apertus", **LAYERS),
    "AXK1ForCausalLM": g("axk1", rule="latent"),
    "BailingMoeForCausalLM": g("bailing_moe"),
    "BailingMoeV2ForCausalLM": g("bailing_moe_v2"),
    "BailingMoeV2_5ForCausalLM": g("bailing_hybrid", rule="bailing-2.5"),
    "BailingMoeV3ForCausalLM": g("bailing_moe_v3", rule="bailing-3"),
    "BeamForCausalLM": no(NEW),
    "BloomForCausalLM": g("bloom", rule="multi-head", names={**GPT, "hidden_size": "hidden_size"}),
    "ChatGLMModel": g("chatglm", rule="chatglm", names={"num_hidden_layers": "num_layers"}, **DERIVED),
    "ChatGLMForConditionalGeneration": g(rule="chatglm", names={"num_hidden_layers": "num_layers"}, **DERIVED),
    "CohereForCausalLM": g("cohere"),
    "Cohere2ForCausalLM": g("cohere2", **LAYERS, beyond=1, pattern="sssF", every="sliding_window_pattern"),
    "Cohere2MoeForCausalLM": g("cohere2_moe", **LAYERS, beyond=1, pattern="sssF", every="sliding_window_pattern"),
    "DbrxForCausalLM": g("dbrx", names={"num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "hidden_size": "d_model",
                                        "num_key_value_heads": "attn_config.kv_n_heads"}, **DERIVED),
    "DeciLMForCausalLM": g("nemotron-nas", "deci", rule="nas"),
    "DeepseekForCausalLM": g("deepseek"),
    "DeepseekV2ForCausalLM": g("deepseek_v2", rule="latent"),
    "DeepseekV3ForCausalLM": g("deepseek_v3", "kimi_k2", rule="latent"),
    "DeepseekV32ForCausalLM": g("deepseek_v32", rule="latent-index"),
    "DeepseekV4ForCausalLM": no(OWN, "deepseek_v4"),
    "DomynEdgeForCausalLM": no(NEW),
    "DoryForCausalLM": no(NEW),
    "Ernie4_5ForCausalLM": g("ernie4_5"),
    "Ernie4_5_MoeForCausalLM": g("ernie4_5_moe"),
    "ExaoneForCausalLM": g("exaone", names={"num_hidden_layers": "num_layers"}),
    "Exaone4ForCausalLM": g("exaone4", **LAYERS, pattern="sssF", every="sliding_window_pattern"),
    "ExaoneMoeForCausalLM": g("exaone_moe", **LAYERS, pattern="sssF", every="sliding_window_pattern"),
    "ExaoneMoEForCausalLM": g(**LAYERS, pattern="sssF", every="sliding_window_pattern"),
    "FalconForCausalLM": g("falcon", rule="falcon", **DERIVED),
    "FalconMambaForCausalLM": g("falcon_mamba", rule="mamba"),
    "FalconH1ForCausalLM": g("falcon_h1", rule="falcon-h1"),
    "FlintForCausalLM": no(NEW),
    "GemmaForCausalLM": g("gemma"),
    "Gemma2ForCausalLM": g("gemma2", **LAYERS, pattern="sF"),
    "Gemma3ForCausalLM": g("gemma3_text", **LAYERS, pattern="sssssF", every="sliding_window_pattern"),
    "Rnj1ForCausalLM": g("rnj1", rule="rnj"),
    "Gemma3nForCausalLM": g("gemma3n_text", **LAYERS, pattern="ssssF"),
    "Gemma4ForCausalLM": g("gemma4_text", rule="gemma4", pattern="sssssF"),
    "Qwen3NextForCausalLM": g("qwen3_next", rule="gated-delta", pattern="lllF", every="full_attention_interval"),
    "Qwen4ExpForCausalLM": no(OWN, "qwen4_exp", "qwen4_exp_text"),
    "Glm4ForCausalLM": g("glm4", "glm4v_text"),
    "Glm4MoeForCausalLM": g("glm4_moe", "glm4v_moe_text"),
    "Glm4MoeLiteForCausalLM": g("glm4_moe_lite", rule="latent"),
    "GlmMoeDsaForCausalLM": g("glm_moe_dsa", rule="latent-index"),
    "Glm5NextForCausalLM": no(OWN),
    "GptOssForCausalLM": g("gpt_oss", rule="gpt-oss", by_layer=True, pattern="sF"),
    "GPT2LMHeadModel": g("gpt2", rule="multi-head", names=GPT, **DERIVED),
    "GPTJForCausalLM": g("gptj", rule="multi-head", names=GPT, **DERIVED),
    "GraniteForCausalLM": g("granite", **LAYERS),
    "GraniteMoeForCausalLM": g("granitemoe", **LAYERS, **DERIVED),
    "GraniteMoeHybridForCausalLM": g("granitemoehybrid", rule="granite-h", **DERIVED),
    "GraniteMoeSharedForCausalLM": g("granitemoeshared", **LAYERS, **DERIVED),
    "GraniteMoeSWAForCausalLM": g("granitemoe_swa", **LAYERS, **DERIVED),
    "GraniteSWAForCausalLM": g("granite_swa", **LAYERS),
    "HrmTextForCausalLM": g("hrm_text", rule="hrm"),
    "HYV3ForCausalLM": g("hy_v3"),
    "HYV4ForCausalLM": no(OWN, "hy_v4"),
    "HCXVisionV2ForCausalLM": g("vlm", rule="text-part"),
    "HyperCLOVAXForCausalLM": g("hyperclovax"),
    "InternLM2ForCausalLM": g("internlm2", **DERIVED),
    "InternLM3ForCausalLM": g("internlm3"),
    "IQuestCoderForCausalLM": g("iquestcoder"),
    "IQuestLoopCoderForCausalLM": g("iquestloopcoder", rule="loop"),
    "JambaForCausalLM": g("jamba", rule="jamba", **DERIVED),
    "K2HorizonForCausalLM": g("k2_horizon"),
    "KimiLinearForCausalLM": g("kimi_linear", rule="kimi-linear"),
    "Lfm2ForCausalLM": g("lfm2", rule="lfm2", **DERIVED),
    "Lfm2MoeForCausalLM": g("lfm2_moe", rule="lfm2", names={"conv_dim": "hidden_size"}, **DERIVED),
    "LagunaForCausalLM": g("laguna", **LAYERS),
    "LlamaForCausalLM": g("llama", **LAYERS),
    "Llama4ForCausalLM": g("llama4_text", "llama4", rule="llama4"),
    "LLaMAForCausalLM": g(**LAYERS),
    "LongcatFlashForCausalLM": g("longcat_flash", rule="latent-double", names={"num_hidden_layers": "num_layers"}),
    "LongcatFlashNgramForCausalLM": g(rule="latent-double", names={"num_hidden_layers": "num_layers"}),
    "MambaForCausalLM": g("mamba", rule="mamba"),
    "Mamba2ForCausalLM": g("mamba2", rule="mamba2"),
    "MiniCPMForCausalLM": g("minicpm", **DERIVED),
    "MiniCPM3ForCausalLM": g("minicpm3", rule="minicpm3"),
    "MiniMaxM2ForCausalLM": g("minimax_m2"),
    "MiniMaxM3SparseForCausalLM": g("minimax_m3", "minimax_m3_vl", rule="full-index"),
    "InklingForCausalLM": no(OWN, "inkling_text", "inkling_model"),
    "InklingForConditionalGeneration": no(OWN, "inkling_mm_model"),
    "Ministral3ForCausalLM": g("ministral3", **LAYERS),
    "MistralForCausalLM": g("mistral", "ministral", **LAYERS),
    "MistralLarge3ForCausalLM": g("mistral_large_3", rule="latent"),
    "MixtralForCausalLM": g("mixtral"),
    "MiMoForCausalLM": g("mimo", **DERIVED),
    "MiMoV2FlashForCausalLM": g("mimo_v2_flash", rule="mimo-v2"),
    "MiMoV2ForCausalLM": g("mimo_v2", rule="mimo-v2"),
    "NemotronForCausalLM": g("nemotron"),
    "NemotronHForCausalLM": g("nemotron_h", rule="nemotron-h"),
    "NemotronHPuzzleForCausalLM": g("nemotron_h_puzzle", rule="nemotron-h"),
    "MuseGlimmerForCausalLM": g("muse_glimmer_text", rule="muse", **LAYERS, pattern="sssF"),
    "OlmoHybridForCausalLM": g("olmo_hybrid", rule="gated-delta", pattern="lllF"),
    "OlmoeForCausalLM": g("olmoe", **DERIVED),
    "OPTForCausalLM": g("opt", rule="multi-head", **DERIVED),
    "OrionForCausalLM": g("orion", **DERIVED),
    "PanguEmbeddedForCausalLM": g("PanguEmbedded", rule="windows"),
    "PanguProMoEV2ForCausalLM": g("PanguProMoE", rule="windows"),
    "PanguUltraMoEForCausalLM": g("pangu_ultra_moe", rule="latent"),
    "Param2MoEForCausalLM": g("param2moe"),
    "Phi3ForCausalLM": g("phi3"),
    "PhiMoEForCausalLM": g("phimoe"),
    "Plamo3ForCausalLM": g("plamo3", rule="windows"),
    "Qwen2ForCausalLM": g("qwen2", "qwen2_5_vl_text", "qwen2_5_vl", "qwen2_vl_text", "qwen2_vl", "qwen2_5_omni_text", **DERIVED),
    "Qwen2MoeForCausalLM": g("qwen2_moe", **DERIVED),
    "Qwen3ForCausalLM": g("qwen3", "qwen3_vl_text"),
    "Qwen3MoeForCausalLM": g("qwen3_moe", "qwen3_vl_moe_text", "qwen3_omni_moe_text"),
    "Qwen3_5ForCausalLM": g("qwen3_5_text", rule="gated-delta", pattern="lllF", every="full_attention_interval"),
    "Qwen3_5MoeForCausalLM": g("qwen3_5_moe_text", rule="gated-delta", pattern="lllF", every="full_attention_interval"),
    "SarvamMoEForCausalLM": g("sarvam_moe"),
    "SarvamMLAForCausalLM": g("sarvam_mla", rule="latent"),
    "Step1ForCausalLM": g("step1", names={"num_key_value_heads": "num_attention_groups"}, **DERIVED),
    "Step3TextForCausalLM": g("step3_text", rule="step3"),
    "Step3p5ForCausalLM": g("step3p5", rule="step3.5"),
    "Step5ForCausalLM": no(NEW),
    "StableLmForCausalLM": g("stablelm", **DERIVED),
    "SolarForCausalLM": g("solar"),
    "TeleChat2ForCausalLM": g("telechat", names={"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}, rule="multi-head", **DERIVED),
    "TeleChat3ForCausalLM": g("telechat3", **LAYERS),
    "TeleFLMForCausalLM": g("teleflm", names=GPT, **LAYERS),
    "Zamba2ForCausalLM": g("zamba2", rule="zamba2"),
}

# Fields that rules read, by their source.
HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = "".join(open(os.path.join(HERE, "..", n)).read() for n in ("rules.go", "config.go"))
FIELDS = set(re.findall(r'\(c, "([a-z_A-Z0-9.]+)"', SOURCE)) | set(re.findall(r'c\.\w+\("([a-z_A-Z0-9.]+)"', SOURCE)) | {"layers_block_type", "layer_types"}


def raw(cls):
    """What a configuration class has before it is given anything."""
    if dataclasses.is_dataclass(cls):
        return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def defaults(kind, entry):
    """The class's value of each field that a rule reads and that has one; None: no class."""
    if kind in _CONFIG_REGISTRY:
        cls = _CONFIG_REGISTRY[kind]
    elif kind in CONFIG_MAPPING:
        cls = CONFIG_MAPPING[kind]
    else:
        return None
    values, own = raw(cls), entry.get("names", {})
    out = {}
    for field in sorted({own.get(f, f) for f in FIELDS} | {entry.get("every", "")}):
        first, _, rest = field.partition(".")
        if rest and first in cls.sub_configs:
            value = {rest: raw(cls.sub_configs[first]).get(rest)}
        else:
            value = values.get(field, values.get(getattr(cls, "attribute_map", {}).get(field)))
        if value is not None and isinstance(value, (bool, int, float, str, list, dict)):
            out.setdefault(first, value)
    return out


def main():
    registry = open(sys.argv[1]).read()
    block = registry[registry.index("_TEXT_GENERATION_MODELS"):]
    block = block[:block.index("\n}")]
    known = set(re.findall(r'^    "(\w+)":', block, re.M))
    if known != set(ARCHITECTURES):
        sys.exit(f"not here: {sorted(known - set(ARCHITECTURES))}; not in vLLM: {sorted(set(ARCHITECTURES) - known)}")
    rows, types = [], []
    for name, entry in sorted(ARCHITECTURES.items()):
        rows.append((name, {k: v for k, v in (entry | {"type": (entry["types"] or [""])[0]}).items() if v and k != "types"}))
        for kind in entry["types"]:
            found = defaults(kind, entry) if "rule" in entry else None
            types.append((kind, {"architecture": name} | ({} if found is None else {"defaults": found})))
    table = lambda pairs: ",\n".join(f"    {json.dumps(n)}: {json.dumps(e)}" for n, e in pairs)  # noqa: E731
    with open(os.path.join(HERE, "..", "architectures.json"), "w") as f:
        f.write('{\n  "note": "made by testdata/architectures.py",\n  "registry": "vLLM 0.33.0",\n'
                '  "architectures": {\n' + table(rows) + '\n  },\n  "types": {\n' + table(sorted(types)) + "\n  }\n}\n")


main()
