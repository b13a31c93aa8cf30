#!/usr/bin/env python3
"""`awq tokenize` and `awq render` on a tiny model.

usage: text_test.py AWQ GOLDEN_MODELS GOLDEN_TEXT
"""
import base64
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN, TEXT = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
TEMPLATE = ("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}{% if mood is defined %} {{ mood }}{% endif %}")


def awq(*arguments, **more):
    return subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True, **more)


def out(*arguments, **more):
    done = awq(*arguments, **more)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


class Text(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-text-"))
        cls.model = tiny.make(GOLDEN, "llama", cls.work / "model")
        cls.tokenizer = cls.model / "tokenizer.json"
        tokenizer = tiny.tokenizer()
        tokenizer["added_tokens"] = [{"id": 96, "content": "<s>", "special": True, "normalized": False}]
        tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                       "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [96], "tokens": ["<s>"]}}}
        cls.tokenizer.write_text(json.dumps(tokenizer))
        (cls.model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
        (cls.model / "chat_template.jinja").write_text(TEMPLATE)
        cls.chat = cls.work / "chat.json"
        cls.chat.write_text(json.dumps([{"role": "user", "content": "é <s>"}]))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work)

    def test_a_token_a_line(self):
        self.assertEqual(out("tokenize", self.model, "--text", "a b"), '      96  "<s>"\n      66  "a"\n       0  "Ġ"\n      67  "b"\n')
        self.assertEqual(out("tokenize", self.model, "--text", "a b", "--ids"), "96 66 0 67\n")
        self.assertEqual(out("tokenize", self.model, "--text", "", "--ids", "--plain"), "\n")

    def test_special_tokens_only_when_asked(self):
        self.assertEqual(out("tokenize", "--tokenizer", self.tokenizer, "--text", "<s>", "--ids", "--plain"), "29 84 31\n")
        self.assertEqual(out("tokenize", "--tokenizer", self.tokenizer, "--text", "<s>", "--ids", "--plain", "--special"), "96\n")

    def test_sources_of_text(self):
        (self.work / "t.txt").write_bytes(b"a\nb\xff")
        self.assertEqual(out("tokenize", self.model, "-f", self.work / "t.txt", "--ids", "--plain"), "66 1 67\n")
        self.assertEqual(out("tokenize", self.model, "--ids", "--plain", input="ab"), "66 67\n")
        self.assertEqual(out("tokenize", self.model, "--ids", "--plain", "--lines", input="a\n\nb"), "66\n\n67\n")

    def test_json_and_back(self):
        self.assertEqual(json.loads(out("tokenize", self.model, "--text", "a b", "--json")), {"ids": [96, 66, 0, 67], "tokens": ["<s>", "a", "Ġ", "b"], "decoded": "<s>a b"})
        self.assertEqual(out("tokenize", self.model, "--decode", "66,0,67"), "a b\n")
        self.assertEqual(out("tokenize", self.model, "--decode", "96,66", "--skip-special"), "a\n")
        self.assertEqual(json.loads(out("tokenize", self.model, "--text", "a", "--json", "--skip-special"))["decoded"], "a")
        self.assertEqual(json.loads(out("tokenize", self.model, "--decode", "66", "--json")), {"ids": [66], "decoded": "a"})

    def test_other_files(self):
        for made in json.loads((TEXT / "sentencepiece.json").read_text())["models"][6:]:
            file = self.work / "tokenizer.model"
            file.write_bytes(base64.b64decode(made["sentencepiece"]) if "sentencepiece" in made else made["tiktoken"].encode())
            case = next(c for c in made["cases"] if c.get("text") == "Hello, world!")
            splitting = ["--splitting", made["splitting"]] if "splitting" in made else []
            self.assertEqual(out("tokenize", "--tokenizer", file, "--text", case["text"], "--ids", *splitting), " ".join(map(str, case["ids"])) + "\n")
        self.assertIn("llama3", awq("tokenize", "--tokenizer", file, "--text", "x").stderr)  # names what --splitting may be

    def test_render(self):
        self.assertEqual(out("render", self.model, "--messages", self.chat), "<s>[user]é <s>")
        self.assertEqual(out("render", self.model, "--messages", self.chat, "--add-generation-prompt", "--kwargs", '{"mood": "😀"}'), "<s>[user]é <s>[assistant] 😀")
        (self.work / "tools.json").write_text('[{"b": 1, "a": "<x>"}]')
        self.assertEqual(json.loads(out("render", self.model, "--messages", self.chat, "--tools", self.work / "tools.json", "--json")), {"text": '<s>[user]é <s>{"b": 1, "a": "<x>"}'})
        (self.work / "other.jinja").write_text("{{ messages | length }}")
        (self.work / "wrapped.json").write_text(json.dumps({"messages": [1, 2]}))
        self.assertEqual(out("render", "--template", self.work / "other.jinja", "--messages", self.work / "wrapped.json"), "2")

    def test_special_tokens_of_messages(self):
        ids = lambda *flags: out("render", self.model, "--messages", self.chat, "--ids", *flags).split().count("96")
        self.assertEqual((ids(), ids("--special")), (1, 2))
        self.assertEqual(json.loads(out("render", self.model, "--messages", self.chat, "--ids", "--json"))["ids"][0], 96)
        prompt = lambda *flags: json.loads(out("generate", self.model, "--chat", "-p", "<s>", "-n", "1", "--json", *flags))["prompt_tokens"]
        self.assertEqual(prompt() - prompt("--special"), 2)  # three characters or one token
        self.assertEqual(awq("generate", self.model, "-p", "<s>", "--special").returncode, 2)

    def test_help_has_defaults_and_an_example(self):
        for verb in ("tokenize", "render"):
            text = out(verb, "--help")
            self.assertIn("Example:", text)
            self.assertIn("default:", text)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
