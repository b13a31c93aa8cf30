#!/usr/bin/env python3
"""awq study from the command line, against models that are really written and compared.

usage: study_test.py AWQ GOLDEN_MODELS
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])


def run(*arguments):
    return subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


class Study(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-study-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.model = tiny.make(GOLDEN, "llama", self.work / "m")
        self.calib, self.text = self.work / "calib.txt", self.work / "text.txt"
        self.calib.write_text("".join(f"Line {i}: the quick brown fox jumps over {i * i} lazy dogs.\n" for i in range(60)))
        self.text.write_text("".join(f"No. {i}, held out: {i * 7} boxing wizards jump quickly.\n" for i in range(40)))
        self.common = ["--calib", self.calib, "--tokens", 64, "--samples", 8]
        self.held_out = ["--text", self.text, "--windows", 6, "--window", 64]

    def study(self, name, *more):
        return json.loads(run("study", name, self.model, *self.common, *self.held_out, "--json", *more))

    def rows(self, name, *more):
        return {r["name"]: r for r in self.study(name, *more)["rows"]}

    def test_simulated_codes_are_as_far_away_as_those_of_a_file(self):
        names = ["rtn", "awq", "awq+", "gptq"]
        # With matrix tiles a job takes its statistics from blocks in bfloat16, a study from floats.
        floats = ["--isa", "portable"]
        rows = self.rows("methods", "--methods", ",".join(names), *floats)
        for name in names:
            run("quantize", self.model, "-o", self.work / name, "--method", name, *self.common, *floats)
        rows |= self.rows("methods", "--methods", "llm-awq", *floats)
        run("quantize", self.model, "-o", self.work / "llm-awq", "--variant", "llm-awq", *self.common, *floats)
        names.append("llm-awq")
        reports = json.loads(run("compare", self.model, *(self.work / n for n in names), *self.held_out, "--json"))
        self.assertAlmostEqual(rows["float"]["perplexity"], reports[0]["perplexity"], delta=1e-4 * reports[0]["perplexity"])
        self.assertEqual(rows["float"]["kl"], 0)
        # The file is run with activations in 16-bit integers and norms in f16, which is 1 % of what 4 bits cost here.
        for name, report in zip(names, reports[1:]):
            self.assertAlmostEqual(rows[name]["kl"], report["kl"], delta=0.03 * report["kl"], msg=name)
            self.assertAlmostEqual(rows[name]["kl_standard_error"], report["kl_standard_error"], delta=0.1 * report["kl_standard_error"])

    def test_more_bits_and_smaller_groups_are_closer(self):
        kl = {n: r["kl"] for n, r in self.rows("bits", "--methods", "rtn,awq+").items()}
        for method in ("rtn", "awq+"):
            self.assertEqual(sorted((kl[f"{method}, {b} bits"], -b) for b in (2, 3, 4, 8)),
                             [(kl[f"{method}, {b} bits"], -b) for b in (8, 4, 3, 2)])
        r = self.study("groups", "--methods", "rtn", "--bits", "8", "--symmetric", "--scales", "bf16")
        kl = [row["kl"] for row in r["rows"][1:]]
        self.assertEqual([row["group_size"] for row in r["rows"][1:]], [32, -1])
        self.assertLess(kl[0], kl[-1])
        self.assertEqual(len(r["warnings"]), 2)  # 64 and 128 do not divide 96

    def test_every_study_has_its_rows_and_repeats(self):
        for name, rows in {"salient": 15, "alpha": 12, "clip": 7}.items():
            r = self.study(name)
            self.assertEqual(len(r["rows"]), rows, name)
            self.assertEqual(len({row["name"] for row in r["rows"]}), rows)
            self.assertGreater(min(row["kl"] for row in r["rows"][1:]), 0)
            again = self.study(name, "--threads", 1)
            self.assertEqual(again["rows"], r["rows"])
        self.assertEqual({row["bits"] for row in r["rows"][1:]}, {3})

    def test_calibrations_are_those_that_they_say(self):
        """Each row is that of a study of its own calibration; a source that is too short has one row for all that it has."""
        short = self.work / "short.txt"
        short.write_text(self.calib.read_text()[:64 * 5])
        sources = ["--calib", self.calib, "--calib", short, "--tokens", 64]
        r = json.loads(run("study", "calibration", self.model, *sources, *self.held_out, "--methods", "rtn,awq", "--counts", "8,2,16", "--json"))
        labels = [f"{n} x 64 of {source}" for source, counts in (("calib.txt", (2, 8, 16)), ("short.txt", (2, 5))) for n in counts]
        self.assertEqual([row["name"] for row in r["rows"]], ["float"] + [f"{m}, {label}" for label in labels for m in ("rtn", "awq")])
        self.assertEqual([row["calibration"] for row in r["rows"][1:]], [i for i in range(5) for _ in range(2)])
        self.assertEqual([(c["source"], c["sequences"]) for c in r["calibrations"]],
                         [("calib.txt", 2), ("calib.txt", 8), ("calib.txt", 16), ("short.txt", 2), ("short.txt", 5)])
        self.assertEqual(len(r["warnings"]), 1)
        self.assertIn("short.txt has text for 5 of the 8 calibration sequences", r["warnings"][0])
        rows = {row["name"]: row for row in r["rows"]}
        self.assertEqual(len({rows[f"rtn, {label}"]["kl"] for label in labels}), 1)  # looks at no data
        self.assertEqual(len({rows[f"awq, {label}"]["kl"] for label in labels}), 4)  # the first two sequences of both are the same
        alone = self.rows("methods", "--methods", "rtn,awq")  # 8 of calib.txt
        for m in ("rtn", "awq"):
            self.assertEqual(*(row["kl"] for row in (alone[m], rows[f"{m}, 8 x 64 of calib.txt"])))
        self.assertEqual(rows["rtn, 2 x 64 of calib.txt"]["kl_difference"], 0)

    def test_rivals(self):
        rows = self.rows("methods", "--methods", "rtn,nf4,smoothquant-w8a8,w4a4,quarot-w4a4")
        self.assertLess(rows["smoothquant-w8a8"]["kl"], rows["rtn"]["kl"])
        self.assertGreater(rows["w4a4"]["kl"], rows["rtn"]["kl"])
        self.assertEqual((rows["smoothquant-w8a8"]["bits"], rows["smoothquant-w8a8"]["group_size"]), (8, -1))

    def test_table(self):
        out = run("study", "clip", self.model, *self.common, *self.held_out)
        self.assertEqual(len(out.splitlines()), 1 + 7 + 2)
        self.assertIn("not clipped", out)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
