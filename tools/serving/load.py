#!/usr/bin/env python3
"""Load on awq serve: many clients at once, of which some leave and some send nonsense. The standard library alone.

usage: load.py AWQ MODEL [--minutes M] [--clients N] [--kv-memory BYTES] [--untimed] [--page docs/serving.md]

First one client alone, then all of them with short prompts: tokens per second. Then for M minutes each client does, again and again, one
of these by chance: an answer to a prompt of random length, a prompt of 4,000 tokens, a greedy request whose answer is known, one that it
leaves, one that is malformed. Fails unless
- every answer is whole, every known answer is the same, and every malformed request gets 400,
- memory in the last fifth is at most 2 % above that after the first, before which the cache of keys and values has been filled,
- all clients together decode at least 4 times as fast as one,
- of the times between tokens of answers during the M minutes, the 99th percentile is at most 3 times the median.
The last two are measured but not required with --untimed: on a machine that does other things they say nothing. --page writes the table.
"""
import argparse
import asyncio
import json
import os
import pathlib
import platform
import random
import re
import statistics
import sys
import time

from client import Awq, Failed, ask, ask_json, memory

TEXT = "The quick brown fox jumps over the lazy dog, and 1234567890 other animals watch it from the hill; nobody knows why."
LONG = 4000  # tokens of a long prompt
KNOWN = 6  # greedy requests with known answers
GROWTH, SPEEDUP, TAIL = 0.02, 4, 3
MALFORMED = [b"{", b"[]", b"\xff\xfe", b'{"prompt": 3}', b'{"prompt": "x", "max_tokens": -1}', b'{"prompt": "x", "temperature": "hot"}',
             b'{"prompt": [-1]}', b'{"prompt": "x", "stream": 1}', b"[" * 100000, b'{"prompt": "x", "max_tokens": 99999999}',
             b'{"prompt": "x", "n": 0}', b'{"messages": []}', b'{"prompt": "x", "logit_bias": {"a": 1}}']


class Load:
    def __init__(self, port, ids, context):
        self.port, self.ids, self.context = port, ids, context
        self.counts = dict.fromkeys(("answers", "long prompts", "known answers", "left", "malformed"), 0)
        self.gaps, self.failures, self.known, self.tokens = [], [], {}, 0

    def prompt(self, rng, length):
        return [rng.choice(self.ids) for _ in range(length)]

    async def answer(self, prompt, tokens, leave_after=None, **more):
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}, **more}
        reply = await ask(self.port, "/v1/completions", body, leave_after=leave_after)
        if leave_after is None and (reply.status != 200 or not reply.done or reply.tokens() != tokens):
            raise Failed(f"{len(prompt)} + {tokens} tokens: status {reply.status}, {reply.tokens()} tokens, done {reply.done} {reply.body[:200]}")
        return reply

    async def one(self, rng):
        """What a client does next: its kind"""
        kind = rng.choices(list(self.counts), (60, 8, 12, 10, 10))[0]
        if kind == "answers":
            reply = await self.answer(self.prompt(rng, rng.randint(1, min(600, self.context // 4))), rng.randint(1, min(200, self.context // 4)),
                                      temperature=rng.choice((0, 1)), seed=rng.randrange(1 << 30), top_p=rng.choice((1, 0.9)))
            self.gaps += reply.gaps()
            self.tokens += reply.tokens()
        elif kind == "long prompts":
            await self.answer(self.prompt(rng, min(LONG, self.context - 64)), 8)
        elif kind == "known answers":
            i = rng.randrange(KNOWN)
            text = (await self.greedy(i)).text
            if text != self.known.setdefault(i, text):
                raise Failed(f"known answer {i} is another one: {text!r}, not {self.known[i]!r}")
        elif kind == "left":
            await self.answer(self.prompt(rng, rng.randint(1, 300)), 200, leave_after=rng.randint(0, 20))
        else:
            body = rng.choice(MALFORMED)
            reply = await ask(self.port, "/v1/completions", body)
            if reply.status != 400:
                raise Failed(f"{body[:60]}: status {reply.status}, expected 400")
        return kind

    def greedy(self, i):
        rng = random.Random(i)
        return self.answer(self.prompt(rng, 20 + 150 * i), 40, temperature=0)

    async def client(self, number, until):
        rng = random.Random(1000 + number)
        while time.perf_counter() < until:
            try:
                self.counts[await self.one(rng)] += 1
            except (Failed, OSError, asyncio.IncompleteReadError, ValueError) as e:
                self.failures.append(f"{type(e).__name__}: {e}")
                if len(self.failures) > 20:
                    return

    async def fill(self):
        """Prompts one after another, until the pages that are kept for later requests take all the room for keys and values"""
        rng, used = random.Random(0), -1.0
        while (now := await self.cache()) > used:
            used = now
            await self.answer(self.prompt(rng, min(LONG, self.context - 64)), 1)

    async def cache(self):
        return float(re.search(r"^vllm:kv_cache_usage_perc\{.*\} (\S+)$", await get(self.port, "/metrics"), re.M)[1])

    async def rate(self, clients, seconds):
        """Tokens per second of so many clients, each with short prompts, from the first token of the last to begin on."""
        async def run(number):
            rng, times = random.Random(number), []
            while time.perf_counter() < until:
                times += (await self.answer(self.prompt(rng, 16), min(128, self.context // 4))).times
            return times
        until = time.perf_counter() + seconds
        times = await asyncio.gather(*(run(n) for n in range(clients)))
        begin, end = max(t[0] for t in times), min(t[-1] for t in times)
        return sum(begin < t <= end for one in times for t in one) / (end - begin)


async def watch(pid, until, samples):
    while time.perf_counter() < until:
        samples.append((time.perf_counter(), memory(pid)))
        await asyncio.sleep(0.25)


def growth(samples, begin, end):
    """How much more memory there is in the last fifth of the time than in the second."""
    def middle(first, last):
        return statistics.median(m for t, m in samples if begin + first * (end - begin) <= t <= begin + last * (end - begin))
    warm = middle(0.2, 0.4)
    return middle(0.8, 1) / warm - 1, warm


async def run(server, args):
    models = json.loads(await get(server.port, "/v1/models"))
    ids = (await ask_json(server.port, "/tokenize", {"prompt": TEXT, "add_special_tokens": False}))["tokens"]
    load = Load(server.port, ids, models["data"][0]["max_model_len"])
    for i in range(KNOWN):
        load.known[i] = (await load.greedy(i)).text
    await load.fill()
    short = min(30.0, 6 * args.minutes)
    single = await load.rate(1, short)
    together = await load.rate(args.clients, short)
    begin, samples = time.perf_counter(), []
    until = begin + 60 * args.minutes
    await asyncio.gather(watch(server.pid, until, samples), *(load.client(n, until) for n in range(args.clients)))
    grown, warm = growth(samples, begin, until)
    gaps = sorted(load.gaps)
    return {"model": models["data"][0]["id"], "clients": args.clients, "minutes": args.minutes, "counts": load.counts, "failures": load.failures,
            "tokens": load.tokens, "single": single, "together": together, "memory": warm, "growth": grown, "megabytes": [round(m / 1e6, 1) for _, m in samples[::max(1, len(samples) // 20)]],
            "median_ms": 1e3 * statistics.median(gaps), "p99_ms": 1e3 * gaps[int(0.99 * len(gaps))]}


async def get(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return text.decode()


def checks(r):
    """(what, measured, bound, whether it holds, whether it is a matter of time)"""
    tail, speedup = r["p99_ms"] / r["median_ms"], r["together"] / r["single"]
    return [("requests that failed", f"{len(r['failures'])} of {sum(r['counts'].values()):,}", "0", not r["failures"], False),
            ("memory after warm-up", f"{r['memory'] / 1e6:.0f} MB, {100 * r['growth']:+.2f} %", f"+{100 * GROWTH:.0f} %", r["growth"] <= GROWTH, False),
            (f"{r['clients']} clients' tokens per second, and one's", f"{r['together']:.0f} / {r['single']:.0f} = {speedup:.1f}", f"{SPEEDUP}", speedup >= SPEEDUP, True),
            ("time between tokens, p99 and median", f"{r['p99_ms']:.1f} / {r['median_ms']:.1f} ms = {tail:.1f}", f"{TAIL}", tail <= TAIL, True)]


def cpu_name():
    info = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else []
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} CPUs"


def table(r):
    counts = ", ".join(f"{n:,} {kind}" for kind, n in r["counts"].items())
    lines = [f"{r['clients']} clients for {r['minutes']:g} minutes, `{r['model']}`, {cpu_name()}: {counts}.", "", "| | measured | bound |", "|---|---|---|"]
    return "\n".join(lines + [f"| {what} | {measured} | {bound} |" for what, measured, bound, *_ in checks(r)])


def write_page(path, text):
    page = path.read_text()
    begin, end = "<!-- load.py: begin -->\n", "<!-- load.py: end -->"
    if begin not in page or end not in page:
        raise SystemExit(f"{path}: expected a line {begin.strip()} and a line {end}")
    path.write_text(page.partition(begin)[0] + begin + text + "\n" + end + page.partition(end)[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("awq")
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kv-memory", default="400M", help="of the server; so much is filled with prompts first")
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--page", type=pathlib.Path)
    args = parser.parse_args()
    server = Awq(args.awq, args.model, "--kv-memory", args.kv_memory)
    try:
        result = asyncio.run(run(server, args))
    finally:
        status, said = server.stop()
    print(json.dumps(result, indent=1))
    print(table(result))
    bad = [what for what, _, _, holds, timed in checks(result) if not holds and not (timed and args.untimed)]
    bad += [f"awq serve ended with {status}: {said[-500:]}"] * (status != 0) + [f"awq serve said: {said[-500:]}"] * (status == 0 and said != "")
    bad += [f"no {kind}" for kind, n in result["counts"].items() if not n]
    if args.page and not bad:
        write_page(args.page, table(result))
    print(*[f"FAILED: {b}" for b in bad], "passed" if not bad else "failed", sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
