#!/usr/bin/env python3
"""Quantizes a tiny model of every family from the command line.

usage: quantize_test.py AWQ GOLDEN_MODELS

Each output must be complete, the same for any number of threads, never worse than rounding on its own measure, and close
to the original; a job that is stopped leaves nothing.
"""
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
CPUS = tiny.max_threads(AWQ)
FAMILIES = ["llama", "llama-bias", "llama3", "mistral", "qwen2", "qwen3", "gemma3"]


def run(*arguments):
    return subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def digest(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


class Quantize(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-quantize-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.calib = self.work / "calib.txt"
        self.calib.write_text("".join(f"Line {i}: the quick brown fox jumps over {i * i} lazy dogs.\n" for i in range(60)))

    def quantize(self, model, out, *more):
        return json.loads(run("quantize", model, "-o", self.work / out, "--calib", self.calib, "--tokens", 64, "--samples", 8, "--json", *more))

    def test_every_family(self):
        for family in FAMILIES:
            with self.subTest(family):
                model = tiny.make(GOLDEN, family, self.work / family)
                result = self.quantize(model, family + "-awq")
                self.assertEqual(result["group_size"], 32)
                self.assertLess(result["worst_fold_error"], 1e-5)
                report = json.loads((self.work / (family + "-awq") / "awq-report.json").read_text())
                for group in report["scales"]:
                    self.assertLessEqual(group["loss"], group["loss_without_scales"])
                self.assertEqual(len(report["layers"]), 7 * json.loads((model / "config.json").read_text())["num_hidden_layers"])
                for layer in report["layers"]:
                    self.assertEqual(layer["tokens"], 512)
                    self.assertGreater(layer["relative_error"], 0)
                    self.assertLess(layer["relative_error"], 0.05)  # 4 bits of random weights: about 0.01
                self.assertEqual((self.work / (family + "-awq") / "tokenizer.json").read_bytes(), (model / "tokenizer.json").read_bytes())
                config = json.loads((self.work / (family + "-awq") / "config.json").read_text())["quantization_config"]
                self.assertEqual(config, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
                                          "modules_to_not_convert": None})
                seen = json.loads(run("eval", self.work / (family + "-awq"), "--against", model, "--text", self.calib, "--window", 64, "--json"))
                # An output error of about 1 % in each of some ten layers in a row moves logits by a third of their spread,
                # which is 2 to 3 in these random models: KL of some tenths. Weights in a wrong order give 3 and more.
                self.assertLess(seen["kl"], 1)
                self.assertGreater(seen["kl"], 1e-7)  # and it is not the original

    def test_same_bytes_for_any_number_of_threads(self):
        model = tiny.make(GOLDEN, "gemma3", self.work / "m")
        counts = sorted({1, min(2, CPUS), min(5, CPUS)})  # more than CPUs are refused
        for threads in counts:
            self.quantize(model, f"t{threads}", "--threads", threads)
        for threads in counts:
            self.assertEqual(digest(self.work / f"t{threads}"), digest(self.work / "t1"))

    def test_text_of_its_own_repeats_with_the_seed(self):
        model = tiny.make(GOLDEN, "qwen3", self.work / "m")
        for name, seed, threads in (("a", 1, 1), ("b", 1, min(2, CPUS)), ("c", 2, 1)):
            run("quantize", model, "-o", self.work / name, "--tokens", 64, "--samples", 4, "--seed", seed, "--threads", threads)
        self.assertEqual(digest(self.work / "a"), digest(self.work / "b"))
        self.assertNotEqual(digest(self.work / "a")["model.safetensors"], digest(self.work / "c")["model.safetensors"])

    def test_interrupt_leaves_nothing(self):
        model = tiny.make(GOLDEN, "llama", self.work / "m")
        job = subprocess.Popen([AWQ, "quantize", model, "-o", self.work / "out", "--tokens", "256", "--samples", "400"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not list(self.work.glob("out*")) and job.poll() is None:
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)
        message = job.communicate(timeout=60)[1]
        self.assertEqual(job.returncode, 130, message)
        self.assertEqual(list(self.work.glob("out*")), [])

    def test_eval_of_lines_is_eval_of_their_texts(self):
        model = tiny.make(GOLDEN, "llama", self.work / "llama")
        texts = [f"Line {i}: nine lazy dogs. " for i in range(20)]
        (self.work / "text.txt").write_text("".join(texts))
        (self.work / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        plain, lines = (json.loads(run("eval", model, "--text", self.work / f, "--window", 64, "--json")) for f in ("text.txt", "text.jsonl"))
        self.assertEqual(plain["window_nll"], lines["window_nll"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
