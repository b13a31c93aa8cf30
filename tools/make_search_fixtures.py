#!/usr/bin/env python3
"""Make the .pt files of tests/quantizer/fixtures: searches as llm-awq saves them.

usage: make_search_fixtures.py GOLDEN_MODELS OUT_DIR        (package: torch, as in requirements-golden.txt)

For the tiny llama of GOLDEN_MODELS, whose q, k and v have as many heads, with random scales and bounds from a seed:
  llm-awq-f16.pt       {"scale": [...], "clip": [...]}, float16, as `--dump_awq` writes it
  llm-awq-bf16.pt      the same in bfloat16, one storage shared by all bounds of a block
  expected.json        what is in the first: {"scale": {producer: [...]}, "clip": {layer: [[...]]}}, as float32 numbers
  other-global.pt      a pickle that would call os.getcwd
  whole-model.pt       what torch.save makes of a module: a class of its own
  plain.zip            two stored files and a comment, without zip64, by Python's zipfile
  deflated.zip         a compressed file
"""
import json
import os
import pathlib
import sys
import zipfile

import torch

GROUP = 32
BLOCK = [("input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "hidden"),
         ("self_attn.v_proj", ["self_attn.o_proj"], "hidden"),
         ("post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"], "hidden"),
         ("mlp.up_proj", ["mlp.down_proj"], "mlp")]
CLIPPED = [("self_attn.v_proj", "hidden", "hidden"), ("self_attn.o_proj", "hidden", "hidden"),
           ("mlp.gate_proj", "mlp", "hidden"), ("mlp.up_proj", "mlp", "hidden"), ("mlp.down_proj", "hidden", "mlp")]


class CallsSomething:
    def __reduce__(self):
        return os.getcwd, ()


def search(config, dtype, shared):
    widths = {"hidden": config["hidden_size"], "mlp": config["intermediate_size"]}
    random = torch.Generator().manual_seed(5)
    result = {"scale": [], "clip": []}
    for i in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{i}."
        for producer, consumers, width in BLOCK:
            s = torch.exp(torch.randn(widths[width], generator=random) * 0.4).to(dtype)
            result["scale"].append((prefix + producer, tuple(prefix + c for c in consumers), s))
        bounds = [(0.03 + 0.05 * torch.rand(widths[n], widths[k] // GROUP, 1, generator=random)).to(dtype) for _, n, k in CLIPPED]
        if shared:
            whole, at = torch.cat([b.flatten() for b in bounds]), 0
            for j, b in enumerate(bounds):
                bounds[j], at = whole[at:at + b.numel()].view(b.shape), at + b.numel()
        result["clip"] += [(prefix + name, b) for (name, _, _), b in zip(CLIPPED, bounds)]
    return result


def main():
    golden, out = map(pathlib.Path, sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((golden / "llama" / "config.json").read_text())
    plain = search(config, torch.float16, False)
    torch.save(plain, out / "llm-awq-f16.pt")
    torch.save(search(config, torch.bfloat16, True), out / "llm-awq-bf16.pt")
    expected = {"scale": {name: s.float().tolist() for name, _, s in plain["scale"]},
                "clip": {name: b.float().squeeze(-1).tolist() for name, b in plain["clip"]}}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    torch.save({"scale": [CallsSomething()], "clip": []}, out / "other-global.pt")
    torch.save(torch.nn.Linear(2, 2), out / "whole-model.pt")
    date = (2026, 1, 1, 0, 0, 0)
    with zipfile.ZipFile(out / "plain.zip", "w") as z:
        z.writestr(zipfile.ZipInfo("a/one", date), b"first")
        z.writestr(zipfile.ZipInfo("two", date), b"")
        z.comment = b"PK and a comment"
    with zipfile.ZipFile(out / "deflated.zip", "w") as z:
        z.writestr(zipfile.ZipInfo("a", date), b"x" * 100, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
