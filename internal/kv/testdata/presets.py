#!/usr/bin/env python3
"""Makes ../presets.json: of the config.json files of models that people serve, the fields
that decide their KV cache. README.md says how to run it and where the files are from."""
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = "ai-dynamo/aiconfigurator"
FOLDER = "aic-core/src/aiconfigurator_core/model_configs/"
SOURCE = "".join(open(os.path.join(HERE, "..", n)).read() for n in ("rules.go", "config.go"))
TABLE = json.load(open(os.path.join(HERE, "..", "architectures.json")))
FIELDS = set(re.findall(r'\(c, "([a-z_A-Z0-9.]+)"', SOURCE)) | set(re.findall(r'c\.\w+\("([a-z_A-Z0-9.]+)"', SOURCE))
FIELDS |= {"architectures", "model_type", "dtype", "torch_dtype", "text_config", "layer_types", "layers_block_type"}
for a in TABLE["architectures"].values():
    FIELDS |= set(a.get("names", {}).values()) | {a.get("every", "")}
FIELDS = {f.split(".")[0] for f in FIELDS}

# Name, file (by the repository on Hugging Face), and the other repositories that state the same geometry.
MODELS = """
Qwen2.5-7B        -                       Qwen/Qwen2.5-7B Qwen/Qwen2.5-7B-Instruct Qwen/Qwen2.5-7B-Instruct-1M Qwen/Qwen2.5-Coder-7B Qwen/Qwen2.5-Coder-7B-Instruct
Qwen2.5-32B       -                       Qwen/Qwen2.5-32B Qwen/Qwen2.5-32B-Instruct Qwen/Qwen2.5-Coder-32B Qwen/Qwen2.5-Coder-32B-Instruct
Qwen3-0.6B        Qwen/Qwen3-0.6B
Qwen3-1.7B        Qwen/Qwen3-1.7B
Qwen3-8B          Qwen/Qwen3-8B           Qwen/Qwen3-8B-Base
Qwen3-32B         Qwen/Qwen3-32B          Qwen/Qwen3-32B-FP8
Qwen3-30B-A3B     Qwen/Qwen3-30B-A3B      Qwen/Qwen3-30B-A3B-FP8
Qwen3-235B-A22B   Qwen/Qwen3-235B-A22B    Qwen/Qwen3-235B-A22B-FP8
Qwen3-235B-A22B-NVFP4 nvidia/Qwen3-235B-A22B-NVFP4
Qwen3-Coder-480B-A35B Qwen/Qwen3-Coder-480B-A35B-Instruct
Qwen3-VL-2B       Qwen/Qwen3-VL-2B-Instruct
Qwen3-VL-4B       Qwen/Qwen3-VL-4B-Instruct
Qwen3-VL-8B       Qwen/Qwen3-VL-8B-Instruct
Qwen3-VL-32B      Qwen/Qwen3-VL-32B-Instruct Qwen/Qwen3-VL-32B-Thinking
Qwen3-VL-30B-A3B  Qwen/Qwen3-VL-30B-A3B-Instruct
Qwen3-VL-235B-A22B Qwen/Qwen3-VL-235B-A22B-Instruct
Qwen3.5-27B       Qwen/Qwen3.5-27B
Qwen3.5-35B-A3B   Qwen/Qwen3.5-35B-A3B
Qwen3.5-122B-A10B Qwen/Qwen3.5-122B-A10B
Qwen3.5-397B-A17B Qwen/Qwen3.5-397B-A17B
Qwen3.6-27B-NVFP4 nvidia/Qwen3.6-27B-NVFP4
Qwen3.6-35B-A3B-NVFP4 nvidia/Qwen3.6-35B-A3B-NVFP4
Llama-3.1-8B      meta-llama/Meta-Llama-3.1-8B  meta-llama/Llama-3.1-8B meta-llama/Llama-3.1-8B-Instruct meta-llama/Meta-Llama-3.1-8B-Instruct
Llama-3.1-70B     meta-llama/Meta-Llama-3.1-70B meta-llama/Llama-3.1-70B meta-llama/Llama-3.1-70B-Instruct meta-llama/Meta-Llama-3.1-70B-Instruct
Llama-3.1-405B    meta-llama/Meta-Llama-3.1-405B meta-llama/Llama-3.1-405B
Llama-3.1-70B-FP8 nvidia/Llama-3.1-70B-Instruct-FP8
Llama-4-Scout     meta-llama/Llama-4-Scout-17B-16E-Instruct
Llama-4-Maverick  meta-llama/Llama-4-Maverick-17B-128E-Instruct
Llama-3.3-Nemotron-Super-49B nvidia/Llama-3_3-Nemotron-Super-49B-v1
DeepSeek-V3       deepseek-ai/DeepSeek-V3 deepseek-ai/DeepSeek-V3-Base deepseek-ai/DeepSeek-V3-0324
DeepSeek-R1       deepseek-ai/DeepSeek-R1 deepseek-ai/DeepSeek-R1-0528 deepseek-ai/DeepSeek-R1-Zero
DeepSeek-V3.1-NVFP4 nvidia/DeepSeek-V3.1-NVFP4
DeepSeek-V3.2     deepseek-ai/DeepSeek-V3.2
DeepSeek-V3.2-NVFP4 nvidia/DeepSeek-V3.2-NVFP4
gpt-oss-120b      openai/gpt-oss-120b
gpt-oss-20b       openai/gpt-oss-20b
Mistral-7B        -                       mistralai/Mistral-7B-v0.3 mistralai/Mistral-7B-Instruct-v0.3 mistralai/Mistral-7B-Instruct-v0.2
Mixtral-8x7B      mistralai/Mixtral-8x7B-v0.1
Mixtral-8x22B     mistralai/Mixtral-8x22B-v0.1
Kimi-K2           moonshotai/Kimi-K2-Instruct
Kimi-K2.5         moonshotai/Kimi-K2.5
Kimi-K2.6-NVFP4   nvidia/Kimi-K2.6-NVFP4
Kimi-K2.7-Code-NVFP4 nvidia/Kimi-K2.7-Code-NVFP4
Kimi-K3           moonshotai/Kimi-K3
GLM-5             zai-org/GLM-5           zai-org/GLM-5-FP8
GLM-5.1           zai-org/GLM-5.1         zai-org/GLM-5.1-FP8
GLM-5.2           zai-org/GLM-5.2         zai-org/GLM-5.2-FP8
GLM-5.2-NVFP4     nvidia/GLM-5.2-NVFP4
MiniMax-M3        MiniMaxAI/MiniMax-M3
MiniMax-M2.7      MiniMaxAI/MiniMax-M2.7
MiniMax-M2.5-NVFP4 nvidia/MiniMax-M2.5-NVFP4
Gemma-4-26B-A4B   google/gemma-4-26B-A4B
Gemma-4-31B-NVFP4 nvidia/Gemma-4-31B-IT-NVFP4
MiMo-7B           XiaomiMiMo/MiMo-7B-Base
MiMo-V2-Flash     XiaomiMiMo/MiMo-V2-Flash
Nemotron-H-56B    nvidia/Nemotron-H-56B-Base-8K
Nemotron-3-Nano-30B-A3B nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16
Nemotron-3-Super-120B-A12B-FP8 nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8
Nemotron-3-Ultra-550B-A55B nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16
"""


def show(repo, name):
    out = subprocess.run(["git", "-C", repo, "show", "HEAD:" + FOLDER + name], capture_output=True, text=True)
    return json.loads(out.stdout.replace("Infinity", "null")) if out.returncode == 0 else None


def slim(c):
    out = {}
    for k, v in c.items():
        if k not in FIELDS and k != "quantization_config":
            continue
        if k == "quantization_config":
            q = v.get("quantization", v) if isinstance(v, dict) else {}
            v = {f: q[f] for f in ("kv_cache_scheme", "kv_cache_quant_algo") if q.get(f)}
            if not v:
                continue
        out[k] = slim(v) if k == "text_config" else v
    return out


def main():
    repo = sys.argv[1]
    commit = subprocess.run(["git", "-C", repo, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    rows = []
    for line in MODELS.split("\n"):
        if not line:
            continue
        name, file, *repositories = line.split()
        if file == "-":
            row = {"name": name, "repositories": repositories, "source": "the model's own config.json and card (testdata/models)",
                   "config": json.load(open(os.path.join(HERE, "../../../testdata/models", name, "config.json")))}
        else:
            base = file.replace("/", "--")
            c = show(repo, base + "_config.json")
            row = {"name": name, "repositories": [file, *repositories], "source": f"{REPOSITORY} {commit} {base}_config.json", "config": slim(c)}
            q = (show(repo, base + "_hf_quant_config.json") or {}).get("quantization", {})
            if q.get("kv_cache_quant_algo"):
                row["quantization"] = {"quantization": {"kv_cache_quant_algo": q["kv_cache_quant_algo"]}}
        rows.append(row)
    with open(os.path.join(HERE, "..", "presets.json"), "w") as f:
        f.write("[\n" + ",\n".join("  " + json.dumps(r) for r in rows) + "\n]\n")


main()
