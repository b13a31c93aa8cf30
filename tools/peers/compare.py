#!/usr/bin/env python3
"""awq beside llama.cpp and vLLM on one machine: tokens per second, interleaved. Started by run.sh.

Measures: "prefill:N", a prompt of N tokens; "decode:N", 64 tokens for each of N sequences after prompts of 16. One program runs at
a time, in a process of its own which loads the model, runs once without counting and then up to five times; its median counts.
Each program's settings are tried once, the fastest is kept, and then the programs take turns: A B C A B C. With PEERS_WRAP
in the environment, each process is started by that command (say "taskset -c 0,1", or one that waits until the machine is idle).
"""
import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

import timing

HERE = pathlib.Path(__file__).resolve().parent
LLAMA_MEASURES = ("prefill:512", "prefill:2048", "decode:1")
VLLM_MEASURES = ("prefill:512", "decode:1", "decode:16")


@dataclasses.dataclass
class Program:
    """command(measure, threads, setting): argv that prints JSON; settings(measure): what to try; rate(JSON): tokens per second."""
    name: str
    model: str
    measures: tuple
    command: object
    settings: object = lambda measure: [()]
    rate: object = lambda out: statistics.median(out["tokens_per_second"])


def products(**choices):
    """Every combination, as options"""
    return [tuple(itertools.chain(*zip(["--" + c for c in choices], values, strict=True))) for values in itertools.product(*choices.values())]


def awq(binary, model, folder, name="awq", activations=("int16", "bf16")):
    """activations: what is tried, like a setting"""
    def command(measure, threads, setting):
        kind, count = timing.measure(measure)
        work = ["--prefill", count, "--decode", 1] if kind == "prefill" else ["--prefill", 1, "--decode", timing.STEPS, "--batch", count]
        return [binary, "bench", folder, *work, "--context", timing.PROMPT, "--threads", threads, *setting, "--json"]

    # The last result is the decode measure, the first the prefill measure: the other is the shortest there is.
    def rate(out):
        longest = max(out["results"], key=lambda r: r["tokens"])
        return longest["tokens_per_second"]["median"]

    return Program(name, model, tuple(dict.fromkeys(LLAMA_MEASURES + VLLM_MEASURES)), command, lambda measure: products(activations=activations), rate)


def llama(python, quant, heads, folder):
    """heads: types of the head of the same size, tried like a setting"""
    def settings(measure):
        if measure.startswith("decode"):
            return products(flash=("on", "off"), head=heads)
        return products(flash=("on", "off"), ubatch=("512",) if measure == "prefill:512" else ("512", "2048"), head=heads[:1])

    def command(measure, threads, setting):
        *options, _, head = setting
        return [python, HERE / "time_llama.py", folder / f"{quant}-{head}.gguf", "--threads", threads, "--measure", measure, *options]

    return Program(f"llama.cpp {quant.upper()}, {heads[0]} head", "llama-3.2-1b", LLAMA_MEASURES, command, settings)


def vllm(python, model, folder):
    def command(measure, threads, setting):
        return [python, HERE / "time_vllm.py", folder, "--threads", threads, "--measure", measure, *setting]

    # With AMX, which multiplies no float16, that type gave a ninth of bfloat16's prefill and a quarter of its decode.
    amx = "amx_bf16" in cpu()["features"]
    settings = products(dtype=("bfloat16",), w4a8=("on", "off")) if amx else products(dtype=("bfloat16", "float16"))
    return Program("vLLM", model, VLLM_MEASURES, command, lambda measure: settings)


def programs(args):
    out = []
    folders = {"llama-3.2-1b": args.shape and args.shape / "awq", "smollm2": args.smollm2}
    for model, folder in folders.items():
        if folder and args.awq:
            # The others round activations to 8 bits, awq only when asked: a row of its own.
            out += [awq(args.awq, model, folder), awq(args.awq, model, folder, "awq, int8 activations", ("int8",))]
        if folder and args.vllm_python:
            out.append(vllm(args.vllm_python, model, folder))
    if args.shape and args.llama_python:
        out += [llama(args.llama_python, q, heads, args.shape) for heads in (("bf16", "f16"), ("q6_k",)) for q in ("q4_0", "q4_1")]
    return [p for p in out if not args.only or any(word in p.name for word in args.only)]


def start(program, measure, threads, setting):
    """(tokens per second, JSON)"""
    argv = [*shlex.split(os.environ.get("PEERS_WRAP", "")), *map(str, program.command(measure, threads, setting))]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(argv)}: exit status {done.returncode}\n{done.stderr[-4000:]}")
    out = json.loads(done.stdout)
    rate = program.rate(out)
    print(f"  {program.model:13} {measure:13} {threads} threads  {program.name:28} {rate:9.2f}  {' '.join(setting)}", file=sys.stderr, flush=True)
    return rate, out


def best_setting(program, measure, threads):
    settings = program.settings(measure)
    if len(settings) == 1:
        return settings[0]
    return max(settings, key=lambda s: start(program, measure, threads, s)[0])


def compare(group, measure, threads, rounds):
    """Rows of programs that take turns"""
    settings = [best_setting(p, measure, threads) for p in group]
    turns = [[start(p, measure, threads, s) for p, s in zip(group, settings, strict=True)] for _ in range(rounds)]
    rows = []
    for program, setting, runs in zip(group, settings, zip(*turns, strict=True), strict=True):
        rates = [rate for rate, _ in runs]
        details = {k: v for k, v in runs[0][1].items() if k not in ("tokens_per_second", "results")}
        rows.append({"model": program.model, "measure": measure, "threads": threads, "program": program.name, "median": statistics.median(rates),
                     "lowest": min(rates), "highest": max(rates), "setting": " ".join(setting), "rates": rates, "details": details})
    return add_ratios(rows)


def add_ratios(rows):
    """ratio: awq's median by the program's"""
    ours = [r["median"] for r in rows if r["program"] == "awq"]
    for row in rows:
        row["ratio"] = ours[0] / row["median"] if ours else None
    return rows


def cpu():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    flags = [f for f in fields.get("flags", "").split() if f.startswith(("avx", "amx")) or f == "fma"]
    return {"name": fields.get("model name", platform.processor()), "family": fields.get("cpu family"), "model": fields.get("model"),
            "cpus": len(os.sched_getaffinity(0)), "features": flags}


def print_table(machine, rows):
    print(f"{machine['name']}, family {machine['family']} model {machine['model']}, {machine['cpus']} CPUs: {' '.join(machine['features'])}")
    versions = {r["details"]["version"] for r in rows if "version" in r["details"]}
    print(", ".join([*(["awq " + machine["awq"]] if "awq" in machine else []), *sorted(versions)]))
    print(f"\n{'model':13} {'measure':13} threads  {'program':28} {'tokens/s (min-max)':>26} {'awq is':>8}  setting")
    for r in rows:
        spread = f"{r['median']:.1f} ({r['lowest']:.1f}-{r['highest']:.1f})"
        ratio = f"{r['ratio']:.2f}x" if r["ratio"] else "-"
        print(f"{r['model']:13} {r['measure']:13} {r['threads']:>7}  {r['program']:28} {spread:>26} {ratio:>8}  {r['setting']}")


def self_test():
    """What can be tested without the programs"""
    assert timing.measure("decode:16") == ("decode", 16) and timing.tokens_of("decode", 16) == 1024 and timing.tokens_of("prefill", 512) == 512
    for wrong in ("decode", "decode:0", "prefill:-1", "speed:1"):
        try:
            timing.measure(wrong)
        except argparse.ArgumentTypeError:
            continue
        raise AssertionError(wrong)
    assert timing.rates(10, iter([9, 5, 2, 2]).__next__) == [2, 5, 5]  # the first is not counted, none begins after 8 s
    args = parse(["--awq", "a", "--llama-python", "l", "--vllm-python", "v", "--shape", "s", "--smollm2", "m"])
    by_name = {(p.name, p.model): p for p in programs(args)}
    assert len(by_name) == 10, by_name
    q4_1 = by_name["llama.cpp Q4_1, bf16 head", "llama-3.2-1b"]
    assert len(q4_1.settings("decode:1")) == 4 and len(q4_1.settings("prefill:512")) == 2 and len(q4_1.settings("prefill:2048")) == 4
    assert q4_1.command("decode:1", 2, ("--flash", "on", "--head", "f16"))[2:] == [
        pathlib.Path("s/q4_1-f16.gguf"), "--threads", 2, "--measure", "decode:1", "--flash", "on"]
    ours = by_name["awq", "smollm2"]
    results = [{"tokens": 1, "tokens_per_second": {"median": 3}}, {"tokens": 64, "tokens_per_second": {"median": 7}}]
    assert ours.rate({"results": results}) == 7 and ours.command("decode:16", 1, ())[3:9] == ["--prefill", 1, "--decode", 64, "--batch", 16]
    rows = add_ratios([{"program": "awq", "median": 30}, {"program": "vLLM", "median": 20}])
    assert [r["ratio"] for r in rows] == [1, 1.5] and add_ratios([{"program": "vLLM", "median": 20}])[0]["ratio"] is None
    print("compare.py: passed")


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", help="the program; without it only the others are timed")
    parser.add_argument("--llama-python", help="python of llama.cpp's environment")
    parser.add_argument("--vllm-python", help="python of vLLM's environment")
    parser.add_argument("--shape", type=pathlib.Path, help="the folder that models.py wrote for llama-3.2-1b")
    parser.add_argument("--smollm2", type=pathlib.Path, help="an AutoAWQ folder of SmolLM2-135M")
    parser.add_argument("--threads", type=lambda s: [int(n) for n in s.split(",")], default=[1, 2])
    parser.add_argument("--measures", type=lambda s: s.split(","), help="only these")
    parser.add_argument("--only", type=lambda s: s.split(","), help="only programs whose names hold one of these words")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    return parser.parse_args(argv)


def main():
    args = parse(sys.argv[1:])
    if args.self_test:
        return self_test()
    found = programs(args)
    if not found:
        sys.exit("no program and model to time: give --shape or --smollm2, and at least one of --awq, --llama-python, --vllm-python")
    rows = []
    for model, measure, threads in itertools.product(("llama-3.2-1b", "smollm2"), dict.fromkeys(LLAMA_MEASURES + VLLM_MEASURES), args.threads):
        group = [p for p in found if p.model == model and measure in p.measures]
        if args.measures and measure not in args.measures:
            continue
        if any(not p.name.startswith("awq") for p in group):
            rows += compare(group, measure, threads, args.rounds)
    machine = cpu()
    if args.awq:
        machine["awq"] = subprocess.run([args.awq, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if args.json:
        print(json.dumps({"cpu": machine, "rows": rows}, indent=1))
    else:
        print_table(machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
