#!/usr/bin/env python3
"""awq eval --task from the command line, on a tiny model and items made here.

usage: tasks_test.py AWQ GOLDEN_MODELS
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


def run(*arguments, fails=False):
    done = subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        raise AssertionError(f"{arguments}: status {done.returncode}\n{done.stderr}")
    return done.stderr if fails else done.stdout


class Tasks(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-tasks-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.model = tiny.make(GOLDEN, "llama", self.work / "m")
        self.piqa = self.work / "piqa.jsonl"
        self.rows = [{"goal": f"lift {i * i} boxes", "sol1": "by hand" + "s" * (i % 4), "sol2": f"with {i} ropes", "label": i % 2}
                     for i in range(24)]
        self.piqa.write_text("".join(json.dumps(r) + "\n" for r in self.rows))
        self.task = f"piqa={self.piqa}"

    def eval(self, *more):
        return json.loads(run("eval", self.model, "--json", *more))

    def samples(self, path):
        return {r["item"]: r for r in map(json.loads, path.read_text().splitlines()) if "item" in r}

    def log_likelihood(self, context, continuation):
        """Of a model whose tokens are characters, from its logits."""
        text = context + continuation
        ids = [{" ": 0, "\n": 1}.get(c, ord(c) - 31) for c in text]
        (self.work / "ids.json").write_text(json.dumps(ids))
        run("eval", self.model, "--ids", self.work / "ids.json", "--dump-logits", self.work / "l.npy")
        data = (self.work / "l.npy").read_bytes()
        vocab = json.loads((self.model / "config.json").read_text())["vocab_size"]
        values = struct.unpack(f"<{len(ids) * vocab}f", data[-len(ids) * vocab * 4:])
        total = 0.0
        for t in range(len(context), len(ids)):
            row = values[(t - 1) * vocab:t * vocab]
            total += row[ids[t]] - math.log(sum(map(math.exp, row)))
        return total

    def test_scores_are_those_of_the_models_logits(self):
        file = self.work / "s.jsonl"
        report = self.eval("--task", self.task, "--save-samples", file)[0]
        samples = self.samples(file)
        self.assertEqual(len(samples), 24)
        right, right_by_length = 0, 0
        for i, row in enumerate(self.rows):
            context, choices = f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]]
            want = [self.log_likelihood(context, " " + c) for c in choices] if i < 4 else samples[i]["log_likelihoods"]
            for got, expected in zip(samples[i]["log_likelihoods"], want, strict=True):
                self.assertAlmostEqual(got, expected, delta=2e-3)
            by_length = [ll / len(c) for ll, c in zip(want, choices)]
            right += want.index(max(want)) == row["label"]
            right_by_length += by_length.index(max(by_length)) == row["label"]
        self.assertAlmostEqual(report["metrics"]["acc"]["value"], right / 24)
        self.assertAlmostEqual(report["metrics"]["acc_norm"]["value"], right_by_length / 24)
        p = right / 24
        self.assertAlmostEqual(report["metrics"]["acc"]["standard_error"], math.sqrt(p * (1 - p) / 23))

    def test_a_job_goes_on_where_it_ended(self):
        whole, part = self.work / "whole.jsonl", self.work / "part.jsonl"
        want = self.eval("--task", self.task, "--save-samples", whole)[0]
        lines = whole.read_text().splitlines(keepends=True)
        part.write_text("".join(lines[:10]) + lines[10][:20])
        message = run("eval", self.model, "--task", self.task, "--save-samples", part, fails=True)
        self.assertIn("go on with it by --resume", message)
        got = self.eval("--task", self.task, "--save-samples", part, "--resume")[0]
        self.assertEqual(got["resumed"], 9)
        self.assertEqual(got["metrics"], want["metrics"])
        # Items of another run do not count.
        self.assertEqual(self.eval("--task", self.task, "--save-samples", part, "--resume", "--shots", 1)[0]["resumed"], 0)
        self.assertEqual(self.eval("--task", self.task, "--save-samples", part, "--resume", "--limit", 7)[0]["resumed"], 7)

    def test_limit_shots_and_seed(self):
        file = self.work / "s.jsonl"
        r = self.eval("--task", self.task, "--limit", 5, "--shots", 2, "--save-samples", file)[0]
        self.assertEqual((r["items"], r["shots"]), (5, 2))
        contexts = [s["contexts"][0] for s in self.samples(file).values()]
        for c in contexts:
            self.assertEqual(c.count("Question: "), 3)
        other = self.work / "t.jsonl"
        self.eval("--task", self.task, "--limit", 5, "--shots", 2, "--seed", 7, "--save-samples", other)
        self.assertNotEqual(contexts, [s["contexts"][0] for s in self.samples(other).values()])
        from_file = self.work / "u.jsonl"
        shots = self.work / "train.jsonl"
        shots.write_text(json.dumps({"goal": "train", "sol1": "one", "sol2": "two", "label": 1}) + "\n")
        self.eval("--task", self.task, "--limit", 2, "--shots", 1, "--shots-from", shots, "--save-samples", from_file)
        for s in self.samples(from_file).values():
            self.assertTrue(s["contexts"][0].startswith("Question: train\nAnswer: two\n\nQuestion: lift"))

    def test_a_folder_of_subjects(self):
        folder, dev = self.work / "test", self.work / "dev"
        folder.mkdir(), dev.mkdir()
        sizes = {"anatomy": 5, "college_physics": 9, "virology": 3}
        for s, (subject, n) in enumerate(sizes.items()):
            (folder / f"{subject}_test.csv").write_text("".join(f"How many {s + i}?,{i},{i + 1},{i * s},none,{'ABCD'[(i * i + s) % 4]}\n" for i in range(n)))
            (dev / f"{subject}_dev.csv").write_text(f"An example of {subject}?,1,2,3,4,B\n" * 2)
        file = self.work / "s.jsonl"
        r = self.eval("--task", f"mmlu={folder}", "--save-samples", file)[0]
        self.assertEqual([(p["name"], p["items"]) for p in r["parts"]], list(sizes.items()))
        self.assertEqual(r["items"], 17)
        acc = [p["metrics"]["acc"] for p in r["parts"]]
        n = list(sizes.values())
        for part, subject in zip(acc, sizes):
            alone = self.eval("--task", f"mmlu={folder / (subject + '_test.csv')}")[0]
            self.assertEqual(part, alone["metrics"]["acc"])
        # lm-eval: aggregate_subtask_metrics and pooled_sample_stderr
        self.assertAlmostEqual(r["metrics"]["acc"]["value"], sum(a["value"] * k for a, k in zip(acc, n)) / 17)
        pooled = sum((k - 1) * a["standard_error"]**2 * k for a, k in zip(acc, n)) / (17 - 3)
        self.assertGreater(pooled, 0)
        self.assertAlmostEqual(r["metrics"]["acc"]["standard_error"], math.sqrt(pooled / 17))
        # The authors' categories: virology is of "other", the two others of "stem".
        self.assertEqual([(g["name"], g["items"]) for g in r["groups"]], [("other", 3), ("stem", 14)])
        self.assertEqual(r["groups"][0]["metrics"]["acc"], acc[2])
        stem = r["groups"][1]["metrics"]["acc"]
        self.assertAlmostEqual(stem["value"], sum(a["value"] * k for a, k in zip(acc[:2], n)) / 14)
        squares = sum((k - 1) * a["standard_error"]**2 * k for a, k in zip(acc[:2], n)) / (14 - 2)
        self.assertAlmostEqual(stem["standard_error"], math.sqrt(squares / 14))
        again = self.eval("--task", f"mmlu={folder}", "--save-samples", file, "--resume")[0]
        self.assertEqual((again["resumed"], again["metrics"]), (17, r["metrics"]))
        self.assertEqual(self.eval("--task", f"mmlu={folder}", "--limit", 4)[0]["items"], 4 + 4 + 3)
        shots = self.work / "shots.jsonl"
        self.eval("--task", f"mmlu={folder}", "--shots", 1, "--shots-from", dev, "--limit", 1, "--save-samples", shots)
        contexts = [r["contexts"][0] for r in map(json.loads, shots.read_text().splitlines()) if "item" in r]
        for context, subject in zip(contexts, sizes, strict=True):
            self.assertIn(f"about {subject.replace('_', ' ')}.\n\nAn example of {subject}?", context)
        self.assertIn("  college_physics", run("eval", self.model, "--task", f"mmlu={folder}"))
        message = run("eval", self.model, "--task", f"piqa={folder}", fails=True)
        self.assertIn("a folder, but piqa is one file", message)

    def test_labels_in_a_file_of_their_own(self):
        valid, labels, samples = self.work / "valid.jsonl", self.work / "valid-labels.lst", self.work / "s.jsonl"
        valid.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "label"}) + "\n" for r in self.rows))
        labels.write_text("".join(f"{r['label']}\n" for r in self.rows))
        got = self.eval("--task", f"piqa={valid}", "--save-samples", samples)[0]
        self.assertEqual(got["metrics"], self.eval("--task", self.task)[0]["metrics"])
        self.assertEqual(self.eval("--task", f"piqa={valid}", "--save-samples", samples, "--resume")[0]["resumed"], 24)
        # Scores of other labels are not these.
        labels.write_text("".join(f"{1 - r['label']}\n" for r in self.rows))
        other = self.eval("--task", f"piqa={valid}", "--save-samples", samples, "--resume")[0]
        self.assertEqual(other["resumed"], 0)
        self.assertAlmostEqual(other["metrics"]["acc"]["value"], 1 - got["metrics"]["acc"]["value"])
        labels.write_text("0\n" * 23)
        message = run("eval", self.work / "no-such-model", "--task", f"piqa={valid}", fails=True)
        self.assertIn(f"{valid} line 24: \"label\": expected line 24 of {labels}, got a file of 23 lines", message)

    def test_several_tasks_and_their_table(self):
        lambada, gsm8k = self.work / "l.jsonl", self.work / "g.jsonl"
        lambada.write_text('{"text": "It was the dog"}\n{"text": "He saw a cat"}\n')
        gsm8k.write_text('{"question": "1+1?", "answer": "#### 2"}\n' * 2)
        reports = self.eval("--task", self.task, "--task", f"lambada_openai={lambada}", "--task", f"gsm8k={gsm8k}", "--shots", 0,
                            "--limit", 2)
        self.assertEqual([r["task"] for r in reports], ["piqa", "lambada_openai", "gsm8k"])
        self.assertEqual(set(reports[1]["metrics"]), {"acc", "perplexity"})
        self.assertEqual(set(reports[2]["metrics"]), {"strict", "flexible"})
        table = run("eval", self.model, "--task", self.task, "--limit", 4)
        self.assertIn("acc_norm", table)
        self.assertIn("standard error over items", table)

    def test_bad_data_is_named_before_the_model_is_read(self):
        bad = self.work / "bad.jsonl"
        bad.write_text(json.dumps(self.rows[0]) + "\n" + json.dumps(self.rows[1] | {"label": 2}) + "\n")
        message = run("eval", self.work / "no-such-model", "--task", f"piqa={bad}", fails=True)
        self.assertIn(f'{bad} line 2: "label": expected a number from 0 to 1, got 2', message)
        message = run("eval", self.model, "--task", f"pika={bad}", fails=True)
        self.assertIn("expected NAME=FILE, where NAME is one of hellaswag, piqa", message)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
