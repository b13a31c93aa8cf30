#!/usr/bin/env python3
"""How much memory loading a 4-bit model takes.

usage: load_test.py AWQ GOLDEN_MODELS

Peak memory beyond that of a tiny model may be the packed weights, as `awq inspect` announces them from the headers, and
one more tensor of the file, the largest. Four blocks of 61 MB beside an embedding of 34 MB: a block unpacked is 117 MB, the
file's own pages are 312 MB, and a matrix unpacked, 34 MB, comes on top of the 6 to 19 MB measured (buffers of two threads).
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
WIDTH, HIDDEN, BLOCKS, GROUP, VOCAB = 2048, 16384, 4, 128, 8192


def matrix(name, rows, cols):
    """AutoAWQ's three tensors: name, type, shape, bytes of which the data repeats."""
    yield name + ".qweight", "I32", [cols, rows // 8], os.urandom(1 << 20)
    yield name + ".qzeros", "I32", [cols // GROUP, rows // 8], b"\x77"
    yield name + ".scales", "F16", [cols // GROUP, rows], b"\x00\x18"


def tensors():
    yield "model.embed_tokens.weight", "F16", [VOCAB, WIDTH], b"\x00\x28"
    for block in range(BLOCKS):
        name = f"model.layers.{block}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield name + norm + ".weight", "F16", [WIDTH], b"\x00\x3c"
        for part in "qkvo":
            yield from matrix(name + f"self_attn.{part}_proj", WIDTH, WIDTH)
        for part in ("gate", "up"):
            yield from matrix(name + f"mlp.{part}_proj", HIDDEN, WIDTH)
        yield from matrix(name + "mlp.down_proj", WIDTH, HIDDEN)
    yield "model.norm.weight", "F16", [WIDTH], b"\x00\x3c"
    yield "lm_head.weight", "F16", [VOCAB, WIDTH], b"\x00\x28"


def size(dtype, shape):
    return {"I32": 4, "F16": 2}[dtype] * shape[0] * (shape[1] if len(shape) > 1 else 1)


def write_model(folder):
    """Returns the bytes of the largest tensor."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": BLOCKS, "vocab_size": VOCAB, "num_attention_heads": 16,
               "num_key_value_heads": 16, "torch_dtype": "float16",
               "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}}
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, dtype, shape, _ in tensors():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size(dtype, shape)]}
        at += size(dtype, shape)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, dtype, shape, unit in tensors():
            file.write(unit * (size(dtype, shape) // len(unit)))
    return max(e["data_offsets"][1] - e["data_offsets"][0] for e in header.values())


def peak_of_one_token(model, threads):
    """Peak resident bytes of a process that has loaded the model and computed an answer of one token, asked while it waits for
    the next message: what the system tells after its end is never less than this interpreter's own."""
    command = [AWQ, "chat", model, "-n", "1", "--threads", str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        child.stdin.write("a\n")
        child.stdin.flush()
        for line in child.stderr:
            if line.startswith("["):  # the statistics of the answer
                status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
                child.stdin.close()
                return 1024 * int(status.split("VmHWM:")[1].split()[0])
    raise AssertionError(f"{command} ended without an answer")


class Load(unittest.TestCase):
    def test_peak_memory(self):
        work = pathlib.Path(tempfile.mkdtemp(prefix="awq-load-"))
        self.addCleanup(shutil.rmtree, work)
        small, large = (tiny.make(GOLDEN, "llama", work / name) for name in ("small", "large"))
        for folder in (small, large):
            (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0]['content'] }}"}))
        largest = write_model(large)
        packed = json.loads(subprocess.run([AWQ, "inspect", large, "--json"], capture_output=True, check=True).stdout)["memory"]
        self.assertGreater(packed, 200e6)
        for threads in (1, 2):
            extra = peak_of_one_token(large, threads) - peak_of_one_token(small, threads)
            print(f"{threads} threads: {extra / 1e6:.1f} MB; packed {packed / 1e6:.1f}, largest tensor {largest / 1e6:.1f}")
            self.assertGreater(extra, packed * 0.99)
            self.assertLess(extra, packed + largest)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
