#!/usr/bin/env python3
"""Are the GGUF files that awq writes what the package gguf, transformers and llama.cpp make of them? Started by run.sh, with
the Python of an environment that has gguf and transformers.

Of AutoAWQ folders that become Q4_1 and Q8_0 every weight is compared bit by bit, by gguf's own dequantize, with
code * scale + float16(-zero * scale) or (code - zero) * scale as the folder has them, rows of q and k put in Llama's order.
Logits of transformers' reader and of llama.cpp, and llama.cpp's token ids of a text, are then compared with awq's own of the same
file: distance() of check.py, and answer() for a real model. transformers computes in float32, and awq may be off as far as of
other folders (AWQ of check.py); llama.cpp rounds activations to 8 bits for blocks, which costs up to 6e-2 here, and to 16 for floats. The last line reads "N passed, N failed, N skipped".
"""
import argparse
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from safetensors import safe_open

import page
from check import AWQ, Tally, answer, awq_logits, distance, load, noise_of, write_answer

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "cli"))
import tiny

FAMILIES = ("llama", "llama-bias", "mistral", "mixtral", "qwen2", "qwen3", "qwen2-moe", "granite", "granite-moe", "gemma3",
            "gemma", "minicpm", "olmo", "olmo2", "deepseek3", "glm4-moe")
NEAR_TIES = ("mixtral", "qwen2-moe", "deepseek3", "glm4-moe")  # 8-bit activations were seen to move logits by half: another expert may be chosen
NOT_IN_TRANSFORMERS = {"llama-bias": "its reader leaves out the biases of q, k, v and o", "qwen3": "its reader takes every head for one of 128 channels",
                       **{family: "not tried" for family in ("mixtral", "qwen2-moe", "granite", "granite-moe", "gemma", "minicpm", "olmo", "olmo2",
                                                               "deepseek3", "glm4-moe")},
                       "gemma3": "its reader takes the published models' windows and scale of queries, and no rope scaling"}
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
         "mlp.shared_expert.down_proj": "ffn_down_shexp",
         "self_attn.q_a_proj": "attn_q_a", "self_attn.q_b_proj": "attn_q_b", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
         "self_attn.kv_b_proj": "attn_kv_b", "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
         "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp"}
PAIRS = ("llama", "mistral", "mixtral", "granite", "granitemoe", "minicpm", "olmo")
EXPERTS = {"w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps", "gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps",
           "down_proj": "ffn_down_exps"}
LLAMA = {"gguf-f16": 1e-2, "gguf-bf16": 3e-2, "gguf-q8_0": 6e-2, "gguf-q4_1": 6e-2, "gguf-q4_0": 6e-2}
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


def place(block, layer):
    """The name in GGUF and, of experts, which of its tensor's it is."""
    expert = re.fullmatch(r"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)", layer)
    name = EXPERTS[expert[2]] if expert else NAMES[layer]
    return f"blk.{block}.{name}.weight", int(expert[1]) if expert else None


def decoded(folder, product_rounded):
    """name in GGUF -> float32 [rows, cols], or [experts, rows, cols]"""
    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    out, experts = {}, {}
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
            if config["model_type"] in PAIRS and NAMES.get(layer) in heads:
                n = heads[NAMES[layer]]
                w = w.reshape(n, 2, w.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(w.shape)
            name, expert = place(block, layer)
            if expert is None:
                out[name] = w
            else:
                experts.setdefault(name, {})[expert] = w
    return out | {name: np.stack([of[e] for e in sorted(of)]) for name, of in experts.items()}


def check_weights(tally, name, file, expected):
    """The cell of a page's row."""
    tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
    same = sum(np.array_equal(gguf.dequantize(tensors[key].data, tensors[key].tensor_type), w) for key, w in expected.items())
    tally.check(same == len(expected) > 0, f"{name:34} {same} of {len(expected)} matrices are the same bit by bit")
    return f"{same} of {len(expected)}"


@dataclasses.dataclass
class File:
    model: str
    format: str
    folder: pathlib.Path
    floats: pathlib.Path  # the model in floats, as a Hugging Face folder
    weights: str = "-"  # a cell of the page
    begin: int = 0  # of the answer among the ids
    ids: pathlib.Path | None = None

    def name(self):
        return f"{self.model} {self.format} of {'floats' if self.weights == '-' else 'codes'}"


def files_of(tally, awq, model, source, quantized, work):
    """Of codes, then, where there is a float model, of floats."""
    floats = source or work / f"{model}-floats"
    if not source:
        run(awq, "convert", quantized, "-o", floats, "--format", "hf")
    for format, product_rounded in [("gguf-q4_1", True), ("gguf-q8_0", False)]:
        out = work / f"{model}-{format}-codes"
        run(awq, "convert", quantized, "-o", out, "--format", format, "--allow", "rounded-offsets")
        yield File(model, format, out, floats, check_weights(tally, f"{model} {format}", out / "model.gguf", decoded(quantized, product_rounded)))
    for format in LLAMA if source else ():
        out = work / f"{model}-{format}"
        run(awq, "convert", source, "-o", out, "--format", format)
        yield File(model, format, out, floats)


def tiny_files(tally, args, work):
    for family in FAMILIES:
        source = tiny.make(args.golden, family, work / family)
        if family == "gemma3":
            tiny.as_gguf_has_gemma3(source)
        run(args.awq, "quantize", source, "-o", work / f"{family}-awq", "--method", "rtn", "--group-size", "32")
        yield from files_of(tally, args.awq, family, source, work / f"{family}-awq", work)


def write_ids(file, work):
    file.ids = work / f"{file.folder.name}.json"
    reader = gguf.GGUFReader(file.folder / "model.gguf")
    window = reader.fields.get("llama.attention.sliding_window")  # which llama.cpp does not know
    length = 24 if window is None else min(24, int(window.contents()))
    file.ids.write_text(json.dumps(np.random.default_rng(1).integers(3, 96, length).tolist()))


def reader_bounds(files, work):
    noise = {f.model: noise_of(f.floats, f.ids, work) for f in {f.model: f for f in files}.values()}
    return [AWQ * noise[f.model] for f in files]


def check_logits(tally, files, ours, python, program, bounds, versions, rows):
    jobs = [(f.folder, f.ids, "float32") for f in files]
    for file, a, bound, b in zip(files, ours, bounds, load(python, program, jobs, files[0].ids.parent)):
        if a is None or b is None:
            tally.check(False, f"{file.name():34} {'awq' if a is None else program} does not load it")
            continue
        rel, words = distance(b, a), "-"
        tally.check(rel <= bound, f"{file.name():34} {program} rel {rel:.1e}, at most {bound:.1e}")
        if file.begin:
            ok, words = answer(json.loads(file.ids.read_text()), file.begin, b, bound)
            tally.check(ok, f"{file.name():34} {program} greedy tokens {words}")
        page.add(rows, "gguf", file.model, file.format, file.weights, versions, f"{rel:.1e}", f"{bound:.1e}", words)


def check_ids(tally, files, awq, python, work):
    text = work / "text.json"
    text.write_text(json.dumps(TEXT))
    for file, theirs in zip(files, load(python, "llama-ids", [(f.folder, text, "-") for f in files], work)):
        ours = [int(i) for i in run(awq, "tokenize", file.folder, "--ids", "-p", TEXT).split()]
        tally.check(theirs is not None and theirs.tolist() == ours, f"{file.name():34} llama.cpp's {len(ours)} token ids")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--golden", type=pathlib.Path, required=True, help="the folder of tiny models")
    parser.add_argument("--real", type=pathlib.Path, help="an AutoAWQ folder that awq made of a real model")
    parser.add_argument("--llama-python", help="of llama.cpp's environment; without it llama.cpp is not run")
    parser.add_argument("--rows", help="gets the rows of docs/compatibility.md (page.py)")
    args = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="awq-gguf-") as folder:
        work = pathlib.Path(folder)
        files = list(tiny_files(tally, args, work))
        for f in files:
            write_ids(f, work)
        if args.real:
            for f in files_of(tally, args.awq, args.real.name, None, args.real, work):
                f.ids = work / f"{f.folder.name}.json"
                f.begin = write_answer(args.awq, f.folder, f.ids)
                files.append(f)
        ours = awq_logits(args.awq, [(f.folder, f.ids, None) for f in files], work)
        for family, why in NOT_IN_TRANSFORMERS.items():
            tally.add("skipped", f"{family:34} transformers: {why}")
        known = [i for i, f in enumerate(files) if f.model not in NOT_IN_TRANSFORMERS]
        check_logits(tally, [files[i] for i in known], [ours[i] for i in known], sys.executable, "gguf", reader_bounds([files[i] for i in known], work),
                     page.versions(sys.executable, ["transformers", "gguf"]), args.rows)
        if args.llama_python:
            steady = [i for i, f in enumerate(files) if f.model not in NEAR_TIES or f.format in ("gguf-f16", "gguf-bf16")]
            check_logits(tally, [files[i] for i in steady], [ours[i] for i in steady], args.llama_python, "llama", [LLAMA[files[i].format] for i in steady], page.versions(args.llama_python, ["llama-cpp-python"]), args.rows)
            check_ids(tally, files, args.awq, args.llama_python, work)
        else:
            tally.add("skipped", "llama.cpp: its environment was not given")
            page.not_run(args.rows, "gguf", "all of these", "gguf", "-", "llama.cpp: not run")
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed, {tally.count['skipped']} skipped")
    return 0 if tally.count["passed"] and not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
