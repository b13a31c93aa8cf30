#!/usr/bin/env python3
"""Compares awq eval's perplexity with transformers' in float32, by both protocols.

usage: perplexity_reference.py --awq AWQ --model FOLDER --text FILE [--windows N]

Runs in the environment of requirements-lmeval.txt. "hf" is what the papers of GPTQ and AWQ do: the text is tokenized once and cut into
windows of 2,048, of each the model's own loss. "llama.cpp" is what its llama-perplexity does: windows of 512, of which predictions
256 to 510 count; the standard error is that of the mean over predictions, times the perplexity.

Fails where two figures differ in the third decimal.
"""
import argparse
import json
import math
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def windows(ids, length, most):
    n = min(most, len(ids) // length) if most else len(ids) // length
    return [torch.tensor([ids[i * length:(i + 1) * length]]) for i in range(n)]


@torch.no_grad()
def hf(model, ids, most):
    losses = torch.tensor([float(model(w, labels=w).loss) for w in windows(ids, 2048, most)], dtype=torch.float64)
    mean = float(losses.mean())
    error = float(losses.std()) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return math.exp(mean), math.exp(mean) * error


@torch.no_grad()
def llama_cpp(model, ids, most, bos):
    nll = []
    for w in windows(ids, 512, most):
        if bos is not None:
            w[0, 0] = bos
        logits = torch.log_softmax(model(w).logits[0].double(), -1)
        nll += [-float(logits[t, w[0, t + 1]]) for t in range(256, 511)]
    mean = sum(nll) / len(nll)
    variance = sum(x * x for x in nll) / len(nll) - mean * mean
    return math.exp(mean), math.exp(mean) * math.sqrt(variance / (len(nll) - 1))


def main():
    parser = argparse.ArgumentParser()
    for name in ("--awq", "--model", "--text"):
        parser.add_argument(name, required=True)
    parser.add_argument("--windows", type=int, default=8)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    ids = tokenizer.encode(open(args.text, encoding="utf-8").read())
    special = tokenizer.encode("")
    failed = False
    for protocol in ("hf", "llama.cpp"):
        want, error = hf(model, ids, args.windows) if protocol == "hf" else llama_cpp(model, ids, args.windows, special[0] if special else None)
        command = [args.awq, "eval", args.model, "--text", args.text, "--protocol", protocol, "--windows", str(args.windows), "--json"]
        r = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        same = abs(r["perplexity"] - want) < 5e-4 and abs(r["perplexity_standard_error"] - error) < 5e-4
        failed = failed or not same
        print(f"{protocol}: {args.windows} windows, awq {r['perplexity']:.5f} ± {r['perplexity_standard_error']:.5f}, "
              f"transformers {want:.5f} ± {error:.5f}: {'equal' if same else 'DIFFERENT'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
