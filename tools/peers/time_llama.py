#!/usr/bin/env python3
"""Time llama.cpp, by its C functions: no sampling and no Python between the tokens but a call. Prints one JSON object."""
import ctypes
import json
import sys

import llama_cpp as llama
import numpy as np

from timing import PROMPT, STEPS, arguments, rates, seconds, tokens_of

args = arguments(__doc__, flash=("on", "off"), ubatch=("512", "2048"), extra=("on", "off"))
kind, count = args.measure
LOG = []


@llama.llama_log_callback
def keep_log(_, text, __):
    LOG.append(text.decode(errors="replace"))


def load():
    params = llama.llama_model_default_params()
    params.use_extra_bufts = args.extra == "on"  # AMX and repacked weights
    model = llama.llama_model_load_from_file(args.model.encode(), params)
    return model or sys.exit("".join(LOG))


def context(model):
    params = llama.llama_context_default_params()
    params.n_ctx = count if kind == "prefill" else count * 128  # 128: of each sequence
    params.n_batch = params.n_ubatch = int(args.ubatch)
    params.n_seq_max = 1 if kind == "prefill" else count
    params.n_threads = params.n_threads_batch = args.threads
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if args.flash == "on" else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama.llama_init_from_model(model, params) or sys.exit("".join(LOG))


def fill(batch, tokens, positions, sequences, first_wanted=0):
    """Logits are computed from token first_wanted on."""
    batch.n_tokens = len(tokens)
    for i, (token, position, sequence) in enumerate(zip(tokens, positions, sequences, strict=True)):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, position, 1, sequence, i >= first_wanted


def decode(ctx, batch):
    if status := llama.llama_decode(ctx, batch):
        sys.exit(f"llama_decode gave {status}\n" + "".join(LOG))


def prefill(ctx, batch, ids, sequence=0):
    """In batches of --ubatch tokens; logits of the last token."""
    size = int(args.ubatch)
    for first in range(0, len(ids), size):
        part = ids[first:first + size]
        fill(batch, part, range(first, first + len(part)), [sequence] * len(part), len(ids) - 1 - first)
        decode(ctx, batch)
    llama.llama_synchronize(ctx)


def steps(ctx, batch, ids):
    for step in range(STEPS):
        fill(batch, [int(i) for i in ids[step]], [PROMPT + step] * count, range(count))
        decode(ctx, batch)
        llama.llama_synchronize(ctx)


def timed_run(ctx, batch, vocab):
    ids = np.random.default_rng(1).integers(3, vocab, max(count, count * STEPS)).tolist()
    memory = llama.llama_get_memory(ctx)

    def run_prefill():
        llama.llama_memory_clear(memory, False)
        return seconds(lambda: prefill(ctx, batch, ids[:count]))

    def run_decode():
        llama.llama_memory_clear(memory, False)
        for sequence in range(count):
            prefill(ctx, batch, ids[:PROMPT], sequence)
        return seconds(lambda: steps(ctx, batch, np.reshape(ids, (STEPS, count))))

    return run_prefill if kind == "prefill" else run_decode


def main():
    llama.llama_log_set(keep_log, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = load()
    ctx = context(model)
    batch = llama.llama_batch_init(max(int(args.ubatch), count), 0, 1)
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    out = rates(tokens_of(kind, count), timed_run(ctx, batch, vocab))
    logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(ctx, -1), (vocab,))
    if not np.isfinite(logits).all() or logits.std() == 0:
        sys.exit(f"logits have mean {logits.mean()} and deviation {logits.std()}")
    buffers = [line.strip() for line in LOG if "model buffer size" in line]
    print(json.dumps({"tokens_per_second": out, "version": f"llama-cpp-python {llama.__version__}", "build": llama.llama_print_system_info().decode(),
                      "weights": buffers}))


main()
