#!/usr/bin/env python3
"""Runs the README's commands, in its order, on a tiny model under the README's names.

usage: readme_test.py AWQ README.md GOLDEN_MODELS
"""
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, README, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
MODEL = "Qwen2.5-1.5B-Instruct"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


def commands(first_word):
    return [line.strip() for line in README.read_text().splitlines() if re.match(rf"    {first_word} ", line)]


def model(folder):
    tiny.make(GOLDEN, "qwen2", folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 4096  # the README measures in windows of 2,048 tokens
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


class Readme(unittest.TestCase):
    def test_commands_of_awq(self):
        work = pathlib.Path(tempfile.mkdtemp(prefix="awq-readme-"))
        self.addCleanup(shutil.rmtree, work)
        model(work / MODEL)
        chat = {"messages": [{"role": "user", "content": "Why is the sky blue?"}, {"role": "assistant", "content": "Air scatters blue light most."}]}
        (work / "chats.jsonl").write_text(f"{json.dumps(chat)}\n" * 50)
        (work / "chat.json").write_text(json.dumps(chat["messages"][:1]))
        (work / "held-out.txt").write_text("The river was over its banks. " * 200)
        (work / "code.txt").write_text("".join(f"int f{i}(int x) {{ return x + {i}; }}\n" for i in range(400)))
        piqa = {"goal": "dry a shirt", "sol1": "hang it up", "sol2": "put it in water", "label": 0}
        (work / "piqa.jsonl").write_text(f"{json.dumps(piqa)}\n" * 4)
        self.assertGreaterEqual(len(commands("awq")), 6)
        for command in commands("awq"):
            with self.subTest(command):
                done = subprocess.run([AWQ, *shlex.split(command, comments=True)[1:]], cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_targets_of_make(self):
        makefile = (README.parent / "Makefile").read_text()
        self.assertGreaterEqual(len(commands("make")), 2)
        for command in commands("make"):
            self.assertRegex(makefile, rf"(?m)^{shlex.split(command, comments=True)[1]}:")

    def test_links_and_scripts_exist(self):
        for path in re.findall(r"\]\(([^)h][^)]*)\)", README.read_text()) + re.findall(r"`(tools/[^` ]+)`", README.read_text()):
            self.assertTrue((README.parent / path).exists(), path)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
