#!/usr/bin/env python3
"""Times a task in awq eval beside lm-eval with transformers in float32, the same items in turns on an otherwise idle machine.

usage: lm_eval_speed.py --awq AWQ --quantized FOLDER --model FLOAT_FOLDER --data FOLDER [--task hellaswag] [--limit N] [--batches 8,32] [--turns N]

Runs in the environment of requirements-lmeval.txt. lm-eval is timed without loading its model and its data, awq with both. Fails where awq is
not five times as fast as the best of lm-eval's batch sizes.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from lm_eval.models.huggingface import HFLM

import lm_eval_reference as reference

AIM = 5


def seconds(work):
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser()
    for name in ("awq", "quantized", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--task", default="hellaswag")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--batches", default="8,32")
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    args.shots = None
    with tempfile.TemporaryDirectory(prefix="awq-lm-eval-") as folder:
        file, docs, definition, changes = reference.documents(args.task, args.data, pathlib.Path(folder))
        command = [args.awq, "eval", args.quantized, "--task", f"{args.task}={file}", "--limit", str(args.limit), "--json"]
        times = {}
        for _ in range(args.turns):
            times.setdefault("awq", []).append(seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)))
            for batch in map(int, args.batches.split(",")):
                lm = HFLM(pretrained=args.model, dtype="float32", device="cpu", batch_size=batch)
                with tempfile.TemporaryDirectory(dir=folder) as new:  # what was asked before is remembered in a folder
                    took = seconds(lambda: reference.theirs(lm, args.task, docs, definition, changes, args, pathlib.Path(new)))
                times.setdefault(f"lm-eval, batch {batch}", []).append(took)
    ours, best = min(times["awq"]), min(min(t) for name, t in times.items() if name != "awq")
    print(json.dumps({"task": args.task, "items": args.limit, "seconds": times, "times_as_fast": best / ours}))
    return best < AIM * ours


if __name__ == "__main__":
    sys.exit(main())
