#!/usr/bin/env python3
"""The whole line on a real model: float perplexity as transformers computes it, AWQ better than rounding, a sane answer.

usage: smollm2_test.py AWQ TEXT.txt WIKITEXT.raw

The model's path comes in AWQ_SMOLLM2_GGUF (tools/fetch_model.py smollm2-135m); without it the test is skipped.
"""
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

AWQ, TEXT, WIKITEXT = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
MODEL = os.environ.get("AWQ_SMOLLM2_GGUF", "")
# Mean negative log-likelihood of the first two windows of 2,048 tokens of WikiText-2's raw test text: transformers 5.24.0,
# float32, on the same de-quantized weights.
REFERENCE_NLL = [2.71483567, 3.17165651]


def run(*arguments):
    return subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


class SmolLm2(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-smollm2-"))
        self.addCleanup(shutil.rmtree, self.work)

    def test_float_perplexity_is_that_of_transformers(self):
        if not WIKITEXT.exists():
            self.skipTest(f"{WIKITEXT} is not there")
        seen = json.loads(run("eval", MODEL, "--text", WIKITEXT, "--windows", 2, "--json"))
        self.assertEqual(seen["text_tokens"], 303415)
        # Three decimals of a perplexity near 20 are 2.5e-5 of it.
        for got, want in zip(seen["window_nll"], REFERENCE_NLL):
            self.assertAlmostEqual(math.exp(got), math.exp(want), delta=5e-4)

    def test_awq_beats_rounding_and_answers(self):
        run("quantize", MODEL, "-o", self.work / "rounding", "--method", "rtn")
        run("quantize", MODEL, "-o", self.work / "awq", "--calib", TEXT, "--samples", 8)
        _, rounding, awq = json.loads(run("compare", MODEL, self.work / "rounding", self.work / "awq", "--text", TEXT, "--windows", 1, "--json"))
        self.assertLess(awq["kl"], 0.7 * rounding["kl"])
        self.assertLess(awq["perplexity"], rounding["perplexity"])
        answer = json.loads(run("generate", self.work / "awq", "--chat", "-p", "What is the capital of France?", "-n", 40, "--json"))
        self.assertIn("Paris", answer["text"])
        self.assertEqual(answer["finish"], "stop")


if __name__ == "__main__":
    if not MODEL:
        print("skipped: AWQ_SMOLLM2_GGUF is not set; tools/fetch_model.py smollm2-135m fetches the model")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
