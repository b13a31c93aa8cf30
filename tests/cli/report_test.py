#!/usr/bin/env python3
"""The report of a quantized model, its gates, and what a job says on the way.

usage: report_test.py AWQ GOLDEN_MODELS
"""
import html.parser
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

import tiny
from job_test import AWQ, digest, make_model

GOLDEN = pathlib.Path(sys.argv[2]).resolve()
VOID = {"meta", "line", "polyline", "circle", "rect", "br"}


class Page(html.parser.HTMLParser):
    """A page as a browser would read it: well nested, its text, its tables' rows, its attributes."""

    def __init__(self, file):
        super().__init__()
        self.open, self.text, self.rows, self.attributes, self.tags, self.charts = [], "", [], [], set(), []
        self.feed(file.read_text())
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "svg":
            self.charts.append(dict(attributes))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.open, self.getpos())

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


class Report(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-report-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.out, self.rejected = self.work / "out", self.work / "out.rejected"
        self.calib = self.work / "calib.txt"
        self.calib.write_text("".join(f"Line {i}: the quick brown fox jumps over {i * i} lazy dogs.\n" for i in range(60)))

    def command(self, model, *more, out=None):
        return [AWQ, "quantize", model, "-o", out or self.out, "--tokens", "64", "--samples", "4", "--threads", "1", *map(str, more)]

    def run_json(self, *command, status=0):
        done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout)

    def read(self, folder):
        return json.loads((folder / "awq-report.json").read_text()), Page(folder / "awq-report.html")

    def test_page_shows_what_the_report_holds(self):
        result = self.run_json(*self.command(tiny.make(GOLDEN, "llama", self.work / "m"), "--calib", self.calib, "--answers", 5, "--report", self.work / "run.html"))
        report, page = self.read(self.out)
        rows = {row[0]: row for row in page.rows if row[0] in {l["name"] for l in report["layers"]} and "%" in row[3]}
        codes = {row[0]: row for row in page.rows if len(row) == 17}
        for l in report["layers"]:
            self.assertEqual(rows[l["name"]][1:3], ["%.4g" % l["relative_error"], "%.4g" % l["relative_error_of_rounding"]])
            self.assertEqual(rows[l["name"]][3:], ["%.4g %%" % (100 * l["groups_clipped"]), "%.4g %%" % (100 * l["saturated"]), str(l["tokens"])])
            self.assertEqual(codes[l["name"]][1:], list(map(str, l["codes"])))
            rows_cols = {"mlp": 96 * 64}.get(l["name"].split(".")[3], 64 * 64)
            self.assertEqual(sum(l["codes"]), rows_cols)
            self.assertAlmostEqual(l["saturated"], (l["codes"][0] + l["codes"][15]) / rows_cols, delta=5e-5)
        for g in report["scales"]:
            row = next(r for r in page.rows if len(r) == 8 and r[1] == g["producer"])
            self.assertEqual(row[2:], ["%.4g" % g["alpha"], "yes" if g["weight_term"] else "no",
                                       *("%.4g" % g[k] for k in ("loss", "loss_without_scales", "smallest", "largest"))])
            magnitudes = [m for _, m, _ in g["salient"]]
            self.assertEqual(magnitudes, sorted(magnitudes, reverse=True))
            self.assertGreater(magnitudes[0], g["mean_activation"])
            self.assertIn("%d: %.4g, %.4g" % tuple(g["salient"][0]), page.text)
            self.assertEqual(g["dead_channels"], 0)
        self.assertEqual(len(report["answers"]), 5)
        for a in report["answers"]:
            for text in a.values():
                self.assertIn(text, page.text)
        source = report["calibration"]["sources"][0]
        self.assertIn([source["name"], "source 1"], [r[:2] for r in page.rows])
        self.check_safe(page)
        self.assertNotIn("Time and memory", page.text)
        timed = Page(self.work / "run.html")
        self.check_safe(timed)
        for stage, cost in result["stages"].items():
            self.assertIn([stage, "%.4g" % cost["seconds"]], [r[:2] for r in timed.rows])
        self.assertIn("%.1f MB" % (result["peak_memory"] / 1e6), timed.text)
        plain = (self.out / "awq-report.html").read_text()
        self.assertTrue((self.work / "run.html").read_text().startswith(plain.removesuffix("</main></body></html>\n")))

    def check_safe(self, page):
        """Nothing outside the page, nothing that runs; charts have a name and a description; ids are unique."""
        self.assertFalse(page.tags & {"script", "link", "img", "iframe", "object", "a", "image", "use"}, page.tags)
        self.assertFalse([a for a in page.attributes if a[0] in ("src", "href", "style") or a[0].startswith("on")])
        self.assertNotRegex(page.text, r"url\(|@import|//")
        ids = [v for k, v in page.attributes if k == "id"]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertGreater(len(page.charts), 20)
        for chart in page.charts:
            self.assertEqual(chart["role"], "img")
            self.assertTrue(set(chart["aria-labelledby"].split()) <= set(ids))
        for media in ("prefers-color-scheme: dark", "@media print"):
            self.assertIn(media, page.text)

    def test_hostile_names(self):
        model = tiny.make(GOLDEN, "llama", self.work / "m")
        name = os.fsencode(self.work) + b"/<script>alert(1)<!-- '\"&\xff.txt"
        with open(name, "wb") as f:
            f.write(self.calib.read_bytes())
        done = subprocess.run([*self.command(model), b"--calib", name, "--json"], capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        report, page = self.read(self.out)
        shown = "<script>alert(1)<!-- '\"&\ufffd.txt"
        self.assertEqual(report["calibration"]["source"], shown)
        self.assertIn(shown, [r[0] for r in page.rows])
        self.check_safe(page)

    def test_dead_channels(self):
        """A norm whose gain is zero in three places leaves three input channels at zero."""
        model = make_model(self.work / "m", 2)
        file = model / "model.safetensors"
        data = bytearray(file.read_bytes())
        n = 8 + int.from_bytes(data[:8], "little")
        begin = n + json.loads(data[8:n])["model.layers.1.input_layernorm.weight"]["data_offsets"][0]
        for channel in (3, 5, 60):
            data[begin + 2 * channel:begin + 2 * channel + 2] = b"\0\0"
        file.write_bytes(data)
        self.run_json(*self.command(model, "--calib", self.calib))
        report, page = self.read(self.out)
        dead = {g["producer"]: g["dead_channels"] for g in report["scales"]}
        self.assertEqual({k: v for k, v in dead.items() if v}, {"model.layers.1.input_layernorm": 3})
        self.assertIn(["block 1: q_proj, k_proj, v_proj", "3"], page.rows)

    def test_gates(self):
        model = make_model(self.work / "m", 4)
        plain = self.run_json(*self.command(model, "--calib", self.calib, out=self.work / "plain"))
        self.assertIsNone(plain["gate"])
        text = self.work / "gate.txt"
        text.write_text("Nine lazy dogs and 17 foxes. " * 40)
        command = self.command(model, "--calib", self.calib, "--gate-text", text)
        passed = self.run_json(*command, "--max-kl", 10, "--min-top1", "1%")
        self.assertEqual((passed["gate"]["missed"], passed["rejected"], passed["output"]), ([], False, str(self.out)))
        seen = self.run_json(AWQ, "eval", self.out, "--against", model, "--text", text, "--window", "256", "--threads", "1")
        self.assertEqual((passed["gate"]["kl"], passed["gate"]["top1"]), (seen["kl"], seen["top1"]))
        shutil.rmtree(self.out)
        limit = passed["gate"]["kl"] * 0.99
        done = subprocess.run([*command, "--max-kl", str(limit)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 3)
        self.assertRegex(done.stderr, r"rejected: KL to the original [\d.]+ is above --max-kl [\d.]+\. The result is kept aside in .*out\.rejected")
        self.assertEqual([f.name for f in self.work.glob("out*")], ["out.rejected"])
        self.assertEqual(digest(self.rejected)["model.safetensors"], digest(self.work / "plain")["model.safetensors"])
        report, page = self.read(self.rejected)
        self.assertEqual(len(report["gate"]["missed"]), 1)
        self.assertIn("Missed: the result was kept aside.", page.text)
        again = subprocess.run([*command, "--max-kl", str(limit)], capture_output=True, text=True)
        self.assertEqual(again.returncode, 1)
        self.assertIn("out.rejected: exists already", again.stderr)
        shutil.rmtree(self.rejected)
        missed = self.run_json(*command, "--min-top1", 1, status=3)
        self.assertEqual((missed["rejected"], missed["output"]), (True, str(self.rejected)))
        self.assertRegex(missed["gate"]["missed"][0], r"top-1 agreement 0\.\d+ is below --min-top1 1")

    def test_codes_of_any_width_are_counted(self):
        for name, bits, columns in [("gptq", 2, 4), ("compressed-tensors", 8, 16)]:
            self.run_json(*self.command(tiny.make(GOLDEN, "llama", self.work / f"m{bits}"), "--method", "rtn", "--format", name, "--bits", bits))
            report, page = self.read(self.out)
            rows = {row[0]: list(map(int, row[1:])) for row in page.rows if len(row) == 1 + columns and row[1].isdigit()}
            for l in report["layers"]:
                self.assertEqual(len(l["codes"]), 2**bits)
                self.assertGreater(l["codes"][-1], 0)
                each = 2**bits // columns
                self.assertEqual(rows[l["name"]], [sum(l["codes"][c:c + each]) for c in range(0, 2**bits, each)])
                self.assertAlmostEqual(l["saturated"], (l["codes"][0] + l["codes"][-1]) / sum(l["codes"]), delta=5e-5)
            self.assertIn(f"each of the {2**bits} codes", page.text)
            shutil.rmtree(self.out)

    def kill_at(self, file, more_time, command):
        """Until a run was killed before it ended: on a loaded machine this test may see the file late."""
        for _ in range(20):
            if not file.parent.exists():  # a job that ended; one killed while it ends goes on with what has its name
                shutil.rmtree(self.rejected, ignore_errors=True)
            job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not file.exists() and job.poll() is None:
                time.sleep(0.0005)
            time.sleep(more_time)
            job.send_signal(signal.SIGKILL)
            if job.wait() == -signal.SIGKILL:
                return
        self.fail(f"{file}: every run ended before it was killed")

    def test_gate_on_own_text_repeats_and_survives_kills(self):
        """Kills after the weights are complete: while both models are measured, while they answer, while the name is given."""
        model = make_model(self.work / "m", 2, 256, 512)
        more = ["--max-kl", "0"]
        self.run_json(*self.command(model, *more, out=self.work / "reference"), status=3)
        want, folder = digest(self.work / "reference.rejected"), self.work / "out.awq-job"
        for moment, more_time in (("whole", 0), ("whole", 0.1), ("judged.json", 0)):
            self.kill_at(folder / moment, more_time, self.command(model, *more, "--resume"))
        if not self.rejected.exists() or folder.exists():
            result = self.run_json(*self.command(model, *more, "--resume"), status=3)
            self.assertEqual(result["resumed_blocks"], 2)
        self.assertEqual(digest(self.rejected), want)
        self.assertFalse(folder.exists())


class Progress(unittest.TestCase):
    """A model of equal blocks on one thread, whose job takes some seconds."""
    BLOCKS = 16

    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-progress-"))
        cls.model = make_model(cls.work / "m", cls.BLOCKS, 512, 1536, 8)
        cls.calib = cls.work / "calib.txt"
        cls.calib.write_text("".join(f"Line {i}: nine lazy dogs. " for i in range(400)))

        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.on_terminal = [cls.shown(terminal=True) for _ in range(3)]

    @classmethod
    def job(cls, stderr):
        shutil.rmtree(cls.work / "out", ignore_errors=True)
        return subprocess.Popen([AWQ, "quantize", cls.model, "-o", cls.work / "out", "--calib", cls.calib, "--tokens", "128",
                                 "--samples", "32", "--threads", "1"], stdout=subprocess.DEVNULL, stderr=stderr)

    @classmethod
    def shown(cls, terminal):
        """(seconds since the job began, what it wrote) as it came, and how long the job took."""
        ours, theirs = pty.openpty() if terminal else os.pipe()
        begin, pieces = time.monotonic(), []
        job = cls.job(theirs)
        os.close(theirs)
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how a terminal ends
                break
            if not piece:
                break
            pieces.append((time.monotonic() - begin, piece.decode()))
        os.close(ours)
        assert job.wait() == 0, pieces[-3:]
        return pieces, time.monotonic() - begin

    def test_time_left_after_two_blocks(self):
        """On a terminal there are several estimates a second; the median over those of three jobs is within a fifth."""
        ratios = []
        for pieces, took in self.on_terminal:
            for when, text in pieces:
                for done, left in re.findall(r"\] \w+ (\d+)/16, [\d:]+ elapsed, (\d+:\d\d) left", text):
                    minutes, seconds = map(int, left.split(":"))
                    if 2 <= int(done) <= 6:
                        ratios.append((60 * minutes + seconds) / (took - when))
        self.assertGreater(len(ratios), 10)
        self.assertAlmostEqual(statistics.median(ratios), 1, delta=0.2)

    def test_bar_on_a_terminal(self):
        pieces, _ = self.on_terminal[0]
        text = "".join(t for _, t in pieces)
        bars = re.findall(r"\r\033\[K\[(#*)(-*)\] (?:calibrate|search) (\d+)/16, \d+:\d\d elapsed, \d+:\d\d left, [\d.]+ MB in memory, "
                          r"error of the last block 0\.\d{5}", text)
        self.assertGreater(len(bars), 10)
        for full, rest, done in bars:
            self.assertEqual((len(full), len(rest)), (20 * int(done) // 16, 20 - 20 * int(done) // 16))
        self.assertTrue(text.endswith("\r\033[K"))  # wiped at the end

    def test_lines_elsewhere(self):
        pieces, _ = self.shown(terminal=False)
        text = "".join(t for _, t in pieces)
        self.assertNotRegex(text, "[\r\033]")
        for line in text.splitlines():
            self.assertRegex(line, r"^(weigh|calibrate|search) \d+/(16|33), \d+:\d\d elapsed(, \d+:\d\d left)?, [\d.]+ MB in memory(, error of the last block 0\.\d{5})?$")
        self.assertGreater(len(text.splitlines()), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
