#!/usr/bin/env python3
"""Calibration text under the user's control: mixes, masks, and what the report says of them.

usage: calibration_test.py AWQ GOLDEN_MODELS

The tiny models' tokenizer has one token a character, so token ids and masks are worked out here and compared by hash.
"""
import hashlib
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
END, END_ID = "<|im_end|>", 100

PLAIN = ("{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
         "{% if add_generation_prompt %}[assistant]{% endif %}")
# As Qwen3's: the last answer gets an empty thought in front, earlier ones lose theirs.
THINKS = ("{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
          "{%- for m in messages -%}{{- '[' + m.role + ']' -}}{%- set c = m.content -%}"
          "{%- if m.role == 'assistant' -%}{%- if '</think>' in c -%}{%- set c = c.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}"
          "{%- if loop.index0 > ns.last -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{%- endif -%}"
          "{{- c + '<|im_end|>' + '\n' -}}{%- endfor -%}")


def run(*arguments):
    return subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def ids(text):
    out = []
    while text:
        if text.startswith(END):
            out.append(END_ID)
            text = text[len(END):]
        else:
            out.append({" ": 0, "\n": 1}.get(text[0], ord(text[0]) - 31))
            text = text[1:]
    return out


def hash_of_ids(tokens):
    return hashlib.sha256(struct.pack(f"<{len(tokens)}i", *tokens)).hexdigest()


def plain(chat):
    """[(part of the rendered text, does it count)]"""
    parts = []
    for m in chat:
        answer = m["role"] == "assistant"
        parts += [(f"[{m['role']}]", 0), (m["content"], answer), (END, answer), ("\n", 0)]
    return parts


def thinks(chat):
    last_user, parts = max(i for i, m in enumerate(chat) if m["role"] == "user"), []
    for i, m in enumerate(chat):
        answer, content = m["role"] == "assistant", m["content"]
        parts.append((f"[{m['role']}]", 0))
        if answer and i > last_user:
            parts.append(("<think>\n\n</think>\n\n", 0))
        parts += [(content.split("</think>")[-1].lstrip("\n") if answer else content, answer), (END, answer), ("\n", 0)]
    return parts


def chats(count):
    turn = lambda role, content: {"role": role, "content": content}
    return [[turn("user", f"What is {i} and {i}?"), turn("assistant", f"{'<think>easy</think>' if i % 3 == 1 else ''}{2 * i}, of course."),
             turn("user", "00 sure?"), turn("assistant", f"0 doubt. {i}0")] for i in range(count)]


class Calibration(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-calib-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.model = tiny.make(GOLDEN, "llama", self.work / "m")
        tokenizer = tiny.tokenizer()
        tokenizer["added_tokens"] = [{"id": END_ID, "content": END, "special": True, "normalized": False, "single_word": False,
                                      "lstrip": False, "rstrip": False}]
        (self.model / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.use(PLAIN)
        self.a, self.b, self.lines = (self.work / n for n in ("a.txt", "b.txt", "lines.jsonl"))
        self.a.write_text("".join(f"Line {i}: the quick brown fox jumps over {i * i} lazy dogs.\n" for i in range(60)))
        self.b.write_text("".join(f"{i} cats, {i % 7} moons; " for i in range(200)))
        self.texts = ["x" * (10 + 7 * i % 50) for i in range(40)]
        self.lines.write_text("".join(json.dumps({"text": t}) + "\n" for t in self.texts))
        self.chats = self.work / "chats.jsonl"
        self.chats.write_text("".join(json.dumps({"messages": c}) + "\n" for c in chats(12)))

    def use(self, template):
        (self.model / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))

    def calibration(self, *more):
        out = self.work / f"out{len(list(self.work.iterdir()))}"
        printed = json.loads(run("quantize", self.model, "-o", out, "--tokens", 64, "--samples", 8, "--json", *more))
        report = json.loads((out / "awq-report.json").read_text())["calibration"]
        self.assertEqual(printed["calibration"]["sha256_of_token_ids"], report["sha256_of_token_ids"])
        self.assertEqual(printed["calibration"]["sources"], report["sources"])
        return report

    def test_weights_are_shares_of_the_tokens(self):
        r = self.calibration("--calib", self.a, "--calib", f"{self.b}=3")
        self.assertEqual([(s["name"], s["weight"], s["sequences"]) for s in r["sources"]], [("a.txt", 1, 2), ("b.txt", 3, 6)])
        self.assertEqual(r["sha256_of_token_ids"], hash_of_ids(ids(self.a.read_text())[:128] + ids(self.b.read_text())[:384]))
        self.assertEqual(r["sequences"], 8)
        self.assertNotIn("sha256_of_mask", r)
        self.assertEqual(r["tokens_read"], len(self.a.read_text()) + len(self.b.read_text()))
        self.assertEqual(r["tokens_unused"], r["tokens_read"] - 512)

    def test_a_file_may_have_an_equals_sign(self):
        odd = self.work / "a=2.txt"
        odd.write_text(self.a.read_text())
        self.assertEqual(self.calibration("--calib", odd)["sources"][0]["name"], "a=2.txt")
        both = self.calibration("--calib", f"{odd}=3", "--calib", self.b)["sources"]
        self.assertEqual([(s["name"], s["weight"], s["sequences"]) for s in both], [("a=2.txt", 3, 6), ("b.txt", 1, 2)])

    def test_every_text_is_accounted_for(self):
        source = self.calibration("--calib", self.lines)["sources"][0]
        used, truncated, dropped = 512, 0, 0
        for t in self.texts:
            dropped += used <= 0
            truncated += 0 < used < len(t)
            used -= len(t)
        self.assertEqual((source["texts"], source["texts_truncated"], source["texts_dropped"]), (40, truncated, dropped))
        self.assertGreater(dropped, 0)
        self.assertEqual((source["tokens"], source["tokens_used"], source["tokens_counted"]), (sum(map(len, self.texts)), 512, 512))

    def check_mask(self, parts):
        r = self.calibration("--calib", self.chats, "--mask-prompts")
        tokens = [t for text, _ in parts for t in ids(text)][:512]
        mask = bytes(int(counts) for text, counts in parts for _ in ids(text))[:512]
        self.assertEqual(r["sha256_of_token_ids"], hash_of_ids(tokens))
        self.assertEqual(r["sources"][0]["tokens_counted"], sum(mask))
        self.assertEqual(r["sha256_of_mask"], hashlib.sha256(mask).hexdigest())
        self.assertNotIn(sum(mask), (0, 512))

    def test_only_answers_count(self):
        self.check_mask([p for c in chats(12) for p in plain(c)])

    def test_answers_are_found_where_the_template_rewrites_earlier_ones(self):
        self.use(THINKS)
        self.check_mask([p for c in chats(12) for p in thinks(c)])

    def test_masks_change_the_weights_and_nothing_else_does(self):
        folders = []
        for more in ([], ["--mask-prompts"], ["--mask-prompts", "--threads", 1]):
            folders.append(self.work / f"f{len(folders)}")
            run("quantize", self.model, "-o", folders[-1], "--tokens", 64, "--samples", 8, "--calib", self.chats, *more)
        whole, masked, again = ((f / "model.safetensors").read_bytes() for f in folders)
        self.assertNotEqual(whole, masked)
        self.assertEqual(masked, again)
        layers = json.loads((folders[1] / "awq-report.json").read_text())
        self.assertEqual({l["tokens"] for l in layers["layers"]}, {layers["calibration"]["sources"][0]["tokens_counted"]})

    def test_plain_text_counts_beside_masked_chats(self):
        r = self.calibration("--calib", self.chats, "--calib", self.a, "--mask-prompts")
        self.assertEqual(r["sources"][1]["tokens_counted"], 256)
        self.assertLess(r["sources"][0]["tokens_counted"], 256)

    def test_a_source_that_is_too_short_is_said(self):
        short = self.work / "short.txt"
        short.write_text("y" * 100)
        done = subprocess.run([AWQ, "quantize", self.model, "-o", self.work / "o", "--tokens", "64", "--samples", "8", "--calib", self.a,
                               "--calib", short], capture_output=True, text=True, check=True)
        self.assertIn("warning: short.txt has text for 1 of the 4 calibration sequences", done.stderr)

    def test_compare_is_what_quantizing_and_comparing_give(self):
        common = ["--tokens", 64, "--samples", 8]
        held = self.work / "held.txt"
        held.write_text("".join(f"Number {i} sleeps while {i * 3} cats watch.\n" for i in range(40)))
        mixes = json.loads(run("calib", "compare", self.model, self.a, f"{self.a},{self.b}=3", "--eval", held, "--window", 64, "--json",
                               "--scratch", self.work, *common))
        self.assertEqual([m["mix"] for m in mixes], ["a.txt", "a.txt,b.txt=3"])
        run("quantize", self.model, "-o", self.work / "q0", "--calib", self.a, *common)
        run("quantize", self.model, "-o", self.work / "q1", "--calib", self.a, "--calib", f"{self.b}=3", *common)
        want = json.loads(run("compare", self.model, self.work / "q0", self.work / "q1", "--text", held, "--window", 64, "--json"))[1:]
        for got, other in zip(mixes, want):
            self.assertEqual((got["kl"], got["kl_standard_error"], got["top1"]), (other["kl"], other["kl_standard_error"], other["top1"]))
        differences = [b - a for a, b in zip(mixes[0]["window_kl"], mixes[1]["window_kl"])]
        mean = sum(differences) / len(differences)
        error = (sum((d - mean) ** 2 for d in differences) / (len(differences) - 1) / len(differences)) ** 0.5
        self.assertAlmostEqual(mixes[1]["kl_minus_first"], mean, delta=1e-12)
        self.assertAlmostEqual(mixes[1]["kl_minus_first_standard_error"], error, delta=1e-12)
        self.assertEqual([f.name for f in self.work.iterdir() if f.name.startswith(".awq")], [])

    def test_compare_on_text_of_its_own(self):
        arguments = ["calib", "compare", self.model, "self", self.a, "--window", 64, "--windows", 4, "--json", "--scratch", self.work,
                     "--tokens", 64, "--samples", 8]
        first, second = json.loads(run(*arguments)), json.loads(run(*arguments))
        self.assertEqual([m["mix"] for m in first], ["self", "a.txt"])
        self.assertEqual([m["window_kl"] for m in first], [m["window_kl"] for m in second])
        self.assertEqual(first[0]["windows"], 4)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
