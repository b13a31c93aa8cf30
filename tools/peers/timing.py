"""What the programs have in common: measures "prefill:TOKENS" and "decode:SEQUENCES", and how one is timed."""
import argparse
import time

PROMPT, STEPS = 16, 64  # of a decode measure
RUNS, SECONDS = 5, 8.0  # at most so many runs, and none begins after so long


def measure(text):
    kind, _, count = text.partition(":")
    if kind not in ("prefill", "decode") or not count.isdigit() or int(count) < 1:
        raise argparse.ArgumentTypeError(f'measure "{text}", expected prefill:TOKENS or decode:SEQUENCES')
    return kind, int(count)


def tokens_of(kind, count):
    """How many tokens one run of a measure computes."""
    return count if kind == "prefill" else count * STEPS


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def rates(tokens, run):
    """Tokens per second of some runs after one that is not counted; run() returns its seconds."""
    run()
    taken = []
    while len(taken) < RUNS and sum(taken) < SECONDS:
        taken.append(run())
    return [tokens / t for t in taken]


def arguments(description, **switches):
    """MODEL, --threads and --measure, and switches of one program: name=(choices)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--measure", type=measure, required=True, help="prefill:TOKENS or decode:SEQUENCES")
    for name, choices in switches.items():
        parser.add_argument("--" + name, choices=choices, default=choices[0])
    return parser.parse_args()
