#!/usr/bin/env python3
"""The whole suite for SmolLM2-135M, original, rounded, AWQ and awq+, as one table between two marks of README.md.

usage: quality.py --awq AWQ --data FOLDER [--limit N] [--windows N] [--work FOLDER] [--into FILE.md]

FOLDER of --data has zeroshot/ and text/wiki.test.raw; a task whose file is missing is left out, and said so. What is made stays in
--work, and a run that ended early goes on there: the models, and every item's scores. Without --into the table is printed.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- suite: written by tools/quality.py -->", "<!-- end of the suite -->"
VERSIONS = {"rounding": ["--method", "rtn"], "awq": ["--method", "awq"], "awq+": []}
NAMES = {"original.gguf": "original", "rounding": "rounding", "awq": "AWQ", "awq+": "`awq+`"}
ABOUT = "The suite ([docs/evaluation.md](docs/evaluation.md)) on SmolLM2-135M-Instruct, groups of 64, calibrated on its own text:\n\n"
TASKS = {"hellaswag": "hellaswag_val_full.txt", "piqa": "piqa_validation.jsonl", "winogrande": "winogrande_xl_validation.jsonl",
         "arc_easy": "arc_easy_test.jsonl", "arc_challenge": "arc_challenge_test.jsonl", "lambada_openai": "lambada_openai.jsonl"}


def run(work, *command):
    print("$", *command, file=sys.stderr, flush=True)
    return subprocess.run(list(map(str, command)), cwd=work, check=True, stdout=subprocess.PIPE, text=True).stdout


def make_models(awq, work):
    original = work / "original.gguf"
    if not original.exists():
        original.symlink_to(run(work, HERE / "fetch_model.py", "smollm2-135m").strip())
    for name, options in VERSIONS.items():
        if not (work / name).exists():
            going = ["--resume"] if (work / f"{name}.awq-job").exists() else []
            run(work, awq, "quantize", "original.gguf", "-o", name, *options, "--answers", 0, *going)


def task_options(data):
    options = []
    for name, file in TASKS.items():
        if (data / "zeroshot" / file).exists():
            options += ["--task", f"{name}={data / 'zeroshot' / file}"]
        else:
            print(f"quality: {name} is left out: there is no {data / 'zeroshot' / file}", file=sys.stderr)
    return options


def compare(args):
    samples = args.work / "samples.jsonl"  # of any --limit: those that are there are not scored again
    command = [args.awq, "compare", "original.gguf", *VERSIONS, "--text", args.data / "text" / "wiki.test.raw", "--windows", args.windows,
               *task_options(args.data), "--limit", args.limit, "--save-samples", samples.name, *(["--resume"] if samples.exists() else []), "--json"]
    return json.loads(run(args.work, *command))


def better(model, metric):
    """Than rounding, by more than chance."""
    return any(d["metric"] == metric and d["against"] == "rounding" and d["better"] and d["p"] < 0.05 for d in model["differences"])


def cell(value, error, digits, bold, scale=1, unit=""):
    text = f"{scale * value:.{digits}f} ± {scale * error:.{digits}f}{unit}"
    return f"**{text}**" if bold else text


def text_rows(models):
    nll = "negative log-likelihood"
    yield ["WikiText-2, perplexity", *(cell(m["perplexity"], m["perplexity_standard_error"], 2, better(m, nll)) for m in models)]
    yield ["KL to the original", *("-" if "kl" not in m else cell(m["kl"], m["kl_standard_error"], 4, better(m, "KL")) for m in models)]
    yield ["top-1 agreement", *("-" if "kl" not in m else cell(m["top1"], m["top1_standard_error"], 1, False, 100, " %") for m in models)]


def task_rows(models):
    for i, task in enumerate(models[0]["tasks"]):
        for metric in task["metrics"]:
            row = [f"{task['task']}, {metric}, {task['items']} items"]
            for m in models:
                v = m["tasks"][i]["metrics"][metric]
                share = metric != "perplexity"
                bold = better(m, f"{task['task']} {metric if share else 'log-likelihood'}")
                row.append(cell(v["value"], v["standard_error"], 1 if share else 2, bold, 100 if share else 1, " %" if share else ""))
            yield row


def table(models):
    rows = [["", *(NAMES[m["model"]] for m in models)], ["---"] * (1 + len(models)),
            ["bits per weight", *(f"{m['bits_per_weight']:.2f}" for m in models)], *text_rows(models), *task_rows(models)]
    return "".join("| " + " | ".join(r) + " |\n" for r in rows)


def words(models):
    return (f"\nThe first {models[0]['windows']} windows of {models[0]['window']:,} tokens of WikiText-2's test text, and the first items of each task, no examples. Bits per weight count the embedding: 8 bits of the original, 16 of the others. ± is the standard error. "
            "Bold: better than rounding on the same windows or items\n(paired bootstrap, p below 0.05; of KL and perplexity less is better). Made by `tools/quality.py`, table and all.\n")


def put(path, text):
    page = path.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        sys.exit(f"quality: {path}: expected the marks {BEGIN} and {END} once each, in this order")
    before, rest = page.split(BEGIN)
    path.write_text(before + BEGIN + "\n\n" + text + "\n" + END + rest.split(END)[1], encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", type=lambda p: pathlib.Path(p).resolve(), required=True)
    parser.add_argument("--data", type=lambda p: pathlib.Path(p).resolve(), required=True)
    parser.add_argument("--limit", type=int, default=0, help="items of each task; 0: all")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "awq" / "quality")
    parser.add_argument("--into", type=pathlib.Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    make_models(args.awq, args.work)
    models = compare(args)
    (args.work / "suite.json").write_text(json.dumps(models, indent=1))
    text = ABOUT + table(models) + words(models)
    if args.into:
        put(args.into, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
