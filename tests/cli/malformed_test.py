#!/usr/bin/env python3
"""Malformed models of every packed format: each ends in a named error, in little memory.

usage: malformed_test.py AWQ FIXTURES
"""
import copy
import json
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

AWQ, FIXTURES = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
FOLDERS = {"compressed-tensors-4-asym-16": ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"),
           "gptq-v2": ("qweight", "scales", "qzeros", "g_idx"), "mlx-4": ("weight", "scales", "biases"),
           "modelopt-inputs": ("weight", "weight_scale", "pre_quant_scale"), "fp8": ("weight", "weight_scale_inv")}


def parts(folder):
    data = (folder / "model.safetensors").read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]


def joined(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def up_of(header):
    """The first layer of the name, less its suffix."""
    return next(name for name in sorted(header) if ".up_proj." in name).rsplit(".", 1)[0] + "."


def headers(header, suffixes):
    """name -> header, each wrong in one place."""
    up = up_of(header)
    for suffix in suffixes:
        def changed(**values):
            h = copy.deepcopy(header)
            h[up + suffix] |= values
            return h
        entry = header[up + suffix]
        begin, end = entry["data_offsets"]
        yield suffix + " huge", changed(shape=[2**32, 2**32])
        yield suffix + " negative", changed(shape=[-1, 2])
        yield suffix + " product", changed(shape=[2**62, 4])
        yield suffix + " rank", changed(shape=[1] * 9)
        yield suffix + " transposed", changed(shape=[*entry["shape"][::-1], 1])
        yield suffix + " type", changed(dtype="F64")
        yield suffix + " other type", changed(dtype={"I32": "F32", "U32": "I32", "F16": "I16", "I64": "F64", "U8": "I8", "F8_E4M3": "U8", "BF16": "I16"}[entry["dtype"]])
        yield suffix + " backwards", changed(data_offsets=[end, begin])
        yield suffix + " overlap", changed(data_offsets=[max(begin - 2, 0), end])
        yield suffix + " beyond", changed(data_offsets=[begin, end + 2**40])
        if suffix != "pre_quant_scale":  # it need not be there
            yield suffix + " absent", {k: v for k, v in header.items() if k != up + suffix}


def configs(config):
    key = "quantization" if "quantization" in config else "quantization_config"
    for name, values in [("null", None), ("list", []), ("deep", 0)]:
        c = copy.deepcopy(config)
        c[key] = values
        if name == "deep":
            for _ in range(3000):
                c[key] = [c[key]]
            yield "config deep", "{\"a\":" + "[" * 100000
        elif name == "null":
            c["hidden_size"] = -32
            yield "config negative width", json.dumps(c)
        else:
            c["hidden_size"] = 2**31
            yield "config huge width", json.dumps(c)
    for field, value in [("bits", 2**40), ("group_size", 0), ("group_size", 24), ("group_size", "16"), ("num_bits", 3), ("mode", "mxfp4"),
                         ("checkpoint_format", "marlin"), ("weight_block_size", [2**62, 2**62]), ("weight_block_size", [0, 1]), ("weight_block_size", "16"), ("fmt", "e5m2"),
                         ("quant_algo", "W4A8_AWQ"), ("format", "nvfp4-pack-quantized")]:
        text = json.dumps(config)
        if f'"{field}"' in text:
            c = json.loads(text, object_hook=lambda o: o | ({field: value} if field in o and "model_type" not in o else {}))
            if key == "quantization":
                continue  # shapes decide there
            yield f"config {field} {value}", json.dumps(c)
    yield "config no object", "[]"
    yield "config bad UTF-8", b'{"architectures": ["\xff\xfe"]}'


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))


class MalformedTest(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-malformed-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.count = 0

    def expect_error(self, name, fixture, weights=None, config=None):
        self.count += 1
        folder = self.work / "m"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(FIXTURES / fixture, folder)
        if weights is not None:
            (folder / "model.safetensors").write_bytes(weights)
        if config is not None:
            (folder / "config.json").write_bytes(config if isinstance(config, bytes) else config.encode())
        done = subprocess.run([AWQ, "verify", folder, "--threads", "1"], capture_output=True, timeout=20, preexec_fn=limit)
        message = done.stderr.decode(errors="replace")
        self.assertEqual(done.returncode, 1, f"{fixture}: {name}: {message}")
        self.assertRegex(message, r"^error: \[(open|size|shape|model|json|config|parse|architecture)\] .", f"{fixture}: {name}")
        self.assertLess(len(message), 4000, name)

    def test_headers(self):
        for fixture, suffixes in FOLDERS.items():
            header, body = parts(FIXTURES / fixture)
            for name, bad in headers(header, suffixes):
                self.expect_error(name, fixture, joined(bad, body))
        self.assertGreaterEqual(self.count, 60)

    def test_files(self):
        for fixture in FOLDERS:
            header, body = parts(FIXTURES / fixture)
            whole = joined(header, body)
            text = json.dumps(header).encode()
            first = next(iter(header))
            for name, data in [("empty", b""), ("short", whole[:5]), ("cut header", whole[:40]), ("cut", whole[:-1]), ("longer", whole + b"x"),
                               ("length", struct.pack("<Q", 2**63) + whole[8:]), ("zeros", bytes(64)), ("deep", joined(b"[" * 50000, b"")),
                               ("bad UTF-8", joined(text.replace(b"up_proj", b"up_\xffro", 1), body)),
                               ("twice", joined(text[:-1] + b"," + json.dumps(first).encode() + b":" + json.dumps(header[first]).encode() + b"}", body + b"xx"))]:
                self.expect_error(name, fixture, data)

    def test_configs(self):
        for fixture in FOLDERS:
            for name, config in configs(json.loads((FIXTURES / fixture / "config.json").read_text())):
                self.expect_error(name, fixture, config=config)

    def test_values(self):
        for fixture, suffix, value in [("gptq-v2", "scales", struct.pack("<e", float("nan"))), ("mlx-4", "biases", struct.pack("<e", float("inf"))),
                                       ("compressed-tensors-4-asym-16", "weight_scale", struct.pack("<e", float("-inf"))),
                                       ("modelopt-inputs", "pre_quant_scale", struct.pack("<e", float("nan"))), ("fp8", "weight_scale_inv", struct.pack("<H", 0x7f80)),
                                       ("gptq-v2", "g_idx", struct.pack("<i", -1)), ("gptq-v2", "g_idx", struct.pack("<i", 2**31 - 1)),
                                       ("gptq-v2", "g_idx", struct.pack("<i", 1)),
                                       ("compressed-tensors-4-asym-16", "weight_shape", struct.pack("<q", 2**40))]:
            header, body = parts(FIXTURES / fixture)
            at = header[up_of(header) + suffix]["data_offsets"][0]
            self.expect_error(suffix, fixture, joined(header, body[:at] + value + body[at + len(value):]))

    def test_shards_stay_in_the_folder(self):
        secret = self.work / "model-1.safetensors"
        for shard in ["../model-1.safetensors", str(secret), "", "..", "a/b", "model.safetensors.index.json", "loop", "absent"]:
            folder = self.work / "s"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(FIXTURES / "gptq-v2", folder)
            header, body = parts(folder)
            (folder / "model.safetensors").rename(secret)
            (folder / "loop").symlink_to("loop")
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(header, shard)}))
            done = subprocess.run([AWQ, "verify", folder], capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, 1, shard)
            self.assertIn("error: [", done.stderr, shard)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
