#!/usr/bin/env python3
"""How long after its start awq serve gives the first token. Prints seconds: until it listens, and until the first token has come.

usage: first_token.py AWQ MODEL [--runs N] [--at-most SECONDS]

Fails where the median is above --at-most.
"""
import argparse
import asyncio
import statistics
import sys
import time

from client import Awq, Failed, ask


def one(awq, model):
    begin = time.perf_counter()
    server = Awq(awq, model)
    body = {"prompt": "The first word is", "max_tokens": 1, "ignore_eos": True, "stream": True}
    reply = asyncio.run(ask(server.port, "/v1/completions", body))
    server.stop()
    if reply.status != 200 or not reply.done:
        raise Failed(f"status {reply.status} {reply.body[:300]}")
    return server.ready, (reply.times or [time.perf_counter()])[0] - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("awq")
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--at-most", type=float)
    args = parser.parse_args()
    runs = [one(args.awq, args.model) for _ in range(args.runs)]
    for ready, first in runs:
        print(f"listens after {ready:.2f} s, first token after {first:.2f} s")
    median = statistics.median(first for _, first in runs)
    print(f"median {median:.2f} s" + (f", at most {args.at_most:g}" if args.at_most else ""))
    return 1 if args.at_most and median > args.at_most else 0


if __name__ == "__main__":
    sys.exit(main())
