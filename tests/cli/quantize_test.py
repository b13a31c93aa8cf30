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
import struct
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


def tensors_of(folder):
    """{name: (type, shape, bytes)}"""
    data = (folder / "model.safetensors").read_bytes()
    n = 8 + struct.unpack("<Q", data[:8])[0]
    return {name: (e["dtype"], e["shape"], data[n + e["data_offsets"][0]:n + e["data_offsets"][1]])
            for name, e in json.loads(data[8:n]).items() if name != "__metadata__"}


def floats(tensor):
    dtype, _, data = tensor
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
    return struct.unpack(f"<{len(data) // {'F32': 4, 'F16': 2}[dtype]}{'f' if dtype == 'F32' else 'e'}", data)


def unpacked(data, bits):
    """Codes in the order of rows, of words whose even rows come first."""
    rows, codes = 32 // bits, []
    for (word,) in struct.iter_unpack("<I", data):
        by_place = [word >> bits * i & 2 ** bits - 1 for i in range(rows)]
        codes += [by_place[r // 2 + (r % 2) * rows // 2] for r in range(rows)]
    return codes


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

    def test_quantized_head(self):
        for family, tied in (("llama", False), ("llama3", True), ("gemma3", True)):
            model = tiny.make(GOLDEN, family, self.work / family)
            plain = self.work / (family + "-0")
            self.quantize(model, plain)
            before, kl = tensors_of(plain), {}
            if tied:  # as written: the embedding, in 16 bits
                source = tensors_of(model)["model.embed_tokens.weight"]
                self.assertNotIn("lm_head.weight", before)
            else:
                source = tensors_of(model)["lm_head.weight"]
                del before["lm_head.weight"]
            for bits in (4, 8):
                with self.subTest(family=family, bits=bits):
                    out = self.work / f"{family}-{bits}"
                    self.quantize(model, out, "--quantize-head", bits)
                    after = tensors_of(out)
                    head = {part: after.pop("lm_head." + part) for part in ("qweight", "qzeros", "scales")}
                    self.assertEqual(after, before)
                    self.check_head(head, floats(source), bits)
                    config, unchanged = (json.loads((f / "config.json").read_text()) for f in (out, plain))
                    self.assertEqual(config["quantization_config"].pop("lm_head"), True if bits == 4 else {"bits": 8})
                    self.assertIs(config.pop("tie_word_embeddings"), False)
                    unchanged.pop("tie_word_embeddings", None)
                    self.assertEqual(config, unchanged)
                    self.assertEqual(json.loads((out / "awq-report.json").read_text())["head"], {"bits": bits, "method": "rtn"})
                    self.assertEqual(json.loads(run("inspect", out, "--json"))["head"], f"{bits} bits, groups of 32")
                    self.assertEqual(len(json.loads(run("generate", out, "-p", "Line", "-n", 4, "--json"))["tokens"]), 4)
                    kl[bits] = json.loads(run("eval", out, "--against", plain, "--text", self.calib, "--window", 64, "--json"))["kl"]
            # KL grows as the square of the error, whose steps are (255 / 15)^2 = 289 times; rounding scales adds to those of 8 bits.
            self.assertLess(kl[8], kl[4] / 100)

    def check_head(self, head, source, bits):
        """Decodes the layout as documented and compares with the float head: half a step, and at the ends of a group's range
        up to half a step more for the zero point and levels * 2^-11 for the scale's rounding."""
        (_, (cols, words), qweight), (_, (groups, _), qzeros), (dtype, (_, rows), _) = (head[p] for p in ("qweight", "qzeros", "scales"))
        self.assertEqual((dtype, words * 32 // bits, rows * cols), ("F16", rows, len(source)))
        codes, zeros, scales = unpacked(qweight, bits), unpacked(qzeros, bits), floats(head["scales"])
        levels, errors = 2 ** bits - 1, []
        for k in range(cols):
            for n in range(rows):
                g = k * groups // cols
                code, scale = codes[k * rows + n], scales[g * rows + n]
                error = abs((code - zeros[g * rows + n]) * scale - source[n * cols + k]) / scale
                self.assertLessEqual(error, 1.001 + levels / 2048 if code in (0, levels) else 0.5001)
                errors.append(error)
        self.assertGreater(sum(errors) / len(errors), 0.2)  # uniform: a quarter of a step

    def test_warning_says_who_reads_the_head(self):
        model = tiny.make(GOLDEN, "llama", self.work / "m")
        for bits, text in ((4, "transformers ignores a quantized head"), (8, "only awq.cpp reads this head")):
            command = [AWQ, "quantize", model, "-o", self.work / f"q{bits}", "--method", "rtn", "--json", "--quantize-head", str(bits)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            self.assertIn("warning: " + text, done.stderr)
            self.assertEqual(len(json.loads(done.stdout)["warnings"]), 1)

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
