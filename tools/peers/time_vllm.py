#!/usr/bin/env python3
"""Time vLLM on a CPU with an AutoAWQ folder. Prints one JSON object.

--w4a8 on, vLLM's default, computes with 8-bit activations where the CPU has AMX and --dtype is bfloat16. Compiling (no
enforce_eager) took three minutes and made decoding no faster.

A decode measure is the difference between answers of 65 tokens and of 1 to the same prompts: vLLM gives no access to a single step.
"""
import json
import os
import sys

from timing import PROMPT, STEPS, arguments, rates, seconds, tokens_of

args = arguments(__doc__, dtype=("bfloat16", "float16"), w4a8=("on", "off"))
kind, count = args.measure
cpus = sorted(os.sched_getaffinity(0))[:args.threads]
for name, value in {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "",
                    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)), "OMP_NUM_THREADS": str(args.threads),
                    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING",
                    "VLLM_CPU_INT4_W4A8": str(int(args.w4a8 == "on"))}.items():
    os.environ.setdefault(name, value)
stdout = os.dup(1)
os.dup2(2, 1)  # vLLM writes to stdout, too

import numpy as np
import torch
import vllm._custom_ops  # which loads torch.ops._C


def engine():
    # Room for a whole prompt in one step, and no more: vLLM starts with a step of the largest size.
    room = max(256, count if kind == "prefill" else count * PROMPT)
    return vllm.LLM(model=args.model, dtype=args.dtype, enforce_eager=True, max_model_len=room + STEPS, max_num_batched_tokens=room,
                    max_num_seqs=16 if kind == "prefill" else count, enable_prefix_caching=False, skip_tokenizer_init=True, seed=0)


def answer(llm, prompts, tokens):
    sampling = vllm.SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, detokenize=False)
    out = llm.generate([{"prompt_token_ids": p} for p in prompts], sampling, use_tqdm=False)
    if any(len(o.outputs[0].token_ids) != tokens for o in out):
        sys.exit(f"vLLM stopped before {tokens} tokens")


def main():
    if not hasattr(torch.ops._C, "cpu_gemm_wna16"):
        sys.exit("this CPU has no AVX-512, and vLLM's library then no 4-bit matrix product")
    with open(os.path.join(args.model, "config.json")) as file:
        vocab = json.load(file)["vocab_size"]
    shape = (1, count) if kind == "prefill" else (count, PROMPT)
    prompts = np.random.default_rng(1).integers(3, vocab, shape).tolist()
    llm = engine()

    def run():
        first = seconds(lambda: answer(llm, prompts, 1))
        return first if kind == "prefill" else seconds(lambda: answer(llm, prompts, 1 + STEPS)) - first

    out = rates(tokens_of(kind, count), run)
    os.write(stdout, json.dumps({"tokens_per_second": out, "version": f"vLLM {vllm.__version__}", "threads": torch.get_num_threads(),
                                 "cpus": sorted(os.sched_getaffinity(0))}).encode() + b"\n")
    os._exit(0)  # vLLM may hang while it shuts down


main()
