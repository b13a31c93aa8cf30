#!/usr/bin/env python3
"""Does `awq quantize --variant autoawq` find what AutoAWQ finds? Started by run.sh, in AutoAWQ's own environment.

usage: autoawq_codes.py --awq AWQ_BINARY

Tiny models with random weights (a Llama, and a Qwen2 with biases and grouped queries) in three types are quantized by AutoAWQ
0.2.9 itself and by awq, from the same 384 token ids. Compared are the ratio of every scale group, the range of every group of
weights that AutoAWQ clips, and scales, zero points and codes of every layer. 384 tokens are fewer than AutoAWQ's clipping and
awq's modules sample from, so both judge by all of them; awq runs kernels that compute its statistics in float32.

Two things of AutoAWQ are changed:
- It keeps weights to restore after each ratio as `v.cpu()`, which on a CPU is no copy but the weights themselves: the first
  ratio's rounding stays, the next rounds it again, and the result is ruined. Here they are cloned, as they are in effect on a
  GPU. Without that (--as-shipped) the comparison fails.
- It computes activations in the checkpoint's type, so that in 16 bits its means of |x| have those' noise, and awq's, which are
  of float32 activations, often another last bit, which moves scales. Here it is given the means of the same model in float32,
  rounded to its type. --own-means leaves it its own, and then 16-bit models miss the limits.

Ranges that differ are ties where AutoAWQ's own measure, the error of the group, finds both as good: to the noise of its
arithmetic, and of the last bits of a float32. Ratios likewise by its losses; what follows from another ratio is not compared.
Scales and codes are compared in groups of equal ranges. The limits are below, with what was measured.
The last line reads "N passed, N failed".
"""
import argparse
import collections
import dataclasses
import functools
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
import torch
from awq import AutoAWQForCausalLM
from awq.quantize import quantizer as autoawq
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

import awq_folder

GROUP, SEQUENCES, TOKENS = 32, 2, 192
# Means and powers differ in the last bits of a float32, and with them weights and bounds. A range that is cut at both ends has
# 7.5 steps on either side, so that its zero point and the codes of what was cut hang on those bits.
NUDGES, NUDGE = 64, 2**-18
# Rows must be multiples of 64 for AutoAWQ's clipping, which those of tests/golden are not.
SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128,
         "max_position_embeddings": 256, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {"llama": LlamaConfig(num_key_value_heads=4, **SHAPE), "qwen2": Qwen2Config(num_key_value_heads=2, **SHAPE)}


@dataclasses.dataclass
class Limits:
    """A tie's largest cost as a share of the loss, and the largest shares of groups: of ranges that are ties, of other scales in
    equal ranges, of other codes where all is equal."""
    tie: float
    ranges: float
    scales: float
    codes: float


# Measured: no cost in float32 and 0.4 % of the ranges; 0.07 % and 0.13 % in float16; 1.5 % and 1.6 % in bfloat16, whose sums of
# outputs and errors AutoAWQ rounds to 8 bits. One scale in 5,000 is another, and no code.
LIMITS = {"float32": Limits(tie=1e-4, ranges=6e-3, scales=5e-4, codes=2e-5), "float16": Limits(tie=2e-3, ranges=3e-3, scales=5e-4, codes=2e-5),
          "bfloat16": Limits(tie=3e-2, ranges=3e-2, scales=5e-4, codes=2e-5)}


class Tally:
    def __init__(self):
        self.count = collections.Counter()

    def check(self, ok, text):
        self.count["passed" if ok else "FAILED"] += 1
        print(f"{'passed' if ok else 'FAILED':8} {text}", flush=True)


def spread(tensor, width, random):
    return tensor * torch.exp(width * torch.randn(tensor.shape[-1], generator=random))


def make_model(config, dtype, folder):
    """Channels of norms and columns of weights that differ in size, as in trained models, so that ratios matter."""
    random = torch.Generator().manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=random)
        if "norm" in name:
            x = spread(torch.ones(p.shape), 0.8, random)
        elif p.dim() == 1:
            x = 0.1 * x
        elif "embed" not in name:
            x = spread(x, 0.4, random) / p.shape[1] ** 0.5
        p.data.copy_(x)
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def make_tokenizer(folder):
    """Word "tN" is token N, so that a text can name ids."""
    vocab = {f"t{i}": i for i in range(SHAPE["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "post_processor": None, "decoder": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"}}))
    (folder / "tokenizer_config.json").write_text("{}")


class Recorder:
    """AutoAWQ's losses and bounds, taken as it goes. With `means` [channels] of layers it uses these; nothing else changes."""

    def __init__(self):
        self.clear({})
        for name in ("_get_input_feat", "_compute_best_scale", "_compute_loss", "_search_best_scale", "_search_best_clip"):
            setattr(autoawq.AwqQuantizer, name, self.recording(getattr(autoawq.AwqQuantizer, name), getattr(self, name)))

    def clear(self, means):
        self.losses, self.ranges, self.block, self.history, self.means = {}, {}, -1, [], means

    @staticmethod
    def recording(function, record):
        return lambda quantizer, *args, **kwargs: record(functools.partial(function, quantizer, *args, **kwargs), quantizer, *args)

    def _get_input_feat(self, call, *_):
        self.block += 1
        return call()

    def _compute_best_scale(self, call, quantizer, x, w_mean, x_mean, inspected, linears, *rest):
        if not self.means:
            return call()
        names = {id(module): name for name, module in quantizer.model.named_modules()}
        exact = self.means[names[id(linears[0])]].to(x_mean.dtype)
        return call.func(quantizer, x, w_mean, exact, inspected, linears, *rest)

    def _compute_loss(self, call, *_):
        self.history.append(call())
        return self.history[-1]

    def _search_best_scale(self, call, *_):
        self.history = []
        found = call()
        self.losses[self.name(found[0])] = self.history
        return found

    def _search_best_clip(self, call, quantizer, _, linears, inputs):
        weights = {name: linear.weight.detach().clone() for name, linear in linears.items()}
        found = call()
        for name, bound in found:
            self.ranges[self.name(name)] = Clipped(quantizer, weights[name], inputs[name], bound)
        return found

    def name(self, part):
        return f"model.layers.{self.block}.{part}"


def clone_saved_weights():
    source = textwrap.dedent(inspect.getsource(autoawq.AwqQuantizer._compute_best_scale))
    if "v.cpu() for k" not in source:
        sys.exit("this AutoAWQ does not save its weights as 0.2.9 does")
    exec(source.replace("v.cpu() for k", "v.cpu().clone() for k"), autoawq.__dict__)
    autoawq.AwqQuantizer._compute_best_scale = autoawq.__dict__["_compute_best_scale"]


def nudge(x):
    return 1 + NUDGE * (2 * torch.rand(x.shape) - 1)


@dataclasses.dataclass
class Clipped:
    """A layer before it is clipped, [rows, groups, GROUP], its inputs, and AutoAWQ's bounds [rows, groups, 1]."""
    quantizer: object
    weight: torch.Tensor
    inputs: torch.Tensor
    bound: torch.Tensor

    def __post_init__(self):
        self.weight = self.weight.reshape(self.weight.shape[0], -1, GROUP)
        self.inputs = self.inputs.reshape(-1, self.weight.shape[1], GROUP)

    def cut(self, low, high):
        """Where the weights then end, [rows, groups, 2]."""
        w = torch.clamp(self.weight, low, high)
        return torch.cat([w.amin(2, keepdim=True), w.amax(2, keepdim=True)], 2).float()

    def errors(self, low, high):
        """Least and largest of AutoAWQ's measure of each group while its bounds, and each weight, move by at most NUDGE."""
        least = most = self.error(self.weight, low, high)
        for i in range(NUDGES):
            below = nudge(low)
            above = below if i % 2 else nudge(high)  # the same to both ends, or not
            e = self.error((self.weight * nudge(self.weight)).to(low.dtype), (low * below).to(low.dtype), (high * above).to(low.dtype))
            least, most = torch.minimum(least, e), torch.maximum(most, e)
        return least, most

    def error(self, weight, low, high):
        """In double precision but for the rounded weights."""
        cut = torch.clamp(weight, low, high)
        rounded = self.quantizer.pseudo_quantize_tensor(cut.reshape(cut.shape[0], -1))[0].view(cut.shape)
        e = rounded.double() - weight.double()
        return torch.einsum("rgi,tgi->rtg", e, self.inputs.double()).square().mean(1)


def exact_means(folder, ids):
    """Each layer's mean |x|, of the same model computed in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    means = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, x, name=name: means.update({name: x[0].abs().double().mean((0, 1))}))
    with torch.no_grad():
        model(torch.tensor(ids))
    return means


def run_autoawq(folder, ids, dtype):
    """As AutoAWQ's own examples do. Layers as awq_folder has them: codes, zeros [K or groups, N], scales."""
    model = AutoAWQForCausalLM.from_pretrained(str(folder), torch_dtype=getattr(torch, dtype), use_cache=False, device_map="cpu")
    config = {"zero_point": True, "q_group_size": GROUP, "w_bit": 4, "version": "GEMM"}
    model.quantize(None, quant_config=config, calib_data=ids, max_calib_samples=SEQUENCES, max_calib_seq_len=TOKENS)
    layers = {name: m for name, m in model.model.named_modules() if type(m).__name__ == "WQLinear_GEMM"}
    return {name: unpacked(m.qweight, m.qzeros, m.scales) for name, m in layers.items()}


def unpacked(qweight, qzeros, scales):
    return awq_folder.unpack(qweight.numpy()), awq_folder.unpack(qzeros.numpy()), scales.float().numpy()


def run_awq(awq, folder, ids, work):
    text, out, search = work / "calibration.txt", work / "out", work / "search.safetensors"
    text.write_text(" ".join(f"t{i}" for sequence in ids for i in sequence))
    shown = subprocess.run([awq, "tokenize", folder, "--file", text, "--ids"], check=True, capture_output=True, text=True).stdout
    if [int(i) for i in shown.replace(",", " ").split()] != [i for sequence in ids for i in sequence]:
        sys.exit("awq reads other ids from the calibration text")
    options = ["--variant", "autoawq", "--group-size", str(GROUP), "--calib", text, "--samples", str(SEQUENCES), "--tokens", str(TOKENS)]
    subprocess.run([awq, "quantize", folder, "-o", out, *options, "--isa", "portable", "--save-search", search], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)
    tensors = awq_folder.read(out)[1]
    names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    return {name: unpacked(*(tensors[f"{name}.{field}"] for field in awq_folder.FIELDS)) for name in names}, load_file(search)


def check_ratios(tally, title, losses, search, limit):
    """Producers of scales whose ratio is another, and whose channels' weights therefore are, too."""
    other, cost = {}, 0.0
    for producer, history in losses.items():
        theirs, ours = history.index(min(history)), round(20 * float(search[f"{producer}.candidate"][0]))
        if theirs != ours:
            other[producer] = (theirs / 20, ours / 20, history[ours] / history[theirs] - 1)
            cost = max(cost, other[producer][2])
    tally.check(losses and cost <= limit.tie,
                f"{title} ratios: {len(losses) - len(other)} of {len(losses)} equal, the others' losses within {cost:.1e} {other or ''}")
    return other


def layers_of(producers):
    """Layers that a producer's scales touch."""
    touched = set()
    for producer in producers:
        block, part = producer.rsplit(".", 1) if producer.endswith("norm") else producer.rsplit(".", 2)[::2]
        names = {"input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "v_proj": ("self_attn.v_proj", "self_attn.o_proj"),
                 "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"), "up_proj": ("mlp.up_proj", "mlp.down_proj")}[part]
        touched |= {f"{block}.{name}" for name in names}
    return touched


def check_ranges(tally, title, ranges, search, skipped, limit):
    """True where a layer's group has the same range in both, [rows, groups]."""
    same, cost, ties, count = {}, 0.0, 0, 0
    for name, theirs in ranges.items():
        if name in skipped:
            continue
        ours = search[f"{name}.ranges"].to(theirs.weight.dtype)
        bounds = (-theirs.bound, theirs.bound), (ours[..., :1], ours[..., 1:])
        first, second = (theirs.cut(*b) for b in bounds)
        # One step of 0.05 of a group's largest weight is 5e-2: less is the rounding of a bound.
        same[name] = ((first - second).abs().amax(2) <= 1e-2 * first.abs().amax(2)).numpy()
        (_, a), (b, _) = (theirs.errors(*b) for b in bounds)
        worse = ((b - a) / a.clamp(min=1e-30))[torch.from_numpy(~same[name])]
        cost, ties, count = max([cost, *worse.tolist()]), ties + worse.numel(), count + a.numel()
    tally.check(count and cost <= limit.tie and ties <= limit.ranges * count,
                f"{title} ranges: {count - ties} of {count} equal, the others' errors within {cost:.1e}")
    return same


def check_codes(tally, title, theirs, ours, same, skipped, limit):
    scales = zeros = codes = groups = weights = most = 0
    for name in theirs.keys() - skipped:
        (q, z, s), (oq, oz, os) = theirs[name], ours[name]
        alike = same[name].T if name in same else s == s
        far, equal = alike & (s != os), alike & (s == os) & (z == oz)
        step = abs(q.astype(int) - oq.astype(int))[equal.repeat(GROUP, 0)]
        scales, zeros, groups = scales + far.sum(), zeros + (alike & (s == os) & (z != oz)).sum(), groups + alike.sum()
        codes, weights, most = codes + (step != 0).sum(), weights + step.size, max(most, step.max())
    tally.check(theirs.keys() == ours.keys() and groups and scales <= limit.scales * groups, f"{title} scales: {groups - scales} of {groups} equal")
    tally.check(weights and zeros + codes <= limit.codes * weights and most <= 1,
                f"{title} codes: {weights - codes} of {weights} equal, the others {most} apart; {zeros} other zero points")


def compare(tally, args, recorder, name, dtype, work):
    folder = work / "model"
    make_model(MODELS[name], dtype, folder)
    make_tokenizer(folder)
    ids = torch.randint(3, SHAPE["vocab_size"], (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(1)).tolist()
    ours, search = run_awq(args.awq, folder, ids, work)
    recorder.clear({} if args.own_means else exact_means(folder, ids))
    theirs = run_autoawq(folder, ids, dtype)
    title, limit = f"{name + ' ' + dtype:16}", LIMITS[dtype]
    skipped = layers_of(check_ratios(tally, title, recorder.losses, search, limit))
    same = check_ranges(tally, title, recorder.ranges, search, skipped, limit)
    check_codes(tally, title, theirs, ours, same, skipped, limit)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--own-means", action="store_true", help="leave AutoAWQ its means of 16-bit activations")
    parser.add_argument("--as-shipped", action="store_true", help="leave AutoAWQ's saved weights as they are: must fail")
    args = parser.parse_args()
    torch.manual_seed(0)
    if not args.as_shipped:
        clone_saved_weights()
    tally, recorder = Tally(), Recorder()
    for name in MODELS:
        for dtype in LIMITS:
            with tempfile.TemporaryDirectory(prefix="awq-autoawq-") as work:
                compare(tally, args, recorder, name, dtype, pathlib.Path(work))
    print(f"{tally.count['passed']} passed, {tally.count['FAILED']} failed")
    return 0 if tally.count["passed"] and not tally.count["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
