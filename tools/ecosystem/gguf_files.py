#!/usr/bin/env python3
"""Are the GGUF files that awq writes what the package gguf and llama.cpp make of them? By hand, with the Python of an
environment that has gguf 0.19, llama-cpp-python 0.3.36 (which compiles for half an hour) and safetensors:

    PYTHON tools/ecosystem/gguf_files.py AWQ tests/golden [--real FLOAT_MODEL]

Of AutoAWQ folders that become Q4_1 and Q8_0 every weight is compared bit by bit, by gguf's own dequantize, with
code * scale + float16(-zero * scale) or (code - zero) * scale as the folder has them, rows of q and k put in Llama's order.
Logits and token ids of llama.cpp are then compared with awq's own of the same file: rel = max |a - b| / max |b|, rows taken
from their means. llama.cpp rounds activations to 8 bits for blocks, which costs up to 6e-2 here, and to 16 for floats.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
from safetensors import safe_open

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "cli"))
import tiny

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
BOUND = {"gguf-f16": 1e-2, "gguf-bf16": 3e-2, "gguf-q8_0": 6e-2, "gguf-q4_1": 6e-2, "gguf-q4_0": 6e-2}
TEXT = "The quick brown fox, 12345 jumps;\n  over it!"


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def unpack(words):
    out = np.empty((*words.shape, 8), np.float32)
    for nibble, column in enumerate(ORDER):
        out[..., column] = words.view(np.uint32) >> np.uint32(4 * nibble) & 15
    return out.reshape(words.shape[0], -1)


def decoded(folder, product_rounded):
    """name in GGUF -> float32 [rows, cols]"""
    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    out = {}
    with safe_open(folder / "model.safetensors", "numpy") as f:
        for key in f.keys():
            if not key.endswith(".qweight"):
                continue
            base = key.removesuffix(".qweight")
            _, _, block, layer = base.split(".", 3)
            codes, zeros = unpack(f.get_tensor(key)), unpack(f.get_tensor(base + ".qzeros"))
            scales = f.get_tensor(base + ".scales").astype(np.float32)
            g = codes.shape[0] // zeros.shape[0]
            wide = lambda t: np.repeat(t, g, 0)
            offset = (-(zeros * scales)).astype(np.float16).astype(np.float32)
            w = codes * wide(scales) + wide(offset) if product_rounded else (codes - wide(zeros)) * wide(scales)
            w = w.T
            if config["model_type"] in ("llama", "mistral") and NAMES[layer] in heads:
                n = heads[NAMES[layer]]
                w = w.reshape(n, 2, w.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(w.shape)
            out[f"blk.{block}.{NAMES[layer]}.weight"] = w
    return out


def check_weights(name, file, expected):
    tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
    for key, w in expected.items():
        got = gguf.dequantize(tensors[key].data, tensors[key].tensor_type)
        if not np.array_equal(got, w):
            sys.exit(f"{name}: {key} differs, at most by {np.abs(got - w).max()}")
    print(f"{name}: {len(expected)} matrices are the same bit by bit")


def centred(x):
    return x - x.mean(1, keepdims=True)


def check_llama(awq, name, folder, bound, work):
    file = folder / "model.gguf"
    window = gguf.GGUFReader(file).fields.get("llama.attention.sliding_window")  # which llama.cpp does not know
    length = 24 if window is None else min(24, int(window.parts[window.data[0]][0]))
    llama = llama_cpp.Llama(str(file), n_ctx=64, n_batch=64, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)
    ids = np.random.default_rng(1).integers(3, min(llama.n_vocab(), 96), length).tolist()
    (work / "ids.json").write_text(json.dumps(ids))
    run(awq, "eval", folder, "--ids", work / "ids.json", "--dump-logits", work / "logits.npy")
    llama.eval(ids)
    a, b = centred(np.array(llama.scores[:len(ids)])), centred(np.load(work / "logits.npy").reshape(len(ids), -1))
    rel = np.abs(a - b).max() / np.abs(b).max()
    tokens = llama.tokenize(TEXT.encode(), add_bos=True, special=False)
    ours = [int(i) for i in re.findall(r"\d+", run(awq, "tokenize", file, "--ids", "-p", TEXT))]
    print(f"{name}: llama.cpp rel {rel:.1e}, at most {bound:.0e}; {len(tokens)} token ids {'the same' if tokens == ours else f'differ: {tokens} {ours}'}")
    return rel <= bound and tokens == ours


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("awq")
    parser.add_argument("golden", type=pathlib.Path)
    parser.add_argument("--real")
    args = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory(prefix="awq-gguf-") as folder:
        work = pathlib.Path(folder)
        sources = [(f, tiny.make(args.golden, f, work / f), "32") for f in ("llama", "llama-bias", "mistral", "qwen2", "qwen3", "gemma3")]
        tiny.as_gguf_has_gemma3(work / "gemma3")
        if args.real:
            sources.append(("real", args.real, "64"))
        for family, source, group in sources:
            quantized = work / f"{family}-awq"
            run(args.awq, "quantize", source, "-o", quantized, "--method", "rtn", "--group-size", group)
            for format, product_rounded in [("gguf-q4_1", True), ("gguf-q8_0", False)]:
                out = work / f"{family}-{format}-codes"
                run(args.awq, "convert", quantized, "-o", out, "--format", format, "--allow", "rounded-offsets")
                check_weights(f"{family} {format}", out / "model.gguf", decoded(quantized, product_rounded))
                good &= check_llama(args.awq, f"{family} {format} of codes", out, BOUND[format], work)
            for format in BOUND:
                out = work / f"{family}-{format}"
                run(args.awq, "convert", source, "-o", out, "--format", format)
                good &= check_llama(args.awq, f"{family} {format} of floats", out, BOUND[format], work)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
