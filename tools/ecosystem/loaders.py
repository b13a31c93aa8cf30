#!/usr/bin/env python3
"""Load folders with one program that is not awq, and save what it computes.

usage: loaders.py PROGRAM (FOLDER IDS.json DTYPE OUT.npy)...

PROGRAM transformers   float folders; those of compressed-tensors where it is installed
        gptqmodel      AutoAWQ folders: transformers with GPTQModel's kernels (backend torch_awq: nothing to compile)
        gptq           GPTQ folders: GPTQModel alone, with its plain kernel
        vllm           AutoAWQ and compressed-tensors folders: vLLM on a CPU. It gives log-probabilities
        mlx            folders of MLX, and AutoAWQ ones: mlx-lm on a CPU
        gguf           folders with a model.gguf: transformers' reader of it
        llama          the same: llama.cpp, with keys and values in float32
        llama-ids      the same, with a text for IDS: its ids
OUT.npy float32 [tokens, vocab]. Exits 1 if a tensor was missing or not used: transformers only warns of that and goes on
with random weights.
"""
import json
import os
import sys

for name, value in {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "",
                    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                    "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}.items():
    os.environ.setdefault(name, value)
import numpy as np


def config_of(folder):
    with open(os.path.join(folder, "config.json")) as file:
        return json.load(file)


def transformers(folder, ids, dtype, **kwargs):
    import torch
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), output_loading_info=True, **kwargs)
    unused = {k: sorted(v)[:6] for k, v in info.items() if v}
    if unused:
        sys.exit(f"{folder}: not every tensor was used: {unused}")
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0].float().numpy()


def gguf(folder, ids, dtype):
    from transformers import GgufConfig
    return transformers(folder, ids, dtype, gguf_file="model.gguf", quantization_config=GgufConfig(dequantize=True))


def open_llama(folder, **kwargs):
    import llama_cpp
    return llama_cpp.Llama(os.path.join(folder, "model.gguf"), verbose=False, **kwargs)


def llama(folder, ids, dtype):
    model = open_llama(folder, n_ctx=256, n_batch=256, logits_all=True, type_k=0, type_v=0, flash_attn=False)
    model.eval(ids)
    return np.array(model.scores[:len(ids)], np.float32)


def llama_ids(folder, text, dtype):
    return np.array(open_llama(folder, vocab_only=True).tokenize(text.encode(), add_bos=True, special=False))


def gptqmodel(folder, ids, dtype):
    from transformers import AwqConfig
    q = config_of(folder)["quantization_config"]
    quant = AwqConfig(bits=q["bits"], group_size=q["group_size"], zero_point=q["zero_point"], backend="torch_awq",
                      modules_to_not_convert=q["modules_to_not_convert"])
    return transformers(folder, ids, dtype, device_map="cpu", quantization_config=quant)


def gptq(folder, ids, dtype):
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # with one it does not start
    import torch
    from gptqmodel import BACKEND, GPTQModel
    model = GPTQModel.load(folder, device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=getattr(torch, dtype)).model
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].float().numpy()


def replace_missing_product():
    """vLLM's library for CPUs without AVX-512 lacks its 4-bit matrix product. Reading the folder, joining q, k and v and
    converting AWQ's order of nibbles is vLLM's own code there too; only the product of its converted weights
    ([N / 16, K * 2] words and [K / g, N / 8] words of zeros, nibbles in order) is then done here."""
    import torch
    from vllm import _custom_ops
    if hasattr(torch.ops._C, "cpu_gemm_wna16"):
        return

    def nibbles(words):
        return ((words[..., None] >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15).flatten(-2)

    def product(input, q_weight, scales, zeros, bias, pack_factor, isa_hint):
        k, n = input.shape[-1], scales.shape[1]
        codes = nibbles(q_weight.view(n // 16, k, 2)).permute(1, 0, 2).reshape(k, n)
        repeat = k // scales.shape[0]
        weight = (codes - nibbles(zeros).repeat_interleave(repeat, 0)).to(scales.dtype) * scales.repeat_interleave(repeat, 0)
        return torch.nn.functional.linear(input, weight.T, bias)

    _custom_ops.cpu_gemm_wna16 = product
    print("note: vLLM has no 4-bit matrix product without AVX-512; it is done by loaders.py here")


def vllm(folder, ids, dtype):
    from vllm import LLM, SamplingParams
    replace_missing_product()
    vocab = config_of(folder)["vocab_size"]
    llm = LLM(model=folder, dtype=dtype, enforce_eager=True, max_model_len=256, max_num_seqs=1, max_logprobs=vocab,
              enable_prefix_caching=False, logprobs_mode="raw_logprobs", skip_tokenizer_init=True)
    sampling = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=vocab, logprobs=vocab, detokenize=False)
    out = llm.generate([{"prompt_token_ids": ids}], sampling, use_tqdm=False)[0]
    rows = [*out.prompt_logprobs[1:], out.outputs[0].logprobs[0]]
    return np.array([[row[i].logprob for i in range(vocab)] for row in rows], np.float32)


def mlx(folder, ids, dtype):
    """In float32 on a CPU, whose float16 products alone would be off by a percent."""
    import pathlib

    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.utils import load_model
    mx.set_default_device(mx.cpu)
    model, _ = load_model(pathlib.Path(folder))
    model.update(tree_map(lambda x: x.astype(mx.float32) if mx.issubdtype(x.dtype, mx.floating) else x, model.parameters()))
    return np.array(model(mx.array([ids]))[0], np.float32)


def main():
    program, *arguments = sys.argv[1:]
    run = {"transformers": transformers, "gptqmodel": gptqmodel, "gptq": gptq, "vllm": vllm, "mlx": mlx, "gguf": gguf, "llama": llama, "llama-ids": llama_ids}[program]
    for folder, ids_file, dtype, out in zip(*[iter(arguments)] * 4, strict=True):
        with open(ids_file) as file:
            np.save(out, run(folder, json.load(file), dtype))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # vLLM may hang while it shuts down


if __name__ == "__main__":
    main()
