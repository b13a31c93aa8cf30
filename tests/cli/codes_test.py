#!/usr/bin/env python3
"""What codes may be, in every format that holds them: symmetric, of whole rows, with scales in bf16, with portable scales.

usage: codes_test.py AWQ GOLDEN_MODELS

Weights are rounded here a second time, from the definition in docs/methods.md, and must be those of the file to the last
bit, once `awq convert --format hf` has read it.
"""
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
# Options that the format holds, beside groups of 32 with scales in f16.
HOLDS = {
    "autoawq": {"symmetric", "rows"},
    "autoawq-gemv": {"symmetric"},
    "autoawq-gemv-fast": {"symmetric"},
    "autoawq-marlin": {"symmetric", "rows"},
    "llm-awq": {"symmetric", "bf16"},
    "modelopt": {"symmetric", "bf16"},
    "compressed-tensors": {"symmetric", "rows", "bf16"},
    "gptq": {"symmetric", "rows"},
    "gptq-v1": {"symmetric", "rows"},
    "mlx": {"symmetric", "bf16"},
    "gguf-q4_0": {"symmetric", "rows"},
    "gguf-q4_1": {"symmetric", "rows"},
}
MIDDLE_ONLY = {"autoawq-marlin", "modelopt", "gguf-q4_0"}
OFFSETS = {"autoawq-gemv-fast", "llm-awq", "mlx", "gguf-q4_1"}
FLAGS = {"symmetric": ["--symmetric"], "rows": ["--group-size", "-1"], "bf16": ["--scales", "bf16"], "portable": ["--portable-scales"]}


def awq(*arguments):
    return subprocess.run([AWQ, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def f16(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bf16(x):
    """Half to even, of a number that is one of f32."""
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    bits += 0x7fff + (bits >> 16 & 1)
    return struct.unpack("<f", struct.pack("<I", bits & 0xffff0000))[0]


def seven_digits(x):
    """Half to even, for numbers far from the ends of f16."""
    unit = 1.0
    while x / unit >= 128:
        unit *= 2
    while x / unit < 64:
        unit /= 2
    return round(x / unit) * unit


def rounded(row, options, offsets):
    """4 bits: docs/methods.md, docs/numerics.md."""
    group = len(row) if "rows" in options else 32
    to = bf16 if "bf16" in options else f16
    if "portable" in options:
        to = seven_digits
    out = []
    for begin in range(0, len(row), group):
        w = row[begin:begin + group]
        low, high = min(0.0, *w), max(0.0, *w)
        if "symmetric" in options:
            scale, zero = to(f32(2 * max(-low, high) / 15)), 8
        else:
            scale = to(f32(f32(high - low) / 15))
            zero = min(15, round(f32(-low / scale)))
        codes = [min(15, max(0, round(f32(x / scale)) + zero)) for x in w]
        if offsets:
            shift = (bf16 if "bf16" in options else f16)(-(zero * scale))
            out += [f32(c * scale + shift) for c in codes]
        else:
            out += [(c - zero) * scale for c in codes]
    return out


def tensors_of(folder):
    data = (folder / "model.safetensors").read_bytes()
    n = 8 + struct.unpack("<Q", data[:8])[0]
    return {name: (e["dtype"], e["shape"], data[n + e["data_offsets"][0]:n + e["data_offsets"][1]])
            for name, e in json.loads(data[8:n]).items() if name != "__metadata__"}


def floats(dtype, data):
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
    return struct.unpack(f"<{len(data) // {'F32': 4, 'F16': 2}[dtype]}{'f' if dtype == 'F32' else 'e'}", data)


def make_model(folder):
    """One block whose widths every format packs, of random bf16 weights."""
    tiny.make(GOLDEN, "llama", folder)
    config = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 128, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [128, 64], "model.norm.weight": [64], "lm_head.weight": [128, 64]}
    block = "model.layers.0."
    shapes |= {block + f"self_attn.{p}_proj.weight": [64, 64] for p in "qkvo"}
    shapes |= {block + "mlp.gate_proj.weight": [128, 64], block + "mlp.up_proj.weight": [128, 64], block + "mlp.down_proj.weight": [64, 128]}
    shapes |= {block + "input_layernorm.weight": [64], block + "post_attention_layernorm.weight": [64]}
    rng, header, data = random.Random(7), {}, b""
    for name, shape in shapes.items():
        norm = len(shape) == 1
        values = [bf16(f32(1.0 if norm else rng.gauss(0.03, 0.3))) for _ in range(shape[0] * (1 if norm else shape[1]))]
        tensor = b"".join(struct.pack("<f", v)[2:] for v in values)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(tensor)]}
        data += tensor
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


class Codes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-codes-"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.model = make_model(cls.work / "m")
        cls.weights = {n: (shape, floats(t, d)) for n, (t, shape, d) in tensors_of(cls.model).items() if "_proj." in n}
        cls.text = cls.work / "text.txt"
        cls.text.write_text("".join(f"Line {i}: the quick brown fox jumps over {i * i} lazy dogs.\n" for i in range(60)))

    def command(self, verb, out, format, options, *more):
        flags = [f for o in sorted(options) for f in FLAGS[o]] + ([] if "rows" in options else ["--group-size", 32])
        return [verb, self.model, "-o", self.work / out, "--format", format, *flags, *more]

    def quantize(self, out, format, options, *more):
        done = awq(*self.command("quantize", out, format, options, "--json", *(more or ["--method", "rtn"])))
        self.assertEqual(done.returncode, 0, (format, options, done.stderr))
        return json.loads(done.stdout)

    def check_values(self, out, options, offsets):
        """And runs: activations are rounded to 16 bits, which moves logits by 1e-4 of what 4 bits do, and KL by its square."""
        floats_of = self.work / (out + "-hf")
        done = awq("convert", self.work / out, "-o", floats_of, "--format", "hf")
        self.assertEqual(done.returncode, 0, (out, done.stderr))
        there = tensors_of(floats_of)
        for name, ((rows, cols), w) in self.weights.items():
            want = [x for r in range(rows) for x in rounded(w[r * cols:(r + 1) * cols], options, offsets)]
            self.assertEqual(list(floats(there[name][0], there[name][2])), want, (out, name))
        seen = json.loads(awq("eval", self.work / out, "--against", floats_of, "--text", self.text, "--window", 64, "--windows", 4, "--json").stdout)
        self.assertLess(seen["kl"], 1e-5, out)

    def test_every_format_holds_what_it_says(self):
        for format, held in HOLDS.items():
            fixed = {"symmetric"} if format in MIDDLE_ONLY else set()
            for options in [set(), {"symmetric"}, {"rows"}, {"bf16"}, {"rows", "bf16"}, {"symmetric", "rows"}]:
                out = "-".join([format, *sorted(options)])
                if format == "gptq-v1" and "symmetric" not in options:
                    continue
                if not options <= held:
                    self.check_refused(out, format, options - held)
                    continue
                with self.subTest(out):
                    report = self.quantize(out, format, options)
                    self.assertEqual((report["symmetric"], report["group_size"], report["scales"]),
                                     ("symmetric" in options | fixed, -1 if "rows" in options else 32, "bf16" if "bf16" in options else "f16"))
                    self.check_values(out, options | fixed, format in OFFSETS)

    def check_refused(self, out, format, options):
        for verb in ("quantize", "plan"):
            done = awq(*self.command(verb, out, format, options, "--method", "rtn"))
            self.assertEqual(done.returncode, 1, out)
            self.assertFalse((self.work / out).exists())
            self.assertIn(format, done.stderr)
            for option, (name, way_out) in {"rows": ("--group-size -1", "take --group-size 128, 64 or 32, or one of autoawq"),
                                            "bf16": ("--scales bf16", "leave it out, or take one of llm-awq")}.items():
                if options == {option}:
                    self.assertIn(name, done.stderr)
                    self.assertIn(way_out, done.stderr)

    def test_files_say_it(self):
        self.quantize("ct", "compressed-tensors", {"rows", "symmetric", "bf16"})
        config = json.loads((self.work / "ct" / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]["weights"]
        self.assertEqual(config, {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "channel", "group_size": None})
        there = tensors_of(self.work / "ct")
        down = "model.layers.0.mlp.down_proj."
        self.assertEqual(there[down + "weight_scale"][:2], ("BF16", [64, 1]))
        self.assertNotIn(down + "weight_zero_point", there)
        self.quantize("a", "autoawq", {"rows", "symmetric"})
        config = json.loads((self.work / "a" / "config.json").read_text())["quantization_config"]
        self.assertEqual((config["group_size"], config["zero_point"]), (-1, False))
        self.assertEqual(tensors_of(self.work / "a")[down + "scales"][:2], ("F16", [1, 64]))
        self.quantize("g", "gptq", {"rows", "symmetric"})
        config = json.loads((self.work / "g" / "config.json").read_text())["quantization_config"]
        self.assertEqual((config["group_size"], config["sym"]), (-1, True))

    def test_the_head_is_as_the_blocks_are(self):
        for bits in (4, 8):
            self.quantize(f"head-{bits}", "autoawq", {"rows", "symmetric"}, "--method", "rtn", "--quantize-head", bits)
            self.assertEqual(awq("verify", self.work / f"head-{bits}").returncode, 0)  # reads all, zero points too
            head = tensors_of(self.work / f"head-{bits}")["lm_head.scales"]
            self.assertEqual(head[:2], ("F16", [1, 128]))

    def test_plan_counts_rows_and_scales(self):
        for format, options in [("autoawq", {"rows"}), ("compressed-tensors", {"rows", "symmetric", "bf16"}), ("gguf-q4_1", {"rows"})]:
            out = "planned-" + format
            planned = json.loads(awq(*self.command("plan", out, format, options, "--method", "rtn", "--json")).stdout)
            report = self.quantize(out, format, options)
            tensors = json.loads(awq("inspect", self.work / out, "--json").stdout)["tensors"]
            bytes_of = sum(t["bytes"] for t in tensors if not t["name"].endswith(("norm.weight", "weight_shape")))
            self.assertEqual(planned["output_bytes"], bytes_of + 2 * 2 * 64)  # two norms in 16 bits
            self.assertLessEqual(report["peak_memory"], planned["peak_memory"])

    def test_searched_saved_and_loaded(self):
        common = ["--calib", self.text, "--tokens", 64, "--samples", 8]
        for options in [{"rows"}, {"symmetric"}, {"rows", "symmetric", "bf16"}]:
            name = "s-" + "-".join(sorted(options))
            file = self.work / (name + ".safetensors")
            for method in ("awq+", "gptq", "awq"):
                more = ["--save-search", file] if method == "awq" else []
                report = self.quantize(name + method, "compressed-tensors", options, "--method", method, *common, *more)
                self.assertLess(report["mean_relative_error"], report["mean_relative_error_of_rounding"], (name, method))
            self.quantize(name + "-loaded", "compressed-tensors", options, "--load-search", file)
            self.assertEqual(*((self.work / (name + o) / "model.safetensors").read_bytes() for o in ("awq", "-loaded")))
            loaded = self.quantize(name + "-other", "compressed-tensors", {"rows"} ^ options & {"rows"}, "--load-search", file)
            self.assertIn("a search of their own would be closer", loaded["warnings"][0])
            self.assertIn("whole rows", loaded["warnings"][0])

    def test_the_page_says_it(self):
        self.quantize("page", "compressed-tensors", {"rows", "symmetric", "bf16"})
        page = (self.work / "page" / "awq-report.html").read_text()
        self.assertIn("4 bits, whole rows, symmetric, scales in bf16", page)

    def test_portable_scales_are_the_same_in_every_format(self):
        """The property that they are for: converted without a loss, where products of zero points with other scales are not exact."""
        for method in ("rtn", "awq+"):
            more = ["--method", method, "--calib", self.text, "--tokens", 64, "--samples", 8] if method != "rtn" else ["--method", "rtn"]
            for options, held in [({"portable"}, True), (set(), False)]:
                out = "-".join(["from", method, *options])
                self.quantize(out, "autoawq", options, *more)
                for format in sorted(OFFSETS):
                    done = awq("convert", self.work / out, "-o", self.work / f"{out}-{format}", "--format", format, "--json")
                    self.assertEqual(done.returncode, 0 if held else 1, done.stderr)
                    if held:
                        self.assertTrue(json.loads(done.stdout)["exact"])
                    else:
                        self.assertIn("rounded-offsets", done.stderr)
            self.quantize("direct-" + method, "gguf-q4_1", {"portable"}, *more)
            done = awq("verify", self.work / ("direct-" + method), "--against", self.work / f"from-{method}-portable", "--json")
            self.assertTrue(json.loads(done.stdout)["exact"])
        self.check_values("from-rtn-portable", {"portable"}, False)

    def test_portable_scales_refused(self):
        for flags, reason in [(["--bits", "8", "--format", "compressed-tensors"], "would keep 3 significant bits"),
                              (["--scales", "bf16", "--format", "mlx"], "would keep 4 significant bits"),
                              (["--symmetric"], "whose products are exact; leave it out"),
                              (["--variant", "autoawq"], "rounds scales as that program does")]:
            done = awq("quantize", self.model, "-o", self.work / "refused", "--portable-scales", *flags)
            self.assertEqual(done.returncode, 1)
            self.assertIn("--portable-scales", done.stderr)
            self.assertIn(reason, done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
