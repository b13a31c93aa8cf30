#!/usr/bin/env python3
"""awq serve beside llama-cpp-python's server and vLLM's, on one machine with one load generator (tools/serving/client.py). Started by
serve.sh.

One server runs at a time, and they take turns: A B C A B C. In each turn the server is started, and measured are
- start: seconds from the process's start to its first token;
- 1, 4 and 16 clients, each with one request after another (prompts of --prompt words, answers of --answer): tokens per second of all, and the
  median time to a request's first token;
- prefix: the time to the first token of a prompt of --prefix words and of another with the same beginning, when nothing else runs;
- memory: the most that the server's processes had in memory, sampled.
Prompts are common words by chance, of about a token each, and differ from request to request. llama.cpp gets the same 4-bit weights as GGUF
(Q4_1). Its server has no `ignore_eos`, and a bias against the end would make it sample in Python: its answers may end early,
and the parts that came are counted. The table has medians over the turns.
"""
import argparse
import asyncio
import json
import os
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "serving"))
from client import Failed, ask, memory  # noqa: E402

CLIENTS = (1, 4, 16)
START = 600.0  # seconds that a server has to start
VLLM = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false"}


class Server:
    """command(port): argv; fields: of a request, so that no answer ends early"""

    def __init__(self, name, command, variables=(), fields=()):
        self.name, self.command, self.variables, self.fields = name, command, dict(variables), dict(fields)

    def start(self, port, log):
        argv = [*shlex.split(os.environ.get("PEERS_WRAP", "")), *map(str, self.command(port))]
        self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.variables}, start_new_session=True)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()


def servers(args):
    out = [Server("awq serve", lambda port: [args.awq, "serve", args.model, "--port", port, "--no-log", "--threads", args.threads, "--name", "m"], fields={"ignore_eos": True})]
    if args.llama_python:
        out.append(Server("llama-cpp-python", lambda port: [
            args.llama_python, "-m", "llama_cpp.server", "--model", args.gguf, "--model_alias", "m", "--port", port, "--n_ctx", args.context, "--n_threads", args.threads,
            "--n_threads_batch", args.threads, "--flash_attn", "true", "--verbose", "false",
            "--interrupt_requests", "false"]))
    if args.vllm_python:
        threads = ",".join(map(str, sorted(os.sched_getaffinity(0))[:args.threads]))
        out.append(Server("vLLM", lambda port: [
            args.vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--model", args.model, "--served-model-name", "m", "--port", port, "--dtype", "bfloat16", "--enforce-eager",
            "--max-model-len", args.context], {**VLLM, "VLLM_CPU_OMP_THREADS_BIND": threads, "OMP_NUM_THREADS": str(args.threads)}, {"ignore_eos": True}))
    return [s for s in out if not args.only or any(word in s.name for word in args.only)]


class Turn:
    def __init__(self, server, port, args, seed):
        self.server, self.port, self.args, self.random = server, port, args, random.Random(seed)

    async def answer(self, prompt, tokens):
        body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, **self.server.fields}
        reply = await ask(self.port, "/v1/completions", body)
        if reply.status != 200 or not reply.times:
            raise Failed(f"{self.server.name}: status {reply.status} {reply.body[:300]}")
        return reply

    async def first(self, begin):
        """Seconds until the first token that it gives at all"""
        while time.perf_counter() - begin < START:
            if self.server.process.poll() is not None:
                raise Failed(f"{self.server.name} ended with {self.server.process.returncode}")
            try:
                return (await self.answer(self.words(4), 1)).times[0] - begin
            except (OSError, asyncio.IncompleteReadError, Failed):
                await asyncio.sleep(0.02)
        raise Failed(f"{self.server.name} does not answer")

    def words(self, count):
        return " ".join(self.random.choice(WORDS) for _ in range(count))

    async def load(self, clients):
        """Tokens per second of all, and the median time to the first"""
        async def run(requests):
            return [await self.answer(self.words(self.args.prompt), self.args.answer) for _ in range(requests)]
        each = max(1, self.args.requests // clients)
        begin = time.perf_counter()
        replies = sum(await asyncio.gather(*(run(each) for _ in range(clients))), [])
        seconds = time.perf_counter() - begin
        tokens = len(replies) * self.args.answer if self.server.fields else sum(len(r.times) for r in replies)
        return tokens / seconds, statistics.median(r.first_token() for r in replies)

    async def prefix(self):
        common = self.words(self.args.prefix)
        return [(await self.answer(f"{common} {self.words(8)}", 4)).first_token() for _ in range(2)]

    async def measure(self, begin):
        out = {"start": await self.first(begin)}
        await self.load(1)  # what is compiled or allocated at the first request is not the load's
        for clients in self.args.clients:
            out[f"rate {clients}"], out[f"first {clients}"] = await self.load(clients)
        out["prefix 1"], out["prefix 2"] = await self.prefix()
        return out

    async def watched(self, begin):
        peak = 0

        async def watch():
            nonlocal peak
            while True:
                peak = max(peak, memory(self.server.process.pid))
                await asyncio.sleep(0.1)
        task = asyncio.create_task(watch())
        try:
            out = await self.measure(begin)
        finally:
            task.cancel()
        return {**out, "memory": peak}


# Of one token each in most vocabularies, with the space before them.
WORDS = ("time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program "
         "question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head "
         "house service friend father power hour game line end member law car city community name president team minute idea body information back parent face others level").split()


def run_turn(server, args, seed):
    port = args.port + seed % 50
    with open(args.logs / f"{server.name.replace(' ', '-')}.log", "a") as log:
        begin = time.perf_counter()
        server.start(port, log)
        try:
            out = asyncio.run(Turn(server, port, args, seed).watched(begin))
        finally:
            server.stop()
    print(f"{server.name:17}", "  ".join(f"{k} {v:.4g}" for k, v in out.items()), file=sys.stderr, flush=True)
    return out


def table(results, args):
    names = list(results)
    rows = [("first token after the start, s", "start", 1, 2)]
    for n in args.clients:
        rows += [(f"{n} client{'s' * (n > 1)}: tokens per second", f"rate {n}", 1, 1), (f"{n} client{'s' * (n > 1)}: first token, ms", f"first {n}", 1e3, 1)]
    rows += [(f"prompt of {args.prefix} words: first token, ms", "prefix 1", 1e3, 0), ("the same beginning again, ms", "prefix 2", 1e3, 1), ("most memory, MB", "memory", 1e-6, 0)]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, key, factor, digits in rows:
        cells = [f"{factor * statistics.median(turn[key] for turn in results[name]):.{digits}f}" for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def self_test():
    args = parse(["--awq", "a", "--model", ".", "--logs", "."])
    turn = {"start": 1.5, "prefix 1": 0.2, "prefix 2": 0.02, "memory": 2e8} | {f"{k} {n}": 3 * n for k in ("rate", "first") for n in CLIENTS}
    text = table({"awq serve": [turn, turn], "vLLM": [turn]}, args)
    assert text.count("\n") == 11 and "| 16 clients: tokens per second | 48.0 | 48.0 |" in text and "| most memory, MB | 200 | 200 |" in text, text
    print("compare_servers.py: passed")


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="an AutoAWQ folder")
    parser.add_argument("--gguf", type=pathlib.Path, help="the same model as GGUF")
    parser.add_argument("--llama-python")
    parser.add_argument("--vllm-python")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--clients", type=lambda s: [int(n) for n in s.split(",")], default=list(CLIENTS))
    parser.add_argument("--requests", type=int, default=64, help="of all clients together")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--prefix", type=int, default=2048)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8350)
    parser.add_argument("--only", type=lambda s: s.split(","), help="only servers whose names hold one of these words")
    parser.add_argument("--logs", type=pathlib.Path, required=True, help="a folder for what the servers say")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    args = parse(sys.argv[1:])
    found = servers(args)
    results = {s.name: [] for s in found}
    for turn in range(args.rounds):
        for i, server in enumerate(found):
            results[server.name].append(run_turn(server, args, 7 * turn + i))
    print(json.dumps(results, indent=1) if args.json else table(results, args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
