#!/usr/bin/env python3
"""docs/compatibility.md, out of the rows that the checks of one run leave. Used by run.sh.

usage: page.py ROWS.jsonl OUT.md
"""
import json
import pathlib
import subprocess
import sys

TABLES = {
    "written": ("Written by awq, run by the programs that own the formats",
                ["`distance`: the largest difference of a program's logits from those of transformers in float32 with the same weights, as a share of the largest",
                 "logit. `at most` is three times what 16-bit floats alone make of the float model; a wrong file is above 0.3."],
                ["model", "format", "program", "distance", "at most", "greedy tokens"]),
    "served": ("Written by awq, served by vLLM's OpenAI server",
               ["`greedy tokens`: of the 200 of each answer that vLLM's server gives, how many are awq's first choice after those before; `gap` is as above, with awq's logits. `same texts`:",
                "answers that are those of `awq serve` to the last character."],
               ["model", "format", "server", "same texts", "greedy tokens"]),
    "gguf": ("GGUF files written by awq",
             ["`weights`: matrices that gguf's own dequantize gives bit for bit as the AutoAWQ folder has them. Distances are from awq's own logits of the same file;",
              "llama.cpp rounds activations to 8 bits for blocks, and its token ids of a text must be the same."],
             ["model", "format", "weights", "program", "distance", "at most", "greedy tokens"]),
    "theirs": ("Written by other programs, run by awq",
               ["`weights`: values that awq reads, of those that the program itself makes of its file; they must be equal to the last bit. `distance`: of awq's logits from the",
                "program's."],
               ["written by", "format", "weights", "distance", "at most", "greedy tokens"]),
    "clients": ("Clients of other programs, of awq serve",
                ["Programs that were made for OpenAI's API, unchanged, with the model that the first table calls smollm2-awq."],
                ["client", "what it does", "result"]),
}
GREEDY = ["`greedy tokens`: of 200 that `awq generate` wrote, how many are the program's own first choice after those before. Where one is not, `gap` is by how much the",
          "program prefers another, as a share of its largest logit; within twice the distance that is allowed, either program may choose either."]


def add(rows, table, *cells):
    """Adds a row to the file `rows`; nothing where that is None."""
    if rows is None:
        return
    if len(cells) != len(TABLES[table][2]):
        raise ValueError(f"{table}: {len(cells)} cells, expected {len(TABLES[table][2])}: {cells}")
    with open(rows, "a") as file:
        file.write(json.dumps([table, cells]) + "\n")


def not_run(rows, table, *known):
    """Adds a row of a check that this run left out: `known` are its first cells, the last of them says why."""
    *first, why = known
    add(rows, table, *first, why, *["-"] * (len(TABLES[table][2]) - len(first) - 1))


def versions(python, packages):
    code = "import importlib.metadata as m, sys; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    return subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True).stdout.strip()


def markdown(rows):
    lines = ["# Compatibility", "", "Written by `make test-ecosystem`, of checks of which none failed. \"not run\" is said where a program was left out.", "", *GREEDY]
    for name, (title, about, columns) in TABLES.items():
        lines += ["", f"## {title}", "", *about, "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(cells) + " |" for table, cells in rows if table == name]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    source, out = sys.argv[1:]
    pathlib.Path(out).write_text(markdown([json.loads(line) for line in pathlib.Path(source).read_text().splitlines()]))
