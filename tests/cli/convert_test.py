#!/usr/bin/env python3
"""`awq convert` and `awq verify` from format to format and back.

usage: convert_test.py AWQ GOLDEN_MODELS FIXTURES
"""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import tiny

AWQ, GOLDEN, FIXTURES = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
IDS = [5, 17, 40, 3, 60, 2, 33, 9]


def awq(*args):
    return subprocess.run([AWQ, *args], capture_output=True, text=True, timeout=120)


class ConvertTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-convert-"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.source = cls.work / "autoawq"
        model = tiny.make(GOLDEN, "qwen2", cls.work / "float")
        done = awq("quantize", model, "-o", cls.source, "--method", "rtn", "--group-size", "32")
        assert done.returncode == 0, done.stderr
        (cls.work / "ids.json").write_text(json.dumps(IDS))

    def convert(self, source, name, *options):
        out = self.work / name
        shutil.rmtree(out, ignore_errors=True)
        done = awq("convert", source, "-o", out, "--json", *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out, json.loads(done.stdout)

    def refused(self, source, *options):
        out = self.work / "refused"
        done = awq("convert", source, "-o", out, *options)
        self.assertEqual(done.returncode, 1)
        self.assertFalse(out.exists())
        return done.stderr

    def logits(self, model):
        out = self.work / "logits.npy"
        done = awq("eval", model, "--ids", self.work / "ids.json", "--dump-logits", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out.read_bytes()

    def test_there_and_back_gives_the_same_bytes(self):
        for name in ["compressed-tensors", "gptq"]:
            there, report = self.convert(self.source, name, "--format", name)
            self.assertTrue(report["exact"], name)
            self.assertEqual(report["largest_error"], 0)
            self.assertEqual(self.logits(there), self.logits(self.source), name)
            back, report = self.convert(there, name + "-back", "--format", "autoawq")
            self.assertTrue(report["exact"], name)
            for file in ["model.safetensors", "tokenizer.json"]:
                self.assertEqual((back / file).read_bytes(), (self.source / file).read_bytes(), name)
            config = [json.loads((f / "config.json").read_text()) for f in (back, self.source)]
            self.assertEqual(config[0], config[1])

    def test_fused_and_transposed_matrices(self):
        """Stacked, interleaved by heads, one key head for all, stored [in, out]."""
        for family in ["phi3", "neox", "falcon-40b", "bigcode", "gpt2", "baichuan"]:
            source = self.work / ("awq-" + family)
            done = awq("quantize", tiny.make(GOLDEN, family, self.work / family), "-o", source, "--method", "rtn", "--group-size", "32")
            self.assertEqual(done.returncode, 0, done.stderr)
            for name in ["compressed-tensors", "gptq"]:
                there, report = self.convert(source, name, "--format", name)
                self.assertTrue(report["exact"], (family, name))
                self.assertEqual(report["dropped"], [], (family, name))
                self.assertEqual(self.logits(there), self.logits(source), (family, name))
                back, _ = self.convert(there, name + "-back", "--format", "autoawq")
                self.assertEqual((back / "model.safetensors").read_bytes(), (source / "model.safetensors").read_bytes(), (family, name))

    def test_floats_of_8_bits_are_floats(self):
        """The same bytes are made of them as of the floats that they stand for."""
        written = []
        for source in (FIXTURES / "fp8", FIXTURES.parent / "fp8-floats"):
            out = self.work / ("of-" + source.name)
            done = awq("quantize", source, "-o", out, "--method", "rtn", "--group-size", "32")
            self.assertEqual(done.returncode, 0, done.stderr)
            written.append((out / "model.safetensors").read_bytes())
        self.assertEqual(*written)
        self.assertIn(": exact", awq("verify", FIXTURES / "fp8", "--against", FIXTURES.parent / "fp8-floats").stdout)
        self.assertIn("no matrix of it is quantized", self.refused(FIXTURES / "fp8", "--format", "gptq"))

    def test_plan_of_floats_of_8_bits_from_their_description(self):
        bare = self.work / "fp8-bare"
        bare.mkdir()
        shutil.copy(FIXTURES / "fp8" / "config.json", bare)

        def planned(model):
            done = awq("plan", model, "--method", "rtn", "--group-size", "32", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout)
        of_config, of_files, of_floats = (planned(m) for m in (bare, FIXTURES / "fp8", FIXTURES.parent / "fp8-floats"))
        for same in ["parameters", "blocks", "output_bytes", "scratch_bytes"]:
            self.assertEqual(of_config[same], of_files[same], same)
            self.assertEqual(of_config[same], of_floats[same], same)
        self.assertNotIn("seconds", of_config)
        config = json.loads((bare / "config.json").read_text())
        config["quantization_config"]["quant_method"] = "awq"
        (bare / "config.json").write_text(json.dumps(config))
        self.assertIn("is quantized already", awq("plan", bare).stderr)

    def test_factors_of_inputs(self):
        """ModelOpt's pre_quant_scale: run as stored, kept by its own format, in the columns of floats, refused elsewhere."""
        source = FIXTURES / "modelopt-inputs"
        for name in ["autoawq", "compressed-tensors", "gptq"]:
            self.assertIn("only modelopt holds", self.refused(source, "--format", name), name)
        there, report = self.convert(source, "floats", "--format", "hf")
        self.assertEqual(report["largest_error"], 0)
        (self.work / "few.json").write_text(json.dumps([1, 5, 9, 2, 7]))
        logits = []
        for model in (source, there, FIXTURES / "modelopt"):
            done = awq("eval", model, "--ids", self.work / "few.json", "--dump-logits", self.work / "few.npy")
            self.assertEqual(done.returncode, 0, done.stderr)
            data = (self.work / "few.npy").read_bytes()[-5 * 16 * 4:]
            logits.append(struct.unpack(f"<{5 * 16}f", data))
        distance = [max(abs(a - b) for a, b in zip(logits[0], other)) / max(map(abs, logits[1])) for other in logits[1:]]
        self.assertLess(distance[0], 1e-3)  # activations of 16 bits
        self.assertGreater(distance[1], 0.05)  # another model

    def test_a_rounded_product_is_a_loss_with_a_name(self):
        message = self.refused(self.source, "--format", "mlx")
        self.assertIn("--allow rounded-offsets", message)
        there, report = self.convert(self.source, "mlx", "--format", "mlx", "--allow", "rounded-offsets")
        self.assertFalse(report["exact"])
        self.assertGreater(report["largest_error"], 0)
        self.assertIn("row", report["where"])
        # Half a unit in the last of 11 bits, of products that are below 15 times the largest scale of the model.
        self.assertLess(report["largest_error"], 15 * 0.1 * 2**-11)
        self.assertIn("--allow rounded-offsets", self.refused(there, "--format", "autoawq"))
        back, _ = self.convert(there, "mlx-back", "--format", "autoawq", "--allow", "rounded-offsets")
        self.assertEqual((back / "model.safetensors").read_bytes(), (self.source / "model.safetensors").read_bytes())

    def test_scales_in_bf16(self):
        """AutoAWQ and GPTQ have scales in F16: the same numbers are written in it, or none."""
        source = self.quantize("bf16", "--format", "compressed-tensors", "--scales", "bf16")
        for name, suffix in [("autoawq", ".scales"), ("autoawq-gemv", ".scales"), ("gptq", ".scales"), ("compressed-tensors", ".weight_scale"), ("mlx", ".scales")]:
            there, report = self.convert(source, "bf16-" + name, "--format", name, "--allow", "rounded-offsets")
            types = {dtype for tensor, (dtype, _, _) in self.tensors(there).items() if tensor.endswith(suffix)}
            self.assertEqual(types, {"BF16" if name in ("compressed-tensors", "mlx") else "F16"}, name)
            self.assertEqual(report["exact"], name != "mlx", name)
        of_products = self.work / "bf16-mlx"
        self.assertIn(": exact", awq("verify", self.convert(of_products, "bf16-back", "--format", "gptq", "--allow", "rounded-offsets")[0], "--against", source).stdout)
        self.assertTrue(self.convert(self.wide(128, 128, 256, "--format", "compressed-tensors", "--scales", "bf16"), "bf16-lmdeploy", "--target", "lmdeploy")[1]["exact"])
        message = self.refused(self.with_first(source, "model.layers.1.mlp.up_proj.weight_scale", b"\x81\x31"), "--format", "gptq")
        self.assertIn("model.layers.1.mlp.up_proj.weight: the scale 3.754394e-09 is not exact in F16, in which this format has it; try compressed-tensors or mlx, which have BF16", message)

    def with_first(self, source, tensor, element):
        """A copy whose first element of a tensor is other bytes."""
        out = self.work / f"first-of-{source.name}"
        shutil.copytree(source, out, dirs_exist_ok=True)
        file = out / "model.safetensors"
        data = bytearray(file.read_bytes())
        n = struct.unpack("<Q", data[:8])[0]
        at = 8 + n + json.loads(data[8:8 + n])[tensor]["data_offsets"][0]
        data[at:at + len(element)] = element
        file.write_bytes(data)
        return out

    def test_zero_points_of_0_in_the_first_version_of_gptq(self):
        fixture = FIXTURES / "gptq-v2"
        self.assertIn("--allow borrowed-zeros", self.refused(fixture, "--format", "gptq-v1"))
        there, report = self.convert(fixture, "gptq-v1", "--format", "gptq-v1", "--allow", "borrowed-zeros")
        self.assertTrue(report["exact"])
        self.assertEqual(json.loads((there / "config.json").read_text())["quantization_config"]["checkpoint_format"], "gptq")

    def test_what_formats_cannot_hold(self):
        self.assertIn("g_idx", self.refused(FIXTURES / "gptq-v2-act-order", "--format", "compressed-tensors"))
        self.assertIn("holds 4 bits a weight, not 8", self.refused(FIXTURES / "gptq-v2-8", "--format", "autoawq"))
        self.assertIn("groups of 16 columns; this format holds 32, 64, 128", self.refused(FIXTURES / "gptq-v2", "--format", "mlx"))
        self.assertIn("no multiple of its scale", self.refused(self.offset_model(), "--format", "autoawq"))
        self.assertIn("is no format that awq writes", self.refused(self.source, "--format", "exl2"))
        self.assertIn("what it loads is known of transformers, vllm, llama.cpp, mlx, sglang, tgi, tensorrt-llm, lmdeploy only",
                      self.refused(self.source, "--target", "exllama"))
        self.assertIn("groups of 16, but vllm runs groups of 32, 64, 128, -1", self.refused(FIXTURES / "gptq-v2", "--target", "vllm"))
        self.assertIn("no matrix of it is quantized", self.refused(self.work / "float", "--format", "gptq"))

    def offset_model(self):
        """MLX's with a bias that is no multiple of its scale."""
        return self.with_first(FIXTURES / "mlx-4", "model.layers.0.mlp.up_proj.biases", struct.pack("<e", 0.1234))

    def test_every_fixture_to_its_own_format(self):
        for folder in sorted(FIXTURES.iterdir()):
            name = folder.name
            if name == "fp8":  # a float model
                continue
            format = next(f for f in ("autoawq-gemv-fast", "autoawq-gemv", "autoawq-marlin", "llm-awq", "modelopt", "compressed-tensors", "gptq", "mlx") if name.startswith(f))
            there, report = self.convert(folder, "own", "--format", format)
            self.assertTrue(report["exact"], name)
            if name != "gptq-v1":  # becomes version 2
                self.assertEqual(self.tensors(there), self.tensors(FIXTURES / "llm-awq" if name == "llm-awq-pt" else folder), name)

    @staticmethod
    def tensors(folder):
        data = (folder / "model.safetensors").read_bytes()
        n = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + n])
        header.pop("__metadata__", None)
        return {k: (e["dtype"], e["shape"], data[8 + n + e["data_offsets"][0]:8 + n + e["data_offsets"][1]]) for k, e in header.items()}

    def test_floats(self):
        there, report = self.convert(self.source, "hf", "--format", "hf")
        self.assertEqual(report["largest_error"], 0)
        self.assertEqual(len(report["dequantized"]), 14)
        self.assertIn("the same", awq("verify", there, "--against", self.source).stdout)

    def gguf(self, source, name, *options):
        out, report = self.convert(source, f"{name}-of-{source.name}", "--format", name, *options)
        self.assertTrue((out / "model.gguf").exists())
        self.assertFalse((out / "tokenizer.json").exists() or (out / "config.json").exists())
        return out, report

    def test_gguf_holds_codes(self):
        """Q4_1 with the product rounded, Q8_0 exactly: 4 bits and their zero point fit into it."""
        self.assertIn("--allow rounded-offsets", self.refused(self.source, "--format", "gguf-q4_1"))
        there, report = self.gguf(self.source, "gguf-q4_1", "--allow", "rounded-offsets")
        self.assertLess(report["largest_error"], 15 * 0.1 * 2**-11)
        back, _ = self.convert(there, "gguf-back", "--format", "compressed-tensors", "--allow", "rounded-offsets")
        self.assertIn(": exact", awq("verify", back, "--against", self.source).stdout)
        there, report = self.gguf(self.source, "gguf-q8_0")
        self.assertEqual((report["largest_error"], report["matrices"]), (0, 14))
        again, report = self.gguf(there, "gguf-q8_0")
        self.assertTrue(report["exact"])
        self.assertIn("a zero point is", self.refused(self.source, "--format", "gguf-q4_0"))
        self.assertIn("groups of 16 columns; this format has a scale for each 32", self.refused(FIXTURES / "gptq-v2", "--format", "gguf-q4_1"))

    def test_gguf_cuts_groups_into_blocks(self):
        source = self.work / "awq-64"
        done = awq("quantize", tiny.make(GOLDEN, "llama", self.work / "llama"), "-o", source, "--method", "rtn", "--group-size", "32")
        self.assertEqual(done.returncode, 0, done.stderr)
        mlx, _ = self.convert(source, "mlx-llama", "--format", "mlx", "--allow", "rounded-offsets")
        there, report = self.gguf(mlx, "gguf-q4_1")
        self.assertTrue(report["exact"])
        self.assertEqual(self.logits(there), self.logits(mlx))

    def test_gguf_of_floats(self):
        for family in ["llama", "qwen2", "qwen3", "gemma3", "mistral"]:
            source = tiny.make(GOLDEN, family, self.work / ("float-" + family))
            if family == "gemma3":
                self.assertIn("cannot be said in GGUF's metadata", self.refused(source, "--format", "gguf-bf16"))
                tiny.as_gguf_has_gemma3(source)
            config = json.loads((source / "config.json").read_text())
            there, report = self.gguf(source, "gguf-bf16")
            if config.get("torch_dtype", config.get("dtype")) == "bfloat16":
                self.assertTrue(report["exact"], family)
                self.assertEqual(self.logits(there), self.logits(source), family)
            text = "Hello, world"
            ids = [awq("tokenize", m, "-p", text).stdout for m in (there, source)]
            self.assertEqual(ids[0], ids[1], family)
            for name, step in [("gguf-f16", 2**-11), ("gguf-q8_0", 1 / 254), ("gguf-q4_1", 1 / 15), ("gguf-q4_0", 1 / 8)]:
                _, report = self.gguf(source, name)
                self.assertLess(report["largest_error"], 4 * step, (family, name))
        self.assertIn("GGUF files of this family are neither read nor written", self.refused(tiny.make(GOLDEN, "falcon-7b", self.work / "float-falcon"), "--format", "gguf-f16"))
        self.assertIn("Gemma4ForConditionalGeneration: GGUF files of this family are neither read nor written",
                      self.refused(tiny.make(GOLDEN, "gemma4", self.work / "float-gemma4"), "--format", "gguf-f16"))

    def quantize(self, name, *options):
        out = self.work / ("direct-" + name)
        done = awq("quantize", self.work / "float", "-o", out, "--method", "rtn", "--group-size", "32", *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def test_quantize_writes_what_convert_would(self):
        for name, option in [("compressed-tensors", "--format"), ("gptq", "--format"), ("mlx", "--target"), ("gguf-q4_1", "--format"), ("autoawq", "--format"),
                             ("llama.cpp", "--target"), ("vllm", "--target"), ("autoawq-gemv", "--format")]:
            there, _ = self.convert(self.source, "of-" + name, option, name, "--allow", "rounded-offsets")
            out = self.quantize(name, option, name)
            self.assertTrue((out / "awq-report.json").exists())
            for file in ["model.safetensors", "model.gguf"]:
                if (there / file).exists():
                    self.assertEqual((out / file).read_bytes(), (there / file).read_bytes(), name)

    def test_quantize_without_zero_points(self):
        out = self.quantize("gguf-q4_0", "--format", "gguf-q4_0")
        there, report = self.convert(out, "symmetric", "--format", "autoawq")
        self.assertTrue(report["exact"])
        self.assertFalse(json.loads((there / "config.json").read_text())["quantization_config"]["zero_point"])
        back, report = self.convert(there, "symmetric-back", "--format", "gguf-q4_0")
        self.assertTrue(report["exact"])
        self.assertEqual((back / "model.gguf").read_bytes(), (out / "model.gguf").read_bytes())

    def test_quantize_refuses_before_any_work(self):
        for command in ["quantize", "plan"]:
            for options, reason in [(["gptq-v1"], "a zero point may become 0"), (["hf"], "it holds floats"), (["gguf-q8_0"], "the format gguf-q8_0 holds 8"),
                                    (["gptq", "--quantize-head", "4"], "only autoawq has it"),
                                    (["autoawq-marlin"], "has 32 rows and 64 columns, but the format packs 64 and 16 together")]:
                out = self.work / "nothing"
                done = awq(command, self.work / "float", "-o", out, "--method", "rtn", "--group-size", "32", "--format", *options)
                self.assertEqual(done.returncode, 1)
                self.assertIn(reason, done.stderr)
                self.assertFalse(out.exists())

    def test_plan_knows_what_a_format_takes(self):
        """But norms' second half, biases, the last norm, the places of columns, shapes and scales of inputs, which plan leaves out."""
        for name, bits in [("autoawq", 4), ("compressed-tensors", 8), ("gptq", 2), ("mlx", 4), ("mlx", 3), ("modelopt", 4), ("gguf-q4_0", 4), ("gguf-q4_1", 4), ("gguf-q8_0", 8)]:
            out = self.work / f"planned-{name}-{bits}"
            options = [self.work / "float", "-o", out, "--method", "rtn", "--group-size", "32", "--format", name, "--bits", str(bits)]
            planned = json.loads(awq("plan", *options, "--json").stdout)["output_bytes"]
            done = awq("quantize", *options)
            self.assertEqual(done.returncode, 0, done.stderr)
            tensors = json.loads(awq("inspect", out, "--json").stdout)["tensors"]
            small = ("norm.weight", "bias", "g_idx", "weight_shape", "pre_quant_scale")
            bytes_of_matrices = sum(t["bytes"] for t in tensors if not t["name"].endswith(small))
            norms = sum(2 * int(t["shape"][1:-1]) for t in tensors if t["name"].endswith("norm.weight") and (".layers." in t["name"] or t["name"].startswith("blk.")))
            self.assertEqual(planned, bytes_of_matrices + norms, (name, bits))

    def test_verify_sees_one_code(self):
        there, _ = self.convert(self.source, "one", "--format", "compressed-tensors")
        self.assertIn("exact", awq("verify", there, "--against", self.source).stdout)
        self.assertIn("all of it sound", awq("verify", there).stdout)
        file = there / "model.safetensors"
        data = bytearray(file.read_bytes())
        n = struct.unpack("<Q", data[:8])[0]
        entry = json.loads(data[8:8 + n])["model.layers.1.mlp.down_proj.weight_packed"]
        data[8 + n + entry["data_offsets"][0]] ^= 1
        file.write_bytes(data)
        said = awq("verify", there, "--against", self.source).stdout
        self.assertIn("not exact", said)
        self.assertIn("model.layers.1.mlp.down_proj.weight, row 0, column 0", said)

    def changed(self, folder, tensor, change):
        """`change` of a tensor's bytes, in place."""
        file = folder / "model.safetensors"
        data = bytearray(file.read_bytes())
        n = struct.unpack("<Q", data[:8])[0]
        begin, end = (8 + n + at for at in json.loads(data[8:8 + n])[tensor]["data_offsets"])
        data[begin:end] = change(data[begin:end])
        file.write_bytes(data)

    def test_verify_sees_one_scale(self):
        for name, sides in [("forth", lambda there: (there, self.source)), ("back", lambda there: (self.source, there))]:
            there, _ = self.convert(self.source, name, "--format", "compressed-tensors")
            self.changed(there, "model.layers.1.mlp.up_proj.weight_scale", lambda b: b[:2] + bytes([b[2] ^ 1]) + b[3:])
            checked, against = sides(there)
            said = awq("verify", checked, "--against", against).stdout
            self.assertIn("not exact", said)
            self.assertIn("model.layers.1.mlp.up_proj.weight, row 0, column", said)

    def test_verify_sees_one_scale_where_the_zero_point_is_0(self):
        there, _ = self.convert(self.source, "zero", "--format", "compressed-tensors")
        self.changed(there, "model.layers.1.mlp.up_proj.weight_zero_point", lambda b: bytes([b[0] & 0xF0]) + b[1:])
        other = self.work / "zero-other"
        shutil.copytree(there, other)
        self.changed(other, "model.layers.1.mlp.up_proj.weight_scale", lambda b: bytes([b[0] ^ 1]) + b[1:])
        self.assertIn("not exact", awq("verify", other, "--against", there).stdout)

    def test_verify_sees_two_columns_of_another_group(self):
        source, there = self.work / "columns", self.work / "columns-other"
        shutil.copytree(FIXTURES / "gptq-v2-act-order", source)
        self.changed(source, "model.layers.0.mlp.down_proj.qweight", lambda b: bytes(len(b)))  # so that their codes are the same
        shutil.copytree(source, there)
        self.assertIn(": exact", awq("verify", there, "--against", source).stdout)
        self.changed(there, "model.layers.0.mlp.down_proj.g_idx", lambda b: b[16:20] + b[4:16] + b[:4] + b[20:])
        said = awq("verify", there, "--against", source).stdout
        self.assertIn("not exact", said)
        self.assertIn("model.layers.0.mlp.down_proj.weight", said)

    def test_verify_sees_what_is_no_number(self):
        there, _ = self.convert(self.source, "nan", "--format", "compressed-tensors")
        file = there / "model.safetensors"
        data = bytearray(file.read_bytes())
        n = struct.unpack("<Q", data[:8])[0]
        entry = json.loads(data[8:8 + n])["model.embed_tokens.weight"]
        at = 8 + n + entry["data_offsets"][0] + 6
        data[at:at + 2] = b"\xff\x7f"  # of float16 and of bfloat16
        file.write_bytes(data)
        said = awq("verify", there, "--against", there).stdout
        self.assertIn("not exact", said)
        self.assertIn("model.embed_tokens.weight, row 0, column 3", said)

    def test_targets(self):
        for target, format in [("vllm", "compressed-tensors"), ("transformers", "autoawq"), ("sglang", "autoawq")]:
            _, report = self.convert(self.source, "target", "--target", target)
            self.assertEqual((report["to"], report["exact"]), (format, True))

    def wide(self, group=128, hidden=128, mlp=256, *options):
        """A Llama of random weights with 4 heads, 2 of keys and values, quantized."""
        name = f"wide-{hidden}-{mlp}-{group}" + "".join(options).replace("-", "")
        out = self.work / name
        if out.exists():
            return out
        config = json.loads((GOLDEN / "llama" / "config.json").read_text())
        config |= {"hidden_size": hidden, "intermediate_size": mlp, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1,
                   "vocab_size": 96, "head_dim": hidden // 4, "torch_dtype": "bfloat16", "tie_word_embeddings": True}
        floats = tiny.make(GOLDEN, "llama", self.work / ("float-" + name))
        (floats / "config.json").write_text(json.dumps(config))
        at, kv = "model.layers.0.", hidden // 2
        shapes = {"model.embed_tokens": [96, hidden], "model.norm": [hidden], at + "input_layernorm": [hidden], at + "post_attention_layernorm": [hidden],
                  at + "self_attn.q_proj": [hidden, hidden], at + "self_attn.k_proj": [kv, hidden], at + "self_attn.v_proj": [kv, hidden],
                  at + "self_attn.o_proj": [hidden, hidden], at + "mlp.gate_proj": [mlp, hidden], at + "mlp.up_proj": [mlp, hidden], at + "mlp.down_proj": [hidden, mlp]}
        header, body, random = {}, b"", __import__("random").Random(3)
        for key, shape in shapes.items():
            n = shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[key + ".weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + 2 * n]}
            body += struct.pack(f"<{n}H", *(random.randrange(0x3b00, 0x3d00) | random.getrandbits(1) << 15 for _ in range(n)))
        text = json.dumps(header).encode()
        (floats / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
        done = awq("quantize", floats, "-o", out, "--method", "rtn", "--group-size", str(group), *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def test_what_programs_load(self):
        for target, format, model in [("sglang", "autoawq", self.wide()), ("tgi", "autoawq", self.wide()), ("lmdeploy", "autoawq", self.wide()),
                                      ("tensorrt-llm", "modelopt", self.wide(128, 128, 256, "--format", "modelopt"))]:
            _, report = self.convert(model, "program", "--target", target)
            self.assertEqual((report["to"], report["exact"]), (format, True), target)
            out = self.work / ("for-" + target)
            done = awq("quantize", self.work / "float-wide-128-256-128", "-o", out, "--method", "rtn", "--group-size", "128", "--target", target)
            self.assertEqual(done.returncode, 0, done.stderr)
            method = json.loads((out / "config.json").read_text())["quantization_config"]["quant_method"]
            self.assertEqual(method, {"autoawq": "awq", "modelopt": "modelopt"}[format])
        for target, model, reason in [("lmdeploy", self.wide(64), "lmdeploy runs groups of 128"), ("tensorrt-llm", self.source, "tensorrt-llm runs groups of 64, 128"),
                                      ("tgi", self.source, "but its kernels run multiples of 64 and 128 alone"),
                                      ("tensorrt-llm", self.wide(), "a zero point is"),
                                      ("sglang", FIXTURES / "gptq-v2", "sglang runs groups of 32, 64, 128")]:
            self.assertIn(reason, self.refused(model, "--target", target), target)
        for target in ["sglang", "vllm", "transformers"]:
            done = awq("quantize", self.work / "float", "-o", self.work / "headless", "--group-size", "32", "--target", target, "--quantize-head", "4")
            self.assertIn("does not run it", done.stderr)

    def test_factors_of_inputs_that_a_program_leaves_out(self):
        """TensorRT-LLM applies pre_quant_scale to o and down alone."""
        model = self.wide(128, 128, 256, "--format", "modelopt")
        data = bytearray((model / "model.safetensors").read_bytes())
        n = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + n])
        for layer, refused in [("self_attn.o_proj", False), ("mlp.up_proj", True)]:
            changed = self.work / ("factors-of-" + layer)
            shutil.copytree(model, changed)
            at = 8 + n + header[f"model.layers.0.{layer}.pre_quant_scale"]["data_offsets"][0]
            (changed / "model.safetensors").write_bytes(data[:at] + struct.pack("<e", 2) + data[at + 2:])
            if refused:
                self.assertIn("which tensorrt-llm leaves out for matrices that it makes one of", self.refused(changed, "--target", "tensorrt-llm"))
            else:
                self.assertTrue(self.convert(changed, "factors", "--target", "tensorrt-llm")[1]["exact"])

    def test_split_over_devices(self):
        wide = self.wide(64)
        for devices in ["2", "4"]:  # of the 2 heads of keys and values each device of 4 has one
            self.assertTrue(self.convert(self.wide(32), "split", "--target", "sglang", "--tp", devices)[1]["exact"])
        self.assertTrue(self.convert(wide, "split", "--format", "gptq", "--tp", "2")[1]["exact"])
        self.assertIn("o_proj.weight of [128, 128] cannot be split into 4 parts of whole groups of 64 columns", self.refused(wide, "--format", "gptq", "--tp", "4"))
        self.assertIn("--tp 6: 4 heads", self.refused(wide, "--format", "gptq", "--tp", "6"))
        narrow = self.wide(32, 128, 32)
        self.assertIn("down_proj.weight of [128, 32] cannot be split into 2 parts of whole groups of 32 columns", self.refused(narrow, "--format", "gptq", "--tp", "2"))
        self.assertIn("q_proj.weight of [128, 128] cannot be split into 4 parts of whole words of 64 rows", self.refused(wide, "--format", "autoawq-marlin", "--tp", "4"))
        self.assertIn("4 heads with 2 of keys and values cannot be split", self.refused(wide, "--format", "gptq", "--tp", "3"))
        self.assertIn("at least 1 device", self.refused(wide, "--format", "gptq", "--tp", "0"))
        self.assertIn("q_proj has 96 rows and 128 columns on a device, but its kernels run", self.refused(self.wide(32), "--target", "tgi", "--tp", "4"))
        done = awq("quantize", self.work / "float-wide-128-256-64", "-o", self.work / "split-late", "--method", "rtn", "--group-size", "64", "--tp", "4")
        self.assertEqual(done.returncode, 1)
        self.assertIn("error: [quantize] --tp 4: model.layers.0.self_attn.o_proj.weight", done.stderr)
        self.assertFalse((self.work / "split-late").exists())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
