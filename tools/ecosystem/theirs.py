#!/usr/bin/env python3
"""Are files that other programs write the same model in awq? Started by run.sh, with the Python of an environment that has
transformers, compressed-tensors and gguf.

Each program makes a model of a real one (writers.py). Every value that awq reads of it must be the one that the program
itself makes of its file, to the last bit; awq's logits of a text and of its own greedy answer are compared with the
program's, and each token of the answer must be the program's own choice, or as good (answer() of check.py). As there, awq
may be a quarter as far off as float16 makes the float model, and a program that computes in float16 three times as far. The
last line reads "N passed, N failed, N skipped".
"""
import argparse
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from safetensors import safe_open

import page
from check import AWQ, HERE, NOISE, Tally, answer, awq_logits, distance, load, noise_of, write_answer


@dataclasses.dataclass(frozen=True)
class Writer:
    program: str
    kind: str  # what writers.py is told
    loader: str  # of loaders.py: runs the result
    dtype: str = "float32"  # in which it does

    def bound(self, noise):
        return (AWQ if self.dtype == "float32" else NOISE) * noise


WRITERS = [*(Writer("mlx", kind, "mlx") for kind in ("4-64-float32", "4-32-bfloat16", "3-64-float16")),
           *(Writer("gguf", kind, "gguf") for kind in ("copy", "Q4_0", "Q5_0", "Q5_1", "Q8_0")),
           *(Writer("compressed-tensors", kind, "transformers") for kind in ("4-64-asym", "4-channel-asym", "8-32-sym")),
           *(Writer("llama", kind, "gguf") for kind in ("Q3_K_M", "Q5_K_M")),
           Writer("autoawq", "64", "gptqmodel", "float16"), Writer("gptqmodel", "4-64-asym-v2", "gptq", "float16")]
PACKAGES = {"mlx": ["mlx-lm", "mlx"], "gguf": ["gguf"], "llama": ["llama-cpp-python"], "compressed-tensors": ["compressed-tensors"], "autoawq": ["autoawq"], "gptqmodel": ["GPTQModel"]}


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{args[0]} {args[1]}: " + "\n".join((done.stdout + done.stderr).splitlines()[-12:]))
    return done.stdout


def unequal(expected, floats):
    """Values of the program's that are other ones in a folder that awq made of its file, and all."""
    wrong = total = 0
    with safe_open(floats / "model.safetensors", "pt") as file, np.load(expected) as arrays:
        for name in arrays.files:
            theirs = arrays[name]
            wrong += int((file.get_tensor(name).float().numpy().astype(theirs.dtype) != theirs).sum())
            total += theirs.size
    if not total:
        raise RuntimeError(f"{expected}: no matrix in it")
    return wrong, total


def check(tally, w, model, python, args, work):
    kind = model.stem if w.kind == "copy" else f"{w.kind} of {model.stem}" if w.program == "llama" else w.kind
    name, written, floats, expected = f"{'gguf' if w.program == 'llama' else w.program} {kind}", work / "written", work / "floats", work / "expected.npz"
    run(python[w.program], HERE / "writers.py", w.program, w.kind, model if w.program in ("gguf", "llama") else args.floats, written, expected)
    run(args.awq, "convert", written, "-o", floats, "--format", "hf")
    wrong, total = unequal(expected, floats)
    tally.check(wrong == 0, f"{name:34} {total - wrong} of {total} values are the same")
    ids = work / "ids.json"
    begin = write_answer(args.awq, written, ids)
    if model not in args.noise:
        args.noise[model] = noise_of(floats, ids, work)
    bound = w.bound(args.noise[model])
    [ours], [theirs] = awq_logits(args.awq, [(written, ids, None)], work), load(python[w.loader], w.loader, [(written, ids, w.dtype)], work)
    if ours is None or theirs is None:
        return tally.check(False, f"{name:34} {'awq' if ours is None else w.loader} does not run it")
    rel = distance(ours, theirs)
    tally.check(rel <= bound, f"{name:34} awq rel {rel:.1e}, at most {bound:.1e}")
    ok, words = answer(json.loads(ids.read_text()), begin, theirs, bound)
    tally.check(ok, f"{name:34} greedy tokens {words}")
    by = "llama.cpp's quantizer" if w.kind == "copy" else page.versions(python[w.program], PACKAGES[w.program])
    page.add(args.rows, "theirs", by, name, f"{total - wrong} of {total}", f"{rel:.1e}", f"{bound:.1e}", words)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a real model: a GGUF file that llama.cpp's quantizer wrote")
    parser.add_argument("--more", type=pathlib.Path, action="append", default=[], help="further such files, which are read, and quantized again by llama.cpp")
    for program in ("mlx", "autoawq", "llama"):
        parser.add_argument(f"--{program}-python", help="of its environment; without it the program is not run")
    parser.add_argument("--only", help="writers whose name and kind contain this")
    parser.add_argument("--rows", help="gets the rows of docs/compatibility.md (page.py)")
    args = parser.parse_args()
    args.noise = {}  # of a model; that of the first file made of it stands for all
    tally, python = Tally(), {"mlx": args.mlx_python, "autoawq": args.autoawq_python, "llama": args.llama_python}
    python |= dict.fromkeys(("gguf", "compressed-tensors", "transformers", "gptqmodel", "gptq"), sys.executable)
    with tempfile.TemporaryDirectory(prefix="awq-theirs-") as folder:
        args.floats, work = pathlib.Path(folder) / "float", pathlib.Path(folder) / "work"
        run(args.awq, "convert", args.model, "-o", args.floats, "--format", "hf")
        more = [(w, model) for w in WRITERS if w.kind == "copy" or w.program == "llama" for model in args.more]
        for w, model in [(w, args.model) for w in WRITERS if w.program != "llama"] + more:
            if args.only and args.only not in f"{w.program} {w.kind}":
                continue
            if not python[w.program]:
                tally.add("skipped", f"{w.program} {w.kind}: its environment was not given")
                page.not_run(args.rows, "theirs", w.program, w.kind, "not run")
                continue
            work.mkdir()
            check(tally, w, model, python, args, work)
            shutil.rmtree(work)
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed, {tally.count['skipped']} skipped")
    return 0 if tally.count["passed"] and not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
