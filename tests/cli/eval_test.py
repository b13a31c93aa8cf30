#!/usr/bin/env python3
"""awq eval and compare of a text from the command line, against sums over the models' logits.

usage: eval_test.py AWQ GOLDEN_MODELS
"""
import json
import math
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
WINDOW, WINDOWS = 32, 3


def run(*arguments, fails=False):
    done = subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        raise AssertionError(f"{arguments}: status {done.returncode}\n{done.stderr}")
    return done.stderr if fails else done.stdout


def log_softmax(row):
    top = max(row)
    z = top + math.log(sum(math.exp(v - top) for v in row))
    return [v - z for v in row]


class Eval(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-eval-"))
        cls.model, cls.other = tiny.make(GOLDEN, "llama", cls.work / "m"), cls.work / "q"
        cls.stranger = tiny.make(GOLDEN, "llama-bias", cls.work / "s")
        cls.text = cls.work / "text.txt"
        cls.text.write_text("".join(f"No. {i}: the {i * i} quick foxes jump.\n" for i in range(12)))
        run("quantize", cls.model, "-o", cls.other, "--method", "rtn", "--calib", cls.text, "--samples", 2, "--tokens", 32)
        text = cls.text.read_text()
        cls.ids = [{" ": 0, "\n": 1}.get(c, ord(c) - 31) for c in text]
        cls.logits = {m: [cls.logits_of(m, w) for w in cls.windows()] for m in (cls.model, cls.other, cls.stranger)}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work)

    @classmethod
    def windows(cls):
        return [cls.ids[i * WINDOW:(i + 1) * WINDOW] for i in range(WINDOWS)]

    @classmethod
    def logits_of(cls, model, ids):
        (cls.work / "ids.json").write_text(json.dumps(ids))
        run("eval", model, "--ids", cls.work / "ids.json", "--dump-logits", cls.work / "l.npy")
        vocab = json.loads((model / "config.json").read_text())["vocab_size"]
        n = len(ids) * vocab
        values = struct.unpack(f"<{n}f", (cls.work / "l.npy").read_bytes()[-4 * n:])
        return [log_softmax(values[t * vocab:(t + 1) * vocab]) for t in range(len(ids))]

    def eval(self, *more):
        return json.loads(run("eval", *more, "--text", self.text, "--window", WINDOW, "--windows", WINDOWS, "--json"))

    def nll(self, model, first):
        return [-self.logits[model][w][t][ids[t + 1]] for w, ids in enumerate(self.windows()) for t in range(first, WINDOW - 1)]

    def test_hf_counts_all_predictions_and_its_error_is_over_windows(self):
        r, nll = self.eval(self.model), self.nll(self.model, 0)
        each = [sum(nll[i * 31:(i + 1) * 31]) / 31 for i in range(WINDOWS)]
        mean = sum(each) / WINDOWS
        error = math.sqrt(sum((x - mean)**2 for x in each) / (WINDOWS - 1) / WINDOWS)
        self.assertEqual(r["predictions"], 31 * WINDOWS)
        self.assertAlmostEqual(r["perplexity"], math.exp(mean), delta=1e-3)
        self.assertAlmostEqual(r["perplexity_standard_error"], math.exp(mean) * error, delta=1e-3)

    def test_llama_cpp_counts_the_second_half_and_its_error_is_over_predictions(self):
        r, nll = self.eval(self.model, "--protocol", "llama.cpp"), self.nll(self.model, 16)
        n = len(nll)
        mean = sum(nll) / n
        error = math.sqrt((sum(x * x for x in nll) / n - mean**2) / (n - 1))
        self.assertEqual((r["predictions"], n), (45, 45))
        self.assertAlmostEqual(r["perplexity"], math.exp(mean), delta=1e-3)
        self.assertAlmostEqual(r["perplexity_standard_error"], math.exp(mean) * error, delta=1e-3)

    def test_windows_of_llama_cpp_begin_with_bos(self):
        model = self.work / "bos"
        if not model.exists():
            shutil.copytree(self.model, model)
        t = tiny.tokenizer()
        t["added_tokens"] = [{"id": 96, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}]
        t["model"]["vocab"]["<s>"] = 96
        t["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                               "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [96], "tokens": ["<s>"]}}}
        (model / "tokenizer.json").write_text(json.dumps(t))
        r = self.eval(model, "--protocol", "llama.cpp")
        ids = [96] + self.ids
        total = 0.0
        for w in range(WINDOWS):
            window = ids[w * WINDOW:(w + 1) * WINDOW]
            logits = self.logits_of(model, [96] + window[1:])
            total -= sum(logits[t][window[t + 1]] for t in range(16, 31))
        self.assertAlmostEqual(r["perplexity"], math.exp(total / 45), delta=1e-3)

    def test_distances_are_those_of_the_logits(self):
        self.check_distances(self.other)

    def test_distances_of_a_model_far_away(self):
        self.check_distances(self.stranger)

    def check_distances(self, other):
        r = self.eval(other, "--against", self.model, "--worst", 3)
        each = []
        for w, ids in enumerate(self.windows()):
            for t in range(WINDOW - 1):
                p, q = self.logits[self.model][w][t], self.logits[other][w][t]
                kl = sum(math.exp(a) * (a - b) for a, b in zip(p, q))
                reverse = sum(math.exp(b) * (b - a) for a, b in zip(p, q))
                top = p.index(max(p))
                each.append((kl, reverse, q.index(max(q)) == top, sum(b > q[top] for b in q) < 5, w, t))
        mean = [sum(e[i] for e in each) / len(each) for i in range(4)]
        for key, want in zip(("kl", "reverse_kl", "top1", "top5"), mean):
            self.assertAlmostEqual(r[key], want, delta=1e-4 * max(want, 0.01), msg=key)
        self.assertGreater(mean[0], 1e-3)
        self.assertNotAlmostEqual(mean[0], mean[1], delta=1e-3 * mean[0])
        self.assertLess(mean[2], mean[3])
        largest = sorted(each, reverse=True)[:3]
        self.assertEqual([(d["window"], d["position"]) for d in r["worst"]], [e[4:] for e in largest])
        text = self.text.read_text()
        for d in r["worst"]:
            at = d["window"] * WINDOW + d["position"] + 1
            self.assertEqual(d["next"], text[at])
            self.assertTrue(text[:at].endswith(d["before"]) and d["before"])
        kl = sorted(e[0] for e in each)
        self.assertAlmostEqual(r["kl_median"], kl[(len(kl) - 1) // 2], delta=1e-5)
        self.assertAlmostEqual(r["kl_largest"], kl[-1], delta=1e-4)

    def test_a_saved_reference_is_as_good_as_the_original(self):
        for protocol in ("hf", "llama.cpp"):
            file = self.work / f"{protocol}.reference"
            self.eval(self.model, "--protocol", protocol, "--save-reference", file)
            together = self.eval(self.other, "--protocol", protocol, "--against", self.model)
            apart = self.eval(self.other, "--protocol", protocol, "--against", self.model, "--reference", file)
            self.assertEqual(together | {"seconds": 0}, apart | {"seconds": 0})
        wrong = ["eval", self.other, "--text", self.text, "--window", WINDOW, "--windows", 2, "--against", self.model, "--reference", file]
        message = run(*wrong, fails=True)
        self.assertIn("It must be of the same text, --protocol, --window, --windows and original", message)
        message = run("eval", self.model, "--text", self.text, "--window", WINDOW, "--save-reference", file, fails=True)
        self.assertIn("the file exists", message)


class Compare(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-compare-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.model, self.stranger = tiny.make(GOLDEN, "llama", self.work / "m"), tiny.make(GOLDEN, "llama-bias", self.work / "s")
        self.text, self.piqa = self.work / "text.txt", self.work / "piqa.jsonl"
        self.text.write_text("".join(f"No. {i}: the {i * i} quick foxes jump.\n" for i in range(12)))
        self.piqa.write_text("".join(json.dumps({"goal": f"lift {i * i} boxes", "sol1": "by hand", "sol2": f"with {i} ropes", "label": i % 2}) + "\n"
                                     for i in range(12)))
        self.common = ["--text", self.text, "--window", 32, "--task", f"piqa={self.piqa}"]

    def test_versions_and_a_rounding_made_on_the_fly(self):
        markdown, html = self.work / "c.md", self.work / "c.html"
        out = run("compare", self.model, self.stranger, "--rounding", "--scratch", self.work, *self.common, "--json", "--markdown", markdown, "--html", html)
        original, rounding, stranger = json.loads(out)
        self.assertEqual((rounding["model"], stranger["model"]), ("rounding", str(self.stranger)))
        self.assertEqual([p.name for p in self.work.iterdir() if "rounding" in p.name], [])
        self.assertEqual(original["differences"], [])
        self.assertLess(rounding["bits_per_weight"], original["bits_per_weight"])
        of = {(d["metric"], d["against"]): d for d in stranger["differences"]}
        self.assertEqual(set(of), {("negative log-likelihood", str(self.model)), ("piqa acc", str(self.model)), ("piqa acc_norm", str(self.model)),
                                   ("KL", "rounding"), ("negative log-likelihood", "rounding"), ("piqa acc", "rounding"), ("piqa acc_norm", "rounding")})
        kl = of["KL", "rounding"]
        self.assertAlmostEqual(kl["difference"], stranger["kl"] - rounding["kl"], delta=1e-9)
        self.assertTrue(kl["p"] < 0.05 and not kl["better"] and kl["low"] < kl["difference"] < kl["high"])
        self.assertAlmostEqual(of["piqa acc", "rounding"]["difference"],
                               stranger["tasks"][0]["metrics"]["acc"]["value"] - rounding["tasks"][0]["metrics"]["acc"]["value"])
        alone = json.loads(run("eval", self.stranger, "--task", f"piqa={self.piqa}", "--json"))[0]
        self.assertEqual(stranger["tasks"][0]["metrics"], alone["metrics"])
        page, tables = html.read_text(), markdown.read_text()
        self.assertIn("| rounding |", tables)
        self.assertIn("worse", tables)
        self.assertIn("KL to the original against size", page)
        self.assertEqual(page.count("<circle"), 2)
        self.assertNotIn("<script", page)

    def prompts(self):
        file = self.work / "prompts.jsonl"
        rows = [{"prompt": "No. 3: the 9 quick", "kind": "reasoning"}, {"prompt": "def f(", "kind": "code"}, {"prompt": "The fox"},
                {"messages": [{"role": "user", "content": "Hello, fox."}], "kind": "dialogue"}]
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return file

    def answers(self, *more):
        return json.loads(run("compare", self.model, *more, "--answers", self.prompts(), "--answer-tokens", 24, "--json"))

    def test_answers_are_what_generate_writes(self):
        original, same, other = self.answers(self.model, self.stranger)
        self.assertEqual([a["mode"] for a in other["answers"]], ["greedy", "sampled"])
        for mode in range(2):
            for a, b in zip(same["answers"][mode]["answers"], original["answers"][mode]["answers"], strict=True):
                self.assertEqual(a, b)
            self.assertEqual(same["answers"][mode]["identical"], {"value": 1, "standard_error": 0})
        greedy = [a["answers"][0]["answers"] for a in (original, other)]
        for model, texts in zip((self.model, self.stranger), greedy):
            for a in texts:
                self.assertEqual(a["text"].rstrip("\n"), run("generate", model, "-p", a["prompt"], "-n", 24, "--temperature", 0, "--kv", "f32").rstrip("\n"))
        # What is counted in tokens is tested by itself: not every id of these models has a character.
        for a, b in zip(*greedy):
            self.assertEqual(a["same_tokens"], a["tokens"])
            self.assertEqual(b["identical"], (a["text"], a["ended"]) == (b["text"], b["ended"]))
            self.assertLessEqual(b["same_tokens"], min(a["tokens"], b["tokens"]))
            self.assertAlmostEqual(b["length_ratio"], b["tokens"] / a["tokens"])
        values = [a["same_tokens"] for a in greedy[1]]
        self.assertAlmostEqual(other["answers"][0]["same_tokens"]["value"], sum(values) / 4)
        sampled = original["answers"][1]["answers"]
        self.assertNotEqual([a["text"] for a in sampled], [a["text"] for a in greedy[0]])
        again = self.answers(self.model, "--answer-seed", 5)[0]["answers"]
        self.assertEqual(again[0], original["answers"][0])
        self.assertNotEqual(again[1]["answers"], sampled)
        # The original has nothing to agree with; the first version has.
        alone = self.answers(self.stranger)[1]
        self.assertEqual({d["metric"] for d in alone["differences"]}, {"greedy repetition", "sampled repetition"})
        self.assertIn("greedy same tokens", {d["metric"] for d in other["differences"]})

    def test_answers_in_all_tables(self):
        markdown, html = self.work / "c.md", self.work / "c.html"
        out = run("compare", self.model, self.stranger, "--answers", self.prompts(), "--answer-tokens", 8, "--markdown", markdown, "--html", html)
        self.assertIn("same tokens", out)
        self.assertIn("| model | mode | same tokens |", markdown.read_text())
        self.assertIn("Answers in full", html.read_text())
        self.assertIn("4 prompts, at most 8 tokens", html.read_text())

    def test_bad_prompts_are_named_before_a_model_is_read(self):
        for line, words in (('{"prompt": ""}', '"prompt": expected a text that is not empty'), ('{"kind": "code"}', '"prompt": expected this field'),
                            ('{"prompt": "x", "kind": "song"}', '"kind": expected reasoning, code, dialogue or text'), ("nonsense", "no valid JSON"),
                            ('{"messages": [{"content": "x"}]}', '"role": expected this field'), ('{"messages": []}', '"messages": expected a list of objects')):
            file = self.work / "bad.jsonl"
            file.write_text('{"prompt": "good"}\n' + line + "\n")
            message = run("compare", self.work / "none", self.work / "none", "--answers", file, fails=True)
            self.assertIn(f"{file} line 2: ", message)
            self.assertIn(words, message)
        self.assertIn("there are 24 built-in prompts", run("compare", self.work / "none", self.work / "none", "--answers", 25, fails=True))
        self.assertIn("--answer-tokens 4000", run("compare", self.model, self.model, "--answers", self.prompts(), "--answer-tokens", 4000, fails=True))

    def test_speed_and_memory(self):
        original, other = json.loads(run("compare", self.model, self.stranger, "--speed", "--json"))
        for m in (original, other):
            s = m["speed"]
            for kind in ("prefill", "decode"):
                rate = s[f"{kind}_tokens_per_second"]
                self.assertTrue(0 < rate["lowest"] <= rate["median"] <= rate["highest"], rate)
            inspected = json.loads(run("inspect", m["model"], "--json"))
            self.assertEqual(s["weight_memory"], inspected["memory"])
            self.assertTrue(s["peak_memory"] is None or s["peak_memory"] > s["weight_memory"])
        self.assertIn("weights in memory", run("compare", self.model, self.stranger, "--speed"))

    def test_tasks_alone_with_samples_of_all_models(self):
        samples = self.work / "s.jsonl"
        run("compare", self.model, self.stranger, "--task", f"piqa={self.piqa}", "--save-samples", samples)
        runs = [r["run"]["model"] for r in map(json.loads, samples.read_text().splitlines()) if "run" in r]
        self.assertEqual(runs, [str(self.model), str(self.stranger)])
        run("compare", self.model, fails=True)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
