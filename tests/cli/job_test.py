#!/usr/bin/env python3
"""Quantizing as a job: what a kill, a full disk, a changed input or Ctrl-C leaves, and what memory it takes.

usage: job_test.py AWQ
"""
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import tiny

AWQ = pathlib.Path(sys.argv[1]).resolve()
KILLS = 50


def mlp_shapes(dim, hidden, experts):
    if not experts:
        return {"mlp.gate_proj": (hidden, dim), "mlp.up_proj": (hidden, dim), "mlp.down_proj": (dim, hidden)}
    shapes = {"block_sparse_moe.gate": (experts, dim)}
    for e in range(experts):
        shapes.update({f"block_sparse_moe.experts.{e}.{name}": (dim, hidden) if name == "w2" else (hidden, dim)
                       for name in ("w1", "w2", "w3")})
    return shapes


def make_model(folder, blocks, dim=64, hidden=96, heads=4, seed=1, experts=0):
    """A Llama, or Mixtral where there are experts, of random bf16 weights: magnitudes of 2^-7 to 2^-3, either sign."""
    rng = random.Random(seed)
    to_exponent = bytes((0x3c, 0xbc, 0x3d, 0xbd)[i % 4] for i in range(256))
    shapes = {"model.embed_tokens.weight": (96, dim), "lm_head.weight": (96, dim), "model.norm.weight": (dim,)}
    for i in range(blocks):
        for name, shape in {"self_attn.q_proj": (dim, dim), "self_attn.k_proj": (dim // 2, dim), "self_attn.v_proj": (dim // 2, dim),
                            "self_attn.o_proj": (dim, dim), **mlp_shapes(dim, hidden, experts), "input_layernorm": (dim,), "post_attention_layernorm": (dim,)}.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
    header, data, at = {}, [], 0
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = bytearray(rng.randbytes(2 * count))
        values[1::2] = b"\x3f" * count if len(shape) == 1 else values[1::2].translate(to_exponent)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * count]}
        data.append(values)
        at += 2 * count
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    (folder / "tokenizer.json").write_text(json.dumps(tiny.tokenizer()))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["MixtralForCausalLM" if experts else "LlamaForCausalLM"], "num_local_experts": experts,
        "num_experts_per_tok": 2, "hidden_act": "silu", "hidden_size": dim, "intermediate_size": hidden,
        "num_hidden_layers": blocks, "num_attention_heads": heads, "num_key_value_heads": heads // 2, "head_dim": dim // heads,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": 96, "max_position_embeddings": 256,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False}))
    return folder


def limit_files(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error then, not the end
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def digest(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


class Job(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="awq-job-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.out, self.folder = self.work / "out", self.work / "out.awq-job"

    def command(self, model, *more, out=None):
        return [AWQ, "quantize", model, "-o", out or self.out, "--tokens", "64", "--samples", "4", "--threads", "1", *map(str, more)]

    def run_json(self, *command):
        done = subprocess.run([*command, "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def refused(self, *command):
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr

    def reference(self, model, *more):
        self.run_json(*self.command(model, *more, out=self.work / "reference"))
        return digest(self.work / "reference")

    def interrupt_after_a_block(self, command, signum, **options):
        """The exit status and what it said, of a job that has finished a block and gets a signal."""
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
        while not (self.folder / "state.json").exists() and job.poll() is None:
            time.sleep(0.001)
        job.send_signal(signum)
        message = job.communicate(timeout=60)[1]
        return job.returncode, message

    def test_kills_at_random_moments(self):
        model = make_model(self.work / "m", 8)
        begin = time.monotonic()
        want = self.reference(model)
        whole, rng, kills, finished, done_before = time.monotonic() - begin, random.Random(5), 0, 0, 0
        moments = set()
        while kills < KILLS or not self.out.exists():
            job = subprocess.Popen(self.command(model, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                message = job.communicate(timeout=rng.uniform(0, whole) if kills < KILLS else None)[1]
                self.assertEqual(job.returncode, 0, message)
            except subprocess.TimeoutExpired:
                job.kill()
                job.communicate()
                kills += 1
            state = self.folder / "state.json"
            if state.exists():
                done = json.loads(state.read_text())["blocks_done"]
                self.assertGreaterEqual(done, done_before)  # nothing that was done is lost
                done_before = done
                moments.add(done)
            if self.out.exists() and (kills < KILLS or job.returncode == 0):
                finished += 1
                self.assertEqual(digest(self.out), want)
                if kills < KILLS:
                    shutil.rmtree(self.out)
                    shutil.rmtree(self.folder, ignore_errors=True)
                    done_before = 0
        self.assertEqual(digest(self.out), want)
        self.assertGreater(finished, 1)
        self.assertGreater(len(moments), 4)  # kills were spread over the job

    def test_every_method_goes_on(self):
        model = make_model(self.work / "m", 3)
        for method in "awq", "awq+", "gptq", "rtn":
            with self.subTest(method):
                want = self.reference(model, "--method", method)
                command = self.command(model, "--method", method)
                self.interrupt_after_a_block(command, signal.SIGKILL)
                if not self.out.exists():
                    self.run_json(*command, "--resume")
                self.assertEqual(digest(self.out), want)
                shutil.rmtree(self.out)
                shutil.rmtree(self.work / "reference")

    def test_options_with_files_and_choices_of_their_own_go_on(self):
        """Masked calibration, a saved search, layers chosen to stay in 16 bits: all survive kills between any two blocks."""
        model = make_model(self.work / "m", 3)
        (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"}))
        chats = self.work / "chats.jsonl"
        chats.write_text("".join(json.dumps({"messages": [{"role": "user", "content": "Who is there? " * 4},
                                                          {"role": "assistant", "content": f"It is {i}. " * 8}]}) + "\n" for i in range(9)))
        options = ["--calib", chats, "--mask-prompts", "--keep", "2"]
        want = self.reference(model, *options, "--save-search", self.work / "reference.search")
        saved = self.work / "saved.search"
        command, kills = self.command(model, *options, "--save-search", saved), 0
        while not self.out.exists():
            job = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            done = self.blocks_done()
            while self.blocks_done() == done and job.poll() is None:
                time.sleep(0.001)
            job.kill()
            message = job.communicate()[1]
            self.assertIn(job.returncode, (0, -signal.SIGKILL), message)
            kills += job.returncode != 0
        if self.folder.exists():  # it was killed after the output had its name
            self.run_json(*command, "--resume")
        self.assertGreaterEqual(kills, 3)
        self.assertEqual(digest(self.out), want)
        self.assertEqual(saved.read_bytes(), (self.work / "reference.search").read_bytes())

    def blocks_done(self):
        state = self.folder / "state.json"
        return json.loads(state.read_text())["blocks_done"] if state.exists() else 0

    def test_redoes_at_most_one_block(self):
        model = make_model(self.work / "m", 8)
        want = self.reference(model)
        status, _ = self.interrupt_after_a_block(self.command(model), signal.SIGKILL)
        self.assertEqual(status, -signal.SIGKILL)
        done = json.loads((self.folder / "state.json").read_text())["blocks_done"]
        log = self.work / "log"
        result = self.run_json(*self.command(model, "--resume", "--log", log))
        self.assertEqual(result["resumed_blocks"], done)
        events = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual([e["block"] for e in events if e["event"] == "block"], list(range(done, 8)))
        self.assertEqual(digest(self.out), want)
        self.assertFalse(self.folder.exists())

    def test_control_c_says_how_to_go_on(self):
        model = make_model(self.work / "m", 8)
        want = self.reference(model)
        status, message = self.interrupt_after_a_block(self.command(model), signal.SIGINT)
        self.assertEqual(status, 130, message)
        self.assertRegex(message, r"stopped; \d of 8 blocks are done and kept in .*out\.awq-job: the same command with --resume goes on")
        self.assertFalse(self.out.exists())
        events = [json.loads(line)["event"] for line in (self.folder / "log.jsonl").read_text().splitlines()]
        self.assertEqual((events[0], events[-1]), ("begin", "cancelled"))
        self.assertIn("an unfinished job is there. Go on with it by --resume", self.refused(*self.command(model)))
        self.run_json(*self.command(model, "--resume"))
        self.assertEqual(digest(self.out), want)

    def test_disk_full(self):
        model = make_model(self.work / "m", 8)
        want = self.reference(model)
        size = (self.work / "reference" / "model.safetensors").stat().st_size
        full = subprocess.run(self.command(model), capture_output=True, text=True, preexec_fn=lambda: limit_files(size // 8))
        self.assertEqual(full.returncode, 1)
        self.assertRegex(full.stderr, r"(hidden-0|weigh-states): File too large; .* 0 of 8 blocks are done and kept in .*: once that is put right, the same command with --resume")
        self.interrupt_after_a_block(self.command(model, "--resume"), signal.SIGKILL)  # states of all blocks were larger than the output
        full = subprocess.run(self.command(model, "--resume"), capture_output=True, text=True, preexec_fn=lambda: limit_files(size * 3 // 4))
        self.assertEqual(full.returncode, 1)
        self.assertRegex(full.stderr, r"shard-1: File too large; .* blocks are done and kept in .*: once that is put right, the same command with --resume")
        self.assertGreaterEqual(self.run_json(*self.command(model, "--resume"))["resumed_blocks"], 1)
        self.assertEqual(digest(self.out), want)

    def test_input_that_vanishes_or_changes(self):
        model = make_model(self.work / "m", 8)
        want = self.reference(model)
        self.interrupt_after_a_block(self.command(model), signal.SIGKILL)
        weights, aside = model / "model.safetensors", self.work / "aside"
        weights.rename(aside)
        self.assertIn("there is neither model.safetensors", self.refused(*self.command(model, "--resume")))
        weights.write_bytes(aside.read_bytes())  # the same bytes, but who would know?
        self.assertRegex(self.refused(*self.command(model, "--resume")), r"model\.safetensors was \d+ bytes, changed at .* and is ")
        weights.unlink()
        aside.rename(weights)
        self.assertIn("--seed was 0 and is 3", self.refused(*self.command(model, "--resume", "--seed", 3)))
        for option, was in {"--symmetric": "--symmetric was 0 and is 1", "--portable-scales": "--portable-scales was 0 and is 1",
                            "--group-size=-1": "--group-size was 32 and is -1"}.items():
            self.assertIn(was, self.refused(*self.command(model, "--resume", option)))
        self.assertIn("--format was autoawq and is ", self.refused(*self.command(model, "--resume", "--format", "modelopt", "--symmetric", "--scales", "bf16")))
        config = (model / "config.json").read_text()
        (model / "config.json").write_text(config.replace("10000.0", "20000.0"))
        self.assertRegex(self.refused(*self.command(model, "--resume")), r"config\.json was [0-9a-f]{64} and is ")
        (model / "config.json").write_text(config)
        self.run_json(*self.command(model, "--resume"))
        self.assertEqual(digest(self.out), want)

    def test_input_that_ends_while_it_is_read(self):
        model = make_model(self.work / "m", 8)
        whole = (model / "model.safetensors").read_bytes()
        job = subprocess.Popen(self.command(model), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not (self.folder / "state.json").exists() and job.poll() is None:
            time.sleep(0.001)
        job.send_signal(signal.SIGSTOP)
        os.truncate(model / "model.safetensors", len(whole) // 8)
        job.send_signal(signal.SIGCONT)
        message = job.communicate(timeout=60)[1]
        self.assertEqual(job.returncode, 1, message)
        self.assertIn("the file has become shorter since it was opened", message)

    def test_two_on_one_output(self):
        model = make_model(self.work / "m", 8)
        want = self.reference(model)
        job = subprocess.Popen(self.command(model), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (self.folder / "state.json").exists():
            time.sleep(0.001)
        job.send_signal(signal.SIGSTOP)
        for more in ([], ["--resume"], ["--restart"]):
            self.assertIn(f"process {job.pid} is at work on it", self.refused(*self.command(model, *more)))
        job.send_signal(signal.SIGCONT)
        self.assertEqual(job.wait(timeout=60), 0)
        job.stderr.close()
        self.assertEqual(digest(self.out), want)

    def test_restart_and_scratch(self):
        model = make_model(self.work / "m", 8)
        want = self.reference(model)
        scratch = self.work / "scratch"
        self.interrupt_after_a_block(self.command(model, "--scratch", scratch), signal.SIGKILL)
        self.assertEqual(sorted(f.name for f in next(scratch.iterdir()).iterdir()), ["hidden-0", "hidden-1", "weights"])
        self.assertIn("--scratch was", self.refused(*self.command(model, "--resume")))
        self.assertEqual(self.run_json(*self.command(model, "--restart", "--scratch", scratch))["resumed_blocks"], 0)
        self.assertEqual(digest(self.out), want)
        self.assertEqual(list(scratch.iterdir()), [])

    def test_memory_does_not_depend_on_depth(self):
        peaks = [self.run_json(*self.command(make_model(self.work / f"m{blocks}", blocks, 256, 512), out=self.work / f"out{blocks}",
                                             *("--calib", self.text())))["peak_memory"] for blocks in (8, 64)]
        # The names of a block's tensors are held in headers and in the state: 93 to 144 kB a block were seen. Its weights are
        # 1.2 MB, its codes 0.6 MB, its activations and statistics more.
        self.assertLess(peaks[1] - peaks[0], 56 * 256 * 1024, peaks)

    def text(self):
        file = self.work / "calib.txt"
        file.write_text("".join(f"Line {i}: nine lazy dogs. " for i in range(60)))
        return file

    def test_memory_is_bounded_and_planned(self):
        model = make_model(self.work / "m", 2, 1152, 3072, 16)
        for method in "awq", "awq+", "gptq":
            with self.subTest(method):
                shutil.rmtree(self.out, ignore_errors=True)
                self.memory_is_bounded_and_planned(model, ["--calib", self.text(), "--method", method])

    def test_memory_of_experts_is_bounded_and_planned(self):
        self.memory_is_bounded_and_planned(make_model(self.work / "m", 2, 512, 1408, 8, experts=8), ["--calib", self.text()])

    def test_plan_without_weights(self):
        model = make_model(self.work / "m", 2, 512, 1408, 8, experts=8)
        command = [AWQ, "plan", model, "--calib", self.text(), "--threads", "1", "--json"]
        whole = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        (model / "model.safetensors").unlink()
        bare = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.assertNotIn("seconds", bare)
        for same in "parameters", "blocks", "output_bytes", "scratch_bytes":
            self.assertEqual(whole[same], bare[same])
        self.assertEqual(whole["parameters"], 2 * 96 * 512 + 512 + 2 * (3 * 512 ** 2 + 8 * 512 + 8 * 3 * 512 * 1408 + 2 * 512))
        self.assertLess(abs(whole["memory"]["search"] - bare["memory"]["search"]), 2 ** 23)  # but for the process itself

    def memory_is_bounded_and_planned(self, model, more):
        result = self.run_json(*self.command(model, *more))
        want, planned, peak = digest(self.out), result["planned_memory"], result["peak_memory"]
        self.assertLessEqual(peak, planned)
        self.assertGreater(peak, 0.9 * planned)
        shutil.rmtree(self.out)
        bounded = self.run_json(*self.command(model, *more, "--max-ram", planned + 2**20))
        self.assertLessEqual(bounded["peak_memory"], planned + 2**20)
        self.assertEqual(digest(self.out), want)
        shutil.rmtree(self.out)
        message = self.refused(*self.command(model, *more, "--max-ram", planned * 9 // 10))
        least = float(re.search(r"--max-ram [\d.]+ MB: at least ([\d.]+) MB are needed", message)[1])
        self.assertAlmostEqual(least, planned / 1e6, delta=11)  # the process itself
        self.assertEqual([f.name for f in self.work.iterdir() if f.name.startswith("out")], [])
        plan = [AWQ, "plan", model, "--tokens", "64", "--samples", "4", "--threads", "1", *map(str, more), "--json"]
        self.assertAlmostEqual(self.run_json(*plan[:-1])["peak_memory"] / peak, 1, delta=0.1)
        no_room = subprocess.run([*plan, "--max-ram", "50M"], capture_output=True, text=True)
        self.assertEqual(no_room.returncode, 1)
        self.assertFalse(json.loads(no_room.stdout)["fits"])
        self.assertIn("--max-ram 50.0 MB: at least", no_room.stderr)

    def test_memory_of_a_large_text_is_planned(self):
        model, text = make_model(self.work / "m", 2), self.work / "large.txt"
        text.write_text("".join(f"Line {i}: nine lazy dogs. " for i in range(120000)))
        result = self.run_json(*self.command(model, "--calib", text))
        self.assertLessEqual(result["peak_memory"], result["planned_memory"])
        self.assertGreater(result["peak_memory"], self.run_json(*self.command(model, "--calib", self.text(), out=self.work / "small"))["planned_memory"])
        shutil.rmtree(self.out)
        self.assertIn("to read and tokenize the largest text", self.refused(*self.command(model, "--calib", text, "--max-ram", "40M")))

    def test_an_option_that_was_left_out_is_another_job(self):
        model, search = make_model(self.work / "m", 3), self.work / "found\udcff.search"
        self.run_json(*self.command(model, "--save-search", search, out=self.work / "searched"))
        self.interrupt_after_a_block(self.command(model, "--load-search", search), signal.SIGKILL)
        if not self.out.exists():
            self.assertIn("was", self.refused(*self.command(model, "--resume")))
            self.run_json(*self.command(model, "--load-search", search, "--resume"))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
