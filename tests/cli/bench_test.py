#!/usr/bin/env python3
"""awq bench on a tiny model and on random weights of a real shape: the form of its JSON, and that its numbers agree.

usage: bench_test.py AWQ GOLDEN_MODELS
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
TOP = {"model", "quantization", "head", "blocks", "context", "weights", "weight_bytes", "packed_bytes", "cpu", "kernels", "threads",
       "repeat", "read", "peaks", "check", "results", "load_seconds", "seconds"}
RESULT = {"kind", "batch", "first", "tokens", "tokens_per_second", "bytes_per_token", "gigabytes_per_second", "share_of_read",
          "gflops", "attention_gflops", "peak", "share_of_peak"}
WINDOWS = {"first_window", "last_window"}


def run(*arguments, **environment):
    done = subprocess.run([AWQ, "bench", *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Bench(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-bench-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.model = tiny.make(GOLDEN, "gemma3", self.work / "m")

    def bench(self, *arguments, **environment):
        return json.loads(run(*arguments, "--json", **environment))

    def check_numbers(self, report):
        self.assertEqual(set(report), TOP)
        self.assertEqual(set(report["peaks"]), {"f32", "bf16", "int16", "int8"})
        self.assertLessEqual(report["read"]["median"], report["read"]["best"])
        self.assertLessEqual(report["check"]["difference"], report["check"]["bound"])
        for r in report["results"]:
            self.assertEqual(set(r), RESULT | (WINDOWS if r["kind"] == "decode" else set()))
            speed = r["tokens_per_second"]
            self.assertTrue(0 < speed["lowest"] <= speed["median"] <= speed["highest"], speed)
            self.assertAlmostEqual(r["gigabytes_per_second"] / (1e-9 * r["bytes_per_token"] * speed["median"]), 1)
            self.assertAlmostEqual(r["share_of_read"] / (r["gigabytes_per_second"] / report["read"]["median"]), 1)
            peak = report["peaks"][r["peak"]]
            self.assertEqual(peak is None, r["share_of_peak"] is None)
            if peak:
                self.assertAlmostEqual(r["share_of_peak"] / (r["gflops"] / peak), 1)

    def test_real_model(self):
        report = self.bench(self.model, "--prefill", "16,32", "--context", "8,40", "--batch", "1,3", "--decode", 4, "--repeat", 2)
        self.check_numbers(report)
        self.assertEqual([(r["kind"], r["batch"], r["first"], r["tokens"]) for r in report["results"]],
                         [("prefill", 1, 0, 16), ("prefill", 1, 0, 32), ("decode", 1, 8, 4), ("decode", 1, 40, 4),
                          ("decode", 3, 8, 4), ("decode", 3, 40, 4)])
        self.assertEqual((report["model"], report["quantization"], report["repeat"]), (str(self.model), "", 2))

    def test_quantized_model_and_random_weights(self):
        subprocess.run([AWQ, "quantize", self.model, "-o", self.work / "q", "--method", "rtn"], check=True, stdout=subprocess.DEVNULL)
        few = ("--prefill", 8, "--context", 0, "--batch", 2, "--decode", 2, "--repeat", 1)
        quantized, shape = self.bench(self.work / "q", *few), self.bench("--shape", "smollm2-135m", *few)
        self.check_numbers(quantized)
        self.check_numbers(shape)
        self.assertEqual((quantized["quantization"], quantized["head"], shape["head"]), ("4 bits, groups of 32", "BF16", "BF16"))
        self.assertEqual((shape["quantization"], shape["weights"], shape["blocks"]), ("4 bits, groups of 64", 134515008, 30))
        # 106,168,320 weights of the blocks in groups of 64: 34.5 bytes; 61 norms of f32; the head in bf16. A step of two
        # sequences at positions 0 and 1: an embedding each, and 30 blocks of 192 keys and values of 2 bytes for each position.
        weights = 106168320 // 64 * 34.5 + 61 * 576 * 4 + 49152 * 576 * 2
        self.assertEqual(shape["weight_bytes"], weights)
        self.assertEqual(shape["results"][1]["bytes_per_token"], weights / 2 + 576 * 2 + 30 * 2 * 192 * 2 * 1.5)

    def test_quantized_head_is_counted(self):
        few = ("--prefill", 8, "--context", 0, "--batch", 1, "--decode", 1, "--repeat", 1)
        report = self.bench("--shape", "smollm2-135m", "--quantize-head", 8, *few)
        self.check_numbers(report)
        self.assertEqual((report["head"], report["weights"]), ("8 bits, groups of 64", 134515008 + 49152 * 576))
        # 64 weights of the blocks are 34.5 bytes, and 67 of the head.
        self.assertEqual(report["weight_bytes"], 106168320 // 64 * 34.5 + 61 * 576 * 4 + 49152 * 576 // 64 * 67)

    def test_float_weights(self):
        few = ("--prefill", 8, "--context", 0, "--batch", 1, "--decode", 1, "--repeat", 1)
        for weights, size in (("bf16", 2), ("f32", 4)):
            report = self.bench("--shape", "smollm2-135m", "--weights", weights, *few)
            self.check_numbers(report)
            self.assertEqual((report["quantization"], {r["peak"] for r in report["results"]}), ("", {"f32"}))
            self.assertEqual(report["weight_bytes"], 106168320 * size + 61 * 576 * 4 + 49152 * 576 * 2)

    def test_hash_depends_on_seed_and_kernels_only(self):
        few = (self.model, "--prefill", 4, "--context", 0, "--batch", 1, "--decode", 1, "--repeat", 1)
        one, again, other = self.bench(*few, "--threads", 1), self.bench(*few), self.bench(*few, "--seed", 1)
        self.assertEqual(one["check"], again["check"])
        self.assertNotEqual(one["check"]["hash"], other["check"]["hash"])
        portable = self.bench(*few, AWQ_ISA="portable")
        self.assertEqual(portable["check"]["hash"], portable["check"]["portable_hash"])
        self.assertEqual(portable["check"]["portable_hash"], one["check"]["portable_hash"])
        self.assertEqual(portable["peaks"], {"f32": None, "bf16": None, "int16": None, "int8": None})
        self.check_numbers(portable)

    def test_table_fits_120_columns(self):
        lines = run(self.model, "--prefill", 16, "--context", 16, "--batch", 2, "--decode", 4).splitlines()
        self.assertRegex(lines[-2], r"^prefill +1 +0-15 ")
        self.assertRegex(lines[-1], r"^decode +2 +16-19 ")
        self.assertLessEqual(max(map(len, lines[-3:])), 120)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
