#!/usr/bin/env python3
"""Compares awq eval --protocol llama.cpp with llama.cpp itself, on the same GGUF file. Started by run.sh, with the Python of an
environment that has llama-cpp-python.

usage: llama_perplexity.py --awq AWQ --model FILE.gguf --text FILE [--windows N] [--float32]

What its llama-perplexity does is done here with llama.cpp's logits: the text tokenized once, windows of 512 that begin with BOS where
the vocabulary asks for one, predictions 256 to 510; keys and values in float32. llama.cpp rounds activations to 8 bits for products with
quantized weights, which awq does not. With --float32 both read the same weights as a GGUF in float32, made here of the file, where nothing is
rounded: fails where perplexity or its standard error differs in the third decimal. Of other files the difference is printed.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

WINDOW = 512


def as_float32(source, target):
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = 0 if name == "general.file_type" else field.contents()  # all of it is F32
        writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for t in reader.tensors:
        writer.add_tensor(t.name, np.ascontiguousarray(gguf.dequantize(t.data, t.tensor_type).astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def theirs(path, text, most):
    model = llama_cpp.Llama(str(path), n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, type_k=0, type_v=0, flash_attn=False, n_threads=1, n_threads_batch=1, verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(model.model)
    ids = model.tokenize(text, add_bos=True, special=False)
    nll = []
    for i in range(min(most, len(ids) // WINDOW)):
        window = ids[i * WINDOW:(i + 1) * WINDOW]
        if llama_cpp.llama_vocab_get_add_bos(vocab):
            window[0] = model.token_bos()
        model.reset()
        model.eval(window)
        logits = np.asarray(model.scores[:WINDOW], np.float64)[WINDOW // 2:WINDOW - 1]
        top = logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
        nll.append(log_sum - logits[np.arange(len(logits)), window[WINDOW // 2 + 1:]])
    nll = np.concatenate(nll)
    mean = nll.mean()
    return math.exp(mean), math.exp(mean) * math.sqrt(((nll * nll).mean() - mean * mean) / (len(nll) - 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--awq", "--model", "--text"):
        parser.add_argument(name, required=True)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--float32", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="awq-llama-") as work:
        model = as_float32(args.model, pathlib.Path(work) / "float32.gguf") if args.float32 else args.model
        command = [args.awq, "eval", model, "--text", args.text, "--protocol", "llama.cpp", "--windows", args.windows, "--json"]
        r = json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout)
        want, error = theirs(model, pathlib.Path(args.text).read_bytes(), args.windows)
    same = abs(r["perplexity"] - want) < 5e-4 and abs(r["perplexity_standard_error"] - error) < 5e-4
    print(f"{'float32' if args.float32 else pathlib.Path(args.model).name}: {r['windows']} windows, awq {r['perplexity']:.5f} ± {r['perplexity_standard_error']:.5f}, "
          f"llama.cpp {want:.5f} ± {error:.5f}: {'equal' if same else 'different'}")
    sys.exit(0 if same or not args.float32 else 1)


if __name__ == "__main__":
    main()
