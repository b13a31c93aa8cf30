#!/usr/bin/env python3
"""Angles per position and attention factors of rope scaling rules, by transformers in float64: tests/golden/rope.json.

usage: make_rope_vectors.py OUT.json        (packages: requirements-golden.txt)

Each case is a config.json, the angle of each pair of channels, and what rotated queries and keys are multiplied by. The
settings are those of published models, and variations of every optional key.
"""
import copy
import json
import pathlib
import sys

import torch
from make_golden import float64_everywhere, llama
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding


def config(head_dim, theta, positions, scaling):
    return llama(hidden_size=2 * head_dim, rope_theta=theta, max_position_embeddings=positions, rope_scaling=scaling)


def yarn(**changes):
    """As the Qwen2.5 models' cards have it."""
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, **changes}
    return config(128, 1e6, 32768, scaling)


def llama3(factor):
    return config(64, 5e5, 131072, {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                    "original_max_position_embeddings": 8192})


def longrope(pairs, longest, **changes):
    return config(2 * pairs, 1e4, 131072, {"rope_type": "longrope", "short_factor": [1 + 0.01 * i for i in range(pairs)],
                                           "long_factor": [1 + longest * i / pairs for i in range(pairs)],
                                           "original_max_position_embeddings": 4096, **changes})


LENGTHS = {"dynamic-beyond": 10000, "longrope": 4096, "longrope-beyond": 4097, "longrope-attention-factor": 131072}
CASES = {
    "none": config(128, 1e4, 4096, None),
    "dynamic-beyond": config(128, 1e4, 4096, {"type": "dynamic", "factor": 4.0}),
    "longrope": longrope(16, 4.5),
    "longrope-beyond": longrope(16, 4.5),
    "longrope-attention-factor": longrope(16, 4.5, attention_factor=1.1),
    "linear": config(128, 1e4, 4096, {"type": "linear", "factor": 4.0}),
    "dynamic": config(128, 1e4, 4096, {"type": "dynamic", "factor": 4.0}),
    "llama3.1": llama3(8.0),
    "llama3.2": llama3(32.0),
    "yarn": yarn(),
    "yarn-llama2-128k": config(128, 1e4, 131072, {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}),
    "yarn-betas": yarn(beta_fast=16.0, beta_slow=2.0),
    "yarn-zero-betas": yarn(beta_fast=0.0, beta_slow=0.0),
    "yarn-one-pair": yarn(beta_fast=4.0, beta_slow=4.0, truncate=False),
    "yarn-not-truncated": yarn(truncate=False),
    "yarn-below-the-first-pair": config(32, 1e4, 256, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
    "yarn-attention-factor": yarn(attention_factor=0.75),
    "yarn-mscale": yarn(mscale=0.707, mscale_all_dim=1.25),
    "yarn-one-mscale": yarn(mscale=0.707),
}


def angles(name, case):
    with float64_everywhere():
        parsed = AutoConfig.for_model(**copy.deepcopy(case))
        rotary = LlamaRotaryEmbedding(parsed)
        if case["rope_scaling"]:  # in a text of that length
            rotary(torch.zeros(1), torch.tensor([[LENGTHS.get(name, case["max_position_embeddings"]) - 1]]))
        return {"frequencies": rotary.inv_freq.tolist(), "attention_factor": float(rotary.attention_scaling)}


cases = [{"name": name, "config": case, **({"length": LENGTHS[name]} if name in LENGTHS else {}), **angles(name, case)} for name, case in CASES.items()]
pathlib.Path(sys.argv[1]).write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
