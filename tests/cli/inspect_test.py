#!/usr/bin/env python3
"""`awq inspect`: a ledger that adds up, and codes counted as numpy-free Python counts them.

usage: inspect_test.py AWQ GOLDEN_MODELS FIXTURES
"""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN, FIXTURES = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # rows of a word of AutoAWQ's


def run(*args):
    done = subprocess.run([AWQ, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout


def inspect(model, *options):
    return json.loads(run("inspect", model, "--json", *options))


def read(file):
    data = file.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), bytearray(data[8 + n:])


def write(file, header, body):
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


def weights_of(tensor):
    elements = eval(tensor["shape"].replace("[", "1*(").replace("]", ")").replace(",", "*"))
    if tensor["type"] != "U8":
        return elements
    return 2 * elements if tensor["name"].endswith("_blocks") else 0  # MXFP4: two a byte, and a scale for 32


class InspectTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-inspect-"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.float = tiny.make(GOLDEN, "qwen2", cls.work / "float")
        cls.codes = cls.work / "codes"
        run("quantize", cls.float, "-o", cls.codes, "--method", "rtn", "--group-size", "32")

    def ledger(self, report):
        rows = {r["use"]: r for r in report["ledger"]}
        self.assertEqual(list(rows), ["quantized", "float", "carried", "dropped"])
        for use, row in rows.items():
            mine = [t for t in report["tensors"] if t["use"] == use]
            self.assertEqual((row["tensors"], row["bytes"]), (len(mine), sum(t["bytes"] for t in mine)), use)
            self.assertTrue(all(("reason" in t) == (use == "dropped") for t in mine), use)
        for key, total in [("tensors", len(report["tensors"])), ("bytes", report["bytes"]), ("weights", report["weights"])]:
            self.assertEqual(sum(r[key] for r in rows.values()), total, key)
        self.assertEqual(rows["dropped"]["weights"], 0)
        return rows

    def test_every_family_adds_up(self):
        for folder in sorted(GOLDEN.iterdir()):
            if not (folder / "config.json").exists():
                continue
            report = inspect(folder)
            rows = self.ledger(report)
            self.assertEqual(rows["quantized"]["tensors"], 0, folder.name)
            self.assertEqual(report["codes"], [])
            # Of float files every number is a weight, but those of tensors that are dropped.
            self.assertEqual(report["weights"], sum(weights_of(t) for t in report["tensors"] if t["use"] != "dropped"), folder.name)

    def test_every_format_adds_up(self):
        for folder in sorted(FIXTURES.iterdir()):
            rows = self.ledger(inspect(folder))
            if folder.name == "fp8":
                continue
            self.assertEqual(rows["float"]["tensors"], 0, folder.name)
            self.assertGreaterEqual(rows["quantized"]["weights"], 7 * 32 * 32, folder.name)

    def test_what_stays_in_floats(self):
        report = inspect(self.codes)
        rows = self.ledger(report)
        self.assertEqual(rows["quantized"]["tensors"], 3 * 14)
        self.assertEqual(report["codes"], [{"bits": 4, "group_size": 32, "scales": "F16", "zeros": "any", "matrices": 14, "weights": rows["quantized"]["weights"]}])
        self.assertNotIn("matrices", report)
        biases = [t["use"] for t in report["tensors"] if t["name"].endswith(".bias")]
        self.assertEqual(biases, ["carried"] * 6)
        kept = self.work / "kept"
        run("quantize", self.float, "-o", kept, "--method", "rtn", "--group-size", "32", "--keep", "1", "--calib", self.text(), "--samples", "2", "--tokens", "32")
        self.assertGreater(self.ledger(inspect(kept))["float"]["weights"], 0)

    def text(self):
        file = self.work / "text.txt"
        file.write_text("The quick brown fox jumps over the lazy dog. " * 40)
        return file

    def test_a_copy_of_the_tied_head_is_dropped(self):
        tied = tiny.make(GOLDEN, "qwen2", self.work / "tied")
        config = json.loads((tied / "config.json").read_text())
        (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
        header, body = read(tied / "model.safetensors")
        header.setdefault("lm_head.weight", header["model.embed_tokens.weight"])
        report = inspect(tied)
        rows = self.ledger(report)
        self.assertEqual([(t["name"], t["reason"]) for t in report["tensors"] if t["use"] == "dropped"],
                         [("lm_head.weight", "a copy of the embedding, which the head is tied to")])
        self.assertEqual(report["weights"], inspect(self.float)["weights"] - config["vocab_size"] * config["hidden_size"])
        self.assertIn("dropped: lm_head.weight, a copy", run("inspect", tied))
        gguf = self.work / "gguf"
        run("convert", tied, "-o", gguf, "--format", "gguf-q8_0")
        self.assertEqual(self.ledger(inspect(gguf))["dropped"]["tensors"], rows["dropped"]["tensors"] - 1)

    def test_codes_are_those_of_the_file(self):
        report = inspect(self.codes, "--codes")
        header, body = read(self.codes / "model.safetensors")

        def nibbles(name):
            begin, end = header[name]["data_offsets"]
            return [word >> 4 * ORDER.index(i) & 15 for word in struct.unpack(f"<{(end - begin) // 4}I", body[begin:end]) for i in range(8)]

        self.assertEqual(len(report["matrices"]), 14)
        for m in report["matrices"]:
            base = m["name"].removesuffix("weight")
            codes, zeros = nibbles(base + "qweight"), nibbles(base + "qzeros")
            self.assertEqual(m["codes"], [codes.count(i) for i in range(16)], m["name"])
            self.assertEqual(m["zeros"], [zeros.count(i) for i in range(16)], m["name"])
            self.assertEqual(m["low"], codes.count(0) / len(codes))
            self.assertEqual(m["high"], codes.count(15) / len(codes))
            self.assertEqual((m["groups"], m["suspicions"]), (len(zeros), []))
        self.assertEqual(report["matrices"], inspect(self.codes, "--codes", "--threads", "1")["matrices"])
        self.assertIn("0 of 14 quantized matrices are suspicious", run("inspect", self.codes, "--codes", "--tensors"))

    def damaged(self, tensor, value):
        folder = self.work / "damaged"
        shutil.copytree(self.codes, folder, dirs_exist_ok=True)
        header, body = read(folder / "model.safetensors")
        begin, end = header[tensor]["data_offsets"]
        body[begin:end] = value * ((end - begin) // len(value))
        write(folder / "model.safetensors", header, body)
        report = inspect(folder, "--codes")
        found = {m["name"]: m["suspicions"] for m in report["matrices"] if m["suspicions"]}
        self.assertEqual(len(report["matrices"]), 14)
        self.assertEqual(list(found), [tensor.rsplit(".", 1)[0] + ".weight"])
        self.assertIn("1 of 14 quantized matrices are suspicious", run("inspect", folder, "--codes"))
        return found.popitem()[1]

    def test_suspicious_layers_are_named(self):
        up = "model.layers.1.mlp.up_proj."
        self.assertIn("the scale of row 0, group 0 is", self.damaged(up + "scales", struct.pack("<e", float("inf")))[0])
        self.assertIn("have the scale 0 beside codes that differ", self.damaged(up + "scales", b"\0\0")[0])
        self.assertEqual(self.damaged(up + "qweight", b"\x77"), ["every code is 7"])
        self.assertIn("100.0 % of the codes are 0 or 15; rounding gives 59.6 % at most", self.damaged(up + "qweight", b"\x0f")[0])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
