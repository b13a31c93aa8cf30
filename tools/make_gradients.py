#!/usr/bin/env python3
"""Writes tests/quantizer/fixtures/gradients.json: for tiny models of tests/golden, the squared length of the gradient of log p(next token) by the
outputs of the layers that read one input, for each token, by transformers in float64. Next tokens are drawn from the model as src/quantizer/weigh.cc
draws them. usage: make_gradients.py [REPOSITORY]"""
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent)
SEQUENCES, LENGTH = 2, 20
LLAMA = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
# Layers by what they read, in the order of scale_groups().
MODELS = {
    "llama": LLAMA,
    "gemma2": LLAMA,
    "gpt2": [["attn.c_attn"], ["attn.c_proj"], ["mlp.c_fc"], ["mlp.c_proj"]],
    "bloom": [["query_key_value"], ["self_attention.dense"], ["dense_h_to_4h"], ["dense_4h_to_h"]],
    "falcon-7b": [["query_key_value", "dense_h_to_4h"], ["self_attention.dense"], ["dense_4h_to_h"]],
}
MASK = (1 << 64) - 1


def uniform(place):
    """SplitMix64, as a number in [0, 1)."""
    z = (place + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def watched(to):
    def hook(_, __, out):
        out.register_hook(lambda by: (to.add_(by.pow(2).sum(-1).flatten()), None)[1])
        return out.clone()  # Falcon writes into it

    return hook


def blocks_of(model):
    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))


def squares_of(name, groups):
    model = AutoModelForCausalLM.from_pretrained(ROOT / "tests/golden" / name, dtype=torch.float64, attn_implementation="eager").eval()
    tokens = torch.tensor([[(s * 131 + t * 17 + 5) % model.config.vocab_size for t in range(LENGTH)] for s in range(SEQUENCES)])
    blocks = blocks_of(model)
    squares = torch.zeros(len(blocks), len(groups), SEQUENCES * LENGTH, dtype=torch.float64)
    for i, block in enumerate(blocks):
        for g, suffixes in enumerate(groups):
            layers = [m for n, m in block.named_modules() if any(n.endswith(s) for s in suffixes)]
            assert len(layers) == len(suffixes), (name, g)
            for layer in layers:
                layer.register_forward_hook(watched(squares[i, g]))
    logits = model(tokens).logits.flatten(0, 1)
    p = torch.softmax(logits, -1)
    drawn = [int((p[t].cumsum(0) > uniform(t) * p[t].sum()).nonzero()[0, 0].item()) for t in range(len(p))]
    torch.nn.functional.cross_entropy(logits, torch.tensor(drawn), reduction="sum").backward()
    return [[[float(f"{v:.8g}") for v in group] for group in block] for block in squares.tolist()]


def main():
    out = {"sequences": SEQUENCES, "length": LENGTH, "squares": {name: squares_of(name, groups) for name, groups in MODELS.items()}}
    (ROOT / "tests/quantizer/fixtures/gradients.json").write_text(json.dumps(out) + "\n")


main()
