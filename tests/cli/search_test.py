#!/usr/bin/env python3
"""Searches saved and loaded, sensitivities, and layers kept in 16 bits, from the command line.

usage: search_test.py AWQ GOLDEN_MODELS FIXTURES
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


def run(*arguments):
    return subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def tensors_of(folder):
    data = (folder / "model.safetensors").read_bytes()
    n = 8 + struct.unpack("<Q", data[:8])[0]
    return {name: (e["dtype"], e["shape"], data[n + e["data_offsets"][0]:n + e["data_offsets"][1]])
            for name, e in json.loads(data[8:n]).items() if name != "__metadata__"}


def as_f16(tensor):
    """A BF16 tensor's values, rounded to F16."""
    _, _, data = tensor
    return b"".join(struct.pack("<e", struct.unpack("<f", b"\0\0" + data[i:i + 2])[0]) for i in range(0, len(data), 2))


class Search(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-search-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.model = tiny.make(GOLDEN, "llama", self.work / "m")
        self.calib = self.work / "calib.txt"
        self.calib.write_text("".join(f"Line {i}: the quick brown fox jumps over {i * i} lazy dogs.\n" for i in range(60)))
        self.common = ["--calib", self.calib, "--tokens", 64, "--samples", 8]

    def quantize(self, out, *more):
        return json.loads(run("quantize", self.model, "-o", self.work / out, "--json", *more))

    def kl(self, out):
        return json.loads(run("eval", self.work / out, "--against", self.model, "--text", self.calib, "--window", 64, "--json"))["kl"]

    def bytes_of(self, out):
        return (self.work / out / "model.safetensors").read_bytes()

    def test_a_loaded_search_gives_the_same_bytes(self):
        self.quantize("searched", *self.common, "--method", "awq", "--save-search", self.work / "s")
        loaded = self.quantize("loaded", "--load-search", self.work / "s")
        self.assertEqual(loaded["method"], "awq")
        self.assertEqual(self.bytes_of("loaded"), self.bytes_of("searched"))
        self.assertEqual(loaded["search"], "s")
        self.assertLess(loaded["worst_fold_error"], 1e-5)
        self.assertGreater(loaded["worst_fold_error"], 0)  # it was checked
        again = self.work / "s2"
        self.quantize("searched2", *self.common, "--method", "awq", "--save-search", again)
        self.assertEqual(again.read_bytes(), (self.work / "s").read_bytes())

    def test_a_search_of_llm_awq_is_applied(self):
        self.quantize("rounded", "--method", "rtn")
        loaded = self.quantize("loaded", "--load-search", FIXTURES / "llm-awq-f16.pt")
        self.assertLess(loaded["worst_fold_error"], 1e-5)
        want = json.loads((FIXTURES / "expected.json").read_text())
        # A norm's gain is divided by the scales.
        gain, folded = (struct.unpack("<64" + ("f" if t[0] == "F32" else "e"), t[2]) for t in
                        (tensors_of(self.work / n)["model.layers.1.input_layernorm.weight"] for n in ("rounded", "loaded")))
        for g, f, s in zip(gain, folded, want["scale"]["model.layers.1.input_layernorm"]):
            self.assertAlmostEqual(f, g / s, delta=2 ** -10 * abs(g / s))

    def test_sensitivity_is_sorted_by_what_a_megabyte_costs(self):
        arguments = ["sensitivity", self.model, *self.common, "--json"]
        all_layers, some = json.loads(run(*arguments)), json.loads(run(*arguments, "--limit", 3))
        self.assertEqual(len(all_layers["layers"]), 14)
        costs = [l["kl_per_megabyte_saved"] for l in all_layers["layers"]]
        self.assertEqual(costs, sorted(costs, reverse=True))
        self.assertEqual(some["layers"], all_layers["layers"][:3])
        self.assertEqual(some["measured_layers"], 14)
        for l in all_layers["layers"]:
            rows_cols = {"mlp": 96 * 64}.get(l["name"].split(".")[3], 64 * 64)
            self.assertEqual(l["saved_bytes"], int(rows_cols * (16 - 4 - 20 / 32) / 8))

    def test_sensitivity_on_another_text(self):
        text = self.work / "text.txt"
        text.write_text("Nine lazy dogs and 17 foxes. " * 30)
        r = json.loads(run("sensitivity", self.model, *self.common, "--method", "rtn", "--text", text, "--windows", 2, "--window", 40, "--json"))
        self.assertEqual((r["text"], r["windows"], r["window"]), ("text.txt", 2, 40))

    def test_kept_layers_are_the_original_ones(self):
        measured = {l["name"]: l["kl"] for l in json.loads(run("sensitivity", self.model, *self.common, "--method", "rtn", "--json"))["layers"]}
        kept = self.quantize("kept", "--method", "rtn", *self.common, "--keep", 1)
        names = [k["name"] for k in kept["kept"]]
        self.assertIn(max(measured, key=measured.get), names)
        self.assertEqual([k["kl_if_quantized_alone"] for k in kept["kept"]], [measured[n] for n in names])
        report = json.loads((self.work / "kept" / "awq-report.json").read_text())
        self.assertEqual(report["kept"], kept["kept"])
        self.assertEqual(len(report["layers"]) + len(names), 14)
        config = json.loads((self.work / "kept" / "config.json").read_text())["quantization_config"]
        self.assertEqual(sorted(config["modules_to_not_convert"]), sorted(names))
        source, out = tensors_of(self.model), tensors_of(self.work / "kept")
        for n in names:
            self.assertEqual(out[n + ".weight"], ("F16", source[n + ".weight"][1], as_f16(source[n + ".weight"])))
            self.assertNotIn(n + ".qweight", out)
        self.quantize("all", "--method", "rtn")
        self.assertLess(self.kl("kept"), self.kl("all"))
        extra = sum(k["extra_bytes"] for k in kept["kept"])
        size = {n: sum(len(t[2]) for t in tensors_of(self.work / n).values()) for n in ("kept", "all")}
        self.assertEqual(size["kept"] - size["all"], extra)
        self.assertIn(f"{len(names)} layers in floats" if len(names) > 1 else "1 layer in floats",
                      json.loads(run("inspect", self.work / "kept", "--json"))["quantization"])

    def test_with_awq_too(self):
        self.quantize("plain", *self.common)
        self.quantize("kept", *self.common, "--keep", 2)
        self.assertLess(self.kl("kept"), self.kl("plain"))
        self.assertEqual(len(json.loads(run("generate", self.work / "kept", "-p", "Line", "-n", 4, "--json"))["tokens"]), 4)
        self.quantize("again", *self.common, "--keep", 2, "--threads", 1)
        self.assertEqual(self.bytes_of("again"), self.bytes_of("kept"))

    def test_budget_is_kept_and_used(self):
        weights = 2 * (4 * 64 * 64 + 3 * 96 * 64)
        before = None
        for budget in ("4.625", "5.5", "7bpw", "16bpw"):
            r = self.quantize("b" + budget, "--method", "rtn", *self.common, "--budget", budget)
            limit = float(budget.removesuffix("bpw"))
            self.assertLessEqual(r["bits_per_weight"], limit + 1e-9)
            extra = 8 * sum(k["extra_bytes"] for k in r["kept"])
            self.assertAlmostEqual(r["bits_per_weight"], 4.625 + extra / weights, delta=1e-6)
            kl = self.kl("b" + budget)
            if before is not None:
                self.assertLess(kl, before)
            before = kl
        self.assertEqual(len(r["kept"]), 14)
        self.assertLess(before, 1e-6)  # all layers in F16, which holds these bf16 weights but for subnormals


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
