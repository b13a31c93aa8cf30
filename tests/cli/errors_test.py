#!/usr/bin/env python3
"""Every fault a user can cause, against the program's exact words.

usage: errors_test.py AWQ GOLDEN_MODELS EXPECTED.txt [--update]

Builds broken models out of a tiny good one, runs the program and compares exit status and message, with paths replaced
by names. Nothing may be left under the output's name. --update writes what the program says now into EXPECTED.txt: read
the difference before you commit it.
"""
import json
import pathlib
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

import tiny

AWQ, GOLDEN, EXPECTED = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
work = pathlib.Path(tempfile.mkdtemp(prefix="awq-errors-"))


def read_tensors(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]


def write_tensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def model(name, family="llama"):
    return tiny.make(GOLDEN, family, work / name)


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_header(folder, change):
    header, data = read_tensors(folder / "model.safetensors")
    change(header)
    write_tensors(folder / "model.safetensors", header, data)


def poison(folder, tensor, value):
    """Overwrites the first element of a tensor."""
    header, data = read_tensors(folder / "model.safetensors")
    entry, data = header[tensor], bytearray(data)
    begin = entry["data_offsets"][0]
    bits = struct.pack("<f", value)
    bits = {"F32": bits, "BF16": bits[2:], "F16": struct.pack("<e", value) if entry["dtype"] == "F16" else b""}[entry["dtype"]]
    data[begin:begin + len(bits)] = bits
    write_tensors(folder / "model.safetensors", header, bytes(data))


def grow(folder, tensor):
    """Makes a tensor so large that what it feeds overflows."""
    header, data = read_tensors(folder / "model.safetensors")
    begin, end = header[tensor]["data_offsets"]
    huge = struct.pack("<f", 3e38)
    size = {"F32": 4, "BF16": 2}[header[tensor]["dtype"]]
    write_tensors(folder / "model.safetensors", header, data[:begin] + huge[4 - size:] * ((end - begin) // size) + data[end:])


def cut_vocabulary(folder, size):
    header, data = read_tensors(folder / "model.safetensors")
    kept = b""
    for name, entry in sorted((h for h in header.items() if h[0] != "__metadata__"), key=lambda h: h[1]["data_offsets"]):
        part = data[slice(*entry["data_offsets"])]
        if name in ("lm_head.weight", "model.embed_tokens.weight"):
            part = part[:len(part) // entry["shape"][0] * size]
            entry["shape"][0] = size
        entry["data_offsets"] = [len(kept), len(kept) + len(part)]
        kept += part
    write_tensors(folder / "model.safetensors", header, kept)
    change_config(folder, vocab_size=size)


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))


calib = work / "calib.txt"
calib.write_text("The quick brown fox jumps over the lazy dog. " * 100)
(work / "empty.txt").write_text("")
(work / "spaces.jsonl").write_text("\n  \n")
(work / "notext.jsonl").write_text('{"text": "a"}\n{"body": "no text here"}\n')
(work / "short.txt").write_text("too short")
cases = {}


def case(name, arguments, **options):
    cases[name] = (arguments, options)


def quantize(folder, *more, calibration="calib.txt", out="out", samples=4, tokens=64):
    return ["quantize", folder, "-o", work / out, "--tokens", str(tokens), "--samples", str(samples),
            "--calib", work / calibration, *more]


case("missing file", ["quantize", work / "nowhere", "-o", work / "out"])
case("missing gguf", ["generate", work / "nowhere.gguf", "-p", "x"])
case("no model in the folder", ["inspect", work])

m = model("truncated")
with (m / "model.safetensors").open("r+b") as file:
    file.truncate((m / "model.safetensors").stat().st_size - 1000)
case("truncated file", ["inspect", m])

m = model("long-header")
data = (m / "model.safetensors").read_bytes()
(m / "model.safetensors").write_bytes(struct.pack("<Q", len(data) + 1) + data[8:])
case("header longer than the file", ["inspect", m])

m = model("dtype")
change_header(m, lambda h: h["model.layers.0.mlp.up_proj.weight"].update(dtype="F8_E9M9"))
case("unknown dtype", ["inspect", m])

m = model("missing-tensor")
change_header(m, lambda h: h.update({"other": h.pop("model.layers.1.self_attn.o_proj.weight")}))
case("missing tensor", ["inspect", m])

m = model("missing-shard")
(m / "model.safetensors").unlink()
(m / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}))
case("missing shard", ["inspect", m])

m = model("architecture")
change_config(m, architectures=["MambaForCausalLM"])
case("unknown architecture", ["inspect", m])

m = model("activation")
change_config(m, hidden_act="relu6")
case("unknown activation", ["inspect", m])

m = model("pickle")
(m / "model.safetensors").rename(m / "pytorch_model.bin")
case("only a pickle", ["inspect", m])

good = model("good")
case("group does not divide", quantize(good, "--group-size", "64"))
case("group is no multiple of 32", quantize(good, "--group-size", "20"))
case("whole rows in a format without", quantize(good, "--group-size", "-1", "--format", "mlx"))
case("a type of scales that there is not", quantize(good, "--scales", "f8"))
case("scales in bf16 in a format of f16", quantize(good, "--scales", "bf16"))
case("portable scales of 8 bits", quantize(good, "--bits", "8", "--format", "gptq", "--portable-scales"))
case("portable scales without zero points", quantize(good, "--symmetric", "--portable-scales"))

m = model("nan")
poison(m, "model.layers.1.mlp.down_proj.weight", float("nan"))
case("NaN in a weight", quantize(m))

m = model("overflow")
grow(m, "model.layers.0.self_attn.v_proj.weight")
case("activations overflow", quantize(m))

case("disk full while writing", quantize(good), preexec_fn=limit_file_size)
(work / "exists").mkdir()
case("output exists", quantize(good, out="exists"))

m = model("no-tokenizer")
(m / "tokenizer.json").unlink()
case("no tokenizer", quantize(m))

case("calibration file empty", quantize(good, calibration="empty.txt"))
case("calibration file without text", quantize(good, calibration="spaces.jsonl"))
case("calibration line without text", quantize(good, calibration="notext.jsonl"))
case("calibration text too short", quantize(good, calibration="short.txt"))
case("calibration file missing", quantize(good, calibration="nowhere.txt"))
case("calibration file of another kind", quantize(good, calibration="good"))
case("not enough disk", quantize(good, samples=2000000000))
case("not enough memory", quantize(good, "--max-ram", "1M"))
case("usage: memory in words", quantize(good, "--max-ram", "plenty"))
case("to resume and to restart", quantize(good, "--resume", "--restart"))
(work / "chats.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "Who is there? " * 40}]}) + "\n")
template = model("template")
(template / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}))
case("calibration weight of zero", quantize(good, calibration="calib.txt=0"))
case("calibration weight in words", quantize(good, calibration="calib.txt=much"))
case("calibration weight too small for a sequence", quantize(good, "--calib", str(calib) + "=0.01"))
case("calibration source too short for a sequence", quantize(good, "--calib", work / "short.txt"))
case("mask without a text", ["quantize", good, "-o", work / "out", "--mask-prompts"])
case("mask of plain text", quantize(good, "--mask-prompts"))
case("mask that leaves nothing", quantize(template, "--mask-prompts", calibration="chats.jsonl"))

(work / "no.safetensors").write_bytes(calib.read_bytes())
search = work / "good.search"
subprocess.run([AWQ, *quantize(good, "--save-search", search, out="searched")], check=True, stdout=subprocess.DEVNULL)
loaded = ["quantize", good, "-o", work / "out", "--load-search"]
case("search of another shape", ["quantize", model("mistral", "mistral"), "-o", work / "out", "--load-search", search])
m = model("other-weights")
poison(m, "model.layers.1.mlp.down_proj.weight", 0.25)
case("search of other weights", ["quantize", m, "-o", work / "out", "--load-search", search])
case("search that is no search", [*loaded, good / "model.safetensors"])
case("search that is a text", [*loaded, calib])
case("search that is missing", [*loaded, work / "nowhere"])
case("search that is there already", quantize(good, "--save-search", search))
case("gate text without a gate", quantize(good, "--gate-text", work / "calib.txt"))
case("gate text of no window", quantize(good, "--max-kl", "1", "--gate-text", work / "short.txt"))
case("gate below nothing", quantize(good, "--max-kl", "-1"))
case("more answers than prompts", quantize(good, "--answers", "10000"))
case("usage: share above one", quantize(good, "--min-top1", "90"))
case("search of a method without one", quantize(good, "--save-search", work / "new.search", "--method", "rtn"))
case("search for a method without one", [*loaded, search, "--method", "rtn"])
case("search and a text to search on", quantize(good, "--load-search", search))
fixtures = GOLDEN.parent / "quantizer/fixtures"
case("pickle that would call something", [*loaded, fixtures / "other-global.pt"])
case("pickle of a module", [*loaded, fixtures / "whole-model.pt"])
case("published search of another model", ["quantize", work / "mistral", "-o", work / "out", "--load-search", fixtures / "llm-awq-f16.pt"])

case("budget below 4 bits", quantize(good, "--budget", "4.5bpw"))
case("sensitivity of no window", ["sensitivity", good, "--calib", calib, "--tokens", "64", "--window", "1"])
case("sensitivity on a text that is too short", ["sensitivity", good, "--calib", calib, "--tokens", "64", "--text", work / "short.txt"])
case("comparison of one mix", ["calib", "compare", good, calib])
case("comparison on calibration text", ["calib", "compare", good, "self", calib, "--eval", calib])
case("more tokens than the context", quantize(good, tokens=100000))
subprocess.run([AWQ, "quantize", good, "-o", work / "quantized", "--method", "rtn"], check=True, stdout=subprocess.DEVNULL)
case("bits that the format does not hold", quantize(good, "--bits", "3"))
case("variant that is none", quantize(good, "--variant", "awq2"))
case("variant of another method", quantize(good, "--method", "rtn", "--variant", "autoawq"))
case("bits that nothing holds", quantize(good, "--bits", "5"))
study = lambda name, *more, window="64": ["study", name, good, "--calib", calib, "--tokens", "64", "--window", window, *more]
case("study that is none", study("salience"))
case("study: bits that nothing has", study("salient", "--bits", "5"))
case("study: bits that it varies", study("bits", "--bits", "4"))
case("study: groups that it varies", study("groups", "--group-size", "32"))
case("study: samples that it varies", study("calibration", "--samples", "4"))
case("study: a count twice", study("calibration", "--counts", "4,4"))
case("study: counts of one calibration", study("bits", "--counts", "4"))
case("study: methods where it has none", study("clip", "--methods", "rtn"))
case("study: unknown method", study("methods", "--methods", "awq3"))
case("study: unknown type of scales", study("methods", "--scales", "f8"))
case("study: no window", study("methods", window="1"))
case("head of other bits", quantize(good, "--quantize-head", "5"))
m = model("vocabulary")
cut_vocabulary(m, 124)
case("head of a vocabulary that words cannot hold", quantize(m, "--quantize-head", "4"))
m = model("nan-head")
poison(m, "lm_head.weight", float("nan"))
case("NaN in the head", quantize(m, "--quantize-head", "8"))
subprocess.run([AWQ, "quantize", good, "-o", work / "head", "--method", "rtn", "--quantize-head", "8"], check=True, capture_output=True)
quantization = json.loads((work / "head/config.json").read_text())["quantization_config"]
change_config(work / "head", quantization_config=quantization | {"lm_head": {"bits": 3}})
case("head of unknown bits in the config", ["inspect", work / "head"])
case("quantized already", quantize(work / "quantized"))
case("text shorter than a window", ["eval", good, "--text", work / "short.txt", "--window", "128"])
case("line of a text without text", ["eval", good, "--text", work / "notext.jsonl", "--window", "32"])
case("protocol that is none", ["eval", good, "--text", calib, "--protocol", "gptq"])
case("reference without its model", ["eval", good, "--text", calib, "--window", "32", "--reference", work / "none.reference"])
case("task and a text", ["eval", good, "--task", f"piqa={calib}", "--text", calib])
case("limit without a task", ["eval", good, "--text", calib, "--limit", "5"])
case("task that is none", ["eval", good, "--task", f"pica={calib}"])
case("task without items", ["eval", good, "--task", f"piqa={calib}"])
piqa = [{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}, {"goal": "g", "sol1": "a", "sol2": "", "label": 0}]
(work / "piqa.jsonl").write_text("".join(json.dumps(p) + "\n" for p in piqa))
case("task with an empty choice", ["eval", good, "--task", f"piqa={work}/piqa.jsonl"])
(work / "latin1.jsonl").write_bytes(b'{"goal": "caf\xe9"}\n')
case("task that is not UTF-8", ["eval", good, "--task", f"piqa={work}/latin1.jsonl"])
(work / "one.jsonl").write_text(json.dumps(piqa[0]) + "\n")
case("examples of a task with one item", ["eval", good, "--task", f"piqa={work}/one.jsonl", "--shots", "1"])
case("samples that are something else", ["eval", good, "--task", f"piqa={work}/one.jsonl", "--save-samples", calib, "--resume"])
case("comparison of nothing", ["compare", good, "--text", calib])
case("chat without a template", ["chat", good])
case("unknown kernels", ["generate", good, "-p", "x", "--isa", "mmx"])
case("unknown type of activations", ["generate", good, "-p", "x", "--activations", "int4"])
case("unknown type of the KV cache", ["generate", good, "-p", "x", "--kv", "int4"])

(work / "long.txt").write_text("x" * 300)
(work / "ids.json").write_text(json.dumps([5] * 257))
case("prompt beyond the context", ["generate", good, "-f", work / "long.txt"])
case("answer beyond the context", ["generate", good, "-p", "four", "-n", "253"])
case("window beyond the context", ["eval", good, "--text", calib, "--window", "257"])
case("list of tokens beyond the context", ["eval", good, "--ids", work / "ids.json", "--dump-logits", work / "out.npy"])
m = model("short-context")
change_config(m, max_position_embeddings=64)
case("window beyond the context of a version", ["compare", good, m, "--text", calib, "--window", "128"])
m = model("dynamic")
change_config(m, rope_scaling={"type": "dynamic", "factor": 1.1})
case("prompt beyond what dynamic scaling reaches", ["generate", m, "-f", work / "long.txt"])
change_config(model("ntk"), rope_scaling={"type": "ntk", "factor": 4.0})
case("unknown rope scaling", ["generate", work / "ntk", "-p", "x"])

bench = ["bench", good, "--decode", "4", "--context", "4", "--prefill", "8"]
case("more threads than CPUs", ["generate", good, "-p", "x", "--threads", "9999"])
case("bench: more threads than CPUs", [*bench, "--threads", "9999"])
case("bench: unknown shape", ["bench", "--shape", "llama-9"])
case("unknown device", ["bench", "--shape", "llama-3.2-1b", "--device", "tpu"])
case("GPU layers on the CPU", ["bench", "--shape", "llama-3.2-1b", "--gpu-layers", "2"])
case("bench: group does not divide", ["bench", "--shape", "smollm2-135m", "--group-size", "128"])
case("bench: weights of another type", ["bench", "--shape", "smollm2-135m", "--weights", "int3"])
case("bench: groups of float weights", ["bench", "--shape", "smollm2-135m", "--weights", "bf16", "--group-size", "64"])
case("bench: head of other bits", ["bench", "--shape", "smollm2-135m", "--quantize-head", "16"])
case("bench: prompt of no tokens", [*bench, "--prefill", "0"])
case("bench: prompt beyond the context", [*bench, "--prefill", "8,257"])
case("bench: no steps", ["bench", good, "--decode", "0"])
case("bench: no sequences", [*bench, "--batch", "1,0"])
case("bench: no repeats", [*bench, "--repeat", "0"])
case("bench: negative context", [*bench, "--context", "-1"])
case("bench: steps beyond the context", [*bench, "--context", "253"])
case("bench: NaN in a weight", ["bench", work / "nan", "--decode", "4", "--context", "4", "--prefill", "8"])

(work / "broken.jinja").write_text("ok\n{{ 1 + }}")
(work / "refuses.jinja").write_text("\n  {{ raise_exception('Roles must alternate') }}")
(work / "bomb.jinja").write_text("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}")
(work / "chat.json").write_text('[{"role": "user", "content": "x"}]')
(work / "cut.json").write_text('[{"role": ')
(work / "cut-tokenizer.json").write_text('{"model": {"vocab": {"a": 0')
rendered = lambda name: ["render", "--template", work / f"{name}.jinja", "--messages", work / "chat.json"]
case("template that is none", rendered("broken"))
case("template that refuses", rendered("refuses"))
case("template that never ends", rendered("bomb"))
case("messages that are no JSON", ["render", "--template", work / "refuses.jinja", "--messages", work / "cut.json"])
case("variables that are no object", [*rendered("refuses"), "--kwargs", "[1]"])
case("no template to render", ["render", good, "--messages", work / "chat.json"])
case("tokenizer cut off", ["tokenize", "--tokenizer", work / "cut-tokenizer.json", "--text", "x"])
case("tokenizer that is none", ["tokenize", "--tokenizer", work / "long.txt", "--text", "x"])
case("token that is none", ["tokenize", good, "--decode", "5,96"])

case("usage: tokenizer of nothing", ["tokenize", "--text", "x"])
case("usage: no messages", ["render", good])
case("usage: no verb", [])
case("usage: unknown verb", ["quantise"])
case("usage: unknown flag", ["quantize", good, "--fast"])
case("usage: no model", ["quantize"])
case("usage: no prompt", ["generate", good])
case("usage: bad number", ["generate", good, "-p", "x", "-n", "many"])
case("usage: no threads", ["generate", good, "-p", "x", "--threads", "0"])
case("usage: threads in words", ["bench", good, "--threads", "two"])
case("usage: weights of tokens for a method that weighs none", quantize(good, "--method", "awq", "--no-token-weights"))
case("usage: keep and a budget", quantize(good, "--keep", "1", "--budget", "5"))
case("usage: budget in words", quantize(good, "--budget", "little"))
case("usage: save and load a search", quantize(good, "--save-search", "a", "--load-search", "b"))
case("usage: calib alone", ["calib"])
case("usage: bench of nothing", ["bench"])
case("usage: bench of a model with another head", ["bench", good, "--quantize-head", "4"])
case("usage: bench of a model and a shape", ["bench", good, "--shape", "smollm2-135m"])


def normalised(text):
    text = text.replace(str(work), "DIR").replace(str(GOLDEN.parent), "TESTS")
    text = re.sub(r"(?m)^[a-z ]+ \d+/\d+, \S+ elapsed.*\n", "", text)  # progress, after two seconds
    text = re.sub(r"\.partial-\d+", ".partial-PID", text)
    text = re.sub(r"this build has [\w, ]+ of which this CPU runs [\w, ]+", "this build has KERNELS", text)
    text = re.sub(r"may use \d+ CPUs; give --threads 1 to \d+", "may use N CPUs; give --threads 1 to N", text)
    text = re.sub(r"threads; give 1 to \d+", "threads; give 1 to N", text)
    text = re.sub(r"at least [\d.]+ MB are needed", "at least N MB are needed", text)
    return re.sub(r"has [\d.]+ (MB|GB) (free|left)", r"has N GB \2", text)


def run(arguments, options):
    p = subprocess.run([AWQ, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
                       restore_signals=False, **options)
    left = [f.name for f in work.iterdir() if f.name.startswith("out")]  # a job that finished a block leaves its folder
    for name in left:
        shutil.rmtree(work / name)
    if p.stdout and p.returncode:
        left.append("text on stdout: " + p.stdout)
    return f"exit {p.returncode}\n{normalised(p.stderr).strip()}\n" + (f"LEFT BEHIND {left}\n" if left else "")


text = "".join(f"== {name}\n{run(*c)}" for name, c in cases.items())
shutil.rmtree(work)
if "--update" in sys.argv:
    EXPECTED.write_text(text)
    sys.exit(0)
want = EXPECTED.read_text()
if text != want:
    import difflib
    sys.stdout.writelines(difflib.unified_diff(want.splitlines(True), text.splitlines(True), "expected", "got"))
    sys.exit(1)
print(f"{len(cases)} faults, each with its message")
