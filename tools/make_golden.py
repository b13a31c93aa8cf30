#!/usr/bin/env python3
"""Make the tiny random models of tests/golden and their reference logits, with transformers.

usage: make_golden.py OUT_DIR [NAME...]        (packages: requirements-golden.txt; reads no file but what it wrote)

Each OUT_DIR/NAME holds
  config.json          in the spelling that real checkpoints of the family use
  model.safetensors    random weights: F32, F16 or BF16
  expected.safetensors ids I64 [T]; logits F32 [T, vocab]. Of models in golden_models.py the last ten ids are the
                       reference's own greedy continuation of those before, computed token by token through its cache.
                       With rope scaling also long_length I64 [1] and long_logits F32 [8, vocab], the last of a text
                       of 3 + (7 i^2 + 13 i) % 89. Of the others also block.N F32 [T, hidden]: the output of decoder layer N

The reference is transformers' own model, eager attention, computed in float64 throughout on the stored weights and
rounded once to F32, so a difference from `expected` is the other program's rounding or its mistake.

Everything that can be mistaken shows: norm gains are spread around 1, biases are not zero, eps is large enough to
matter, the text is longer than the sliding window, llama3 rope has pairs on all three branches, head_dim is not
hidden / heads. The same package versions on the same kind of CPU give the same bytes.
"""
import argparse
import contextlib
import hashlib
import json
import math
import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import golden_models

TOKENS, DECODED = 40, 10
COMMON = {"attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "use_cache": True}


def llama(**changes):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
            "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-3,
            "rope_theta": 10000.0, "rope_scaling": None, "pretraining_tp": 1, "tie_word_embeddings": False,
            "vocab_size": 128, "torch_dtype": "bfloat16", **COMMON, **changes}


def qwen2():
    # sliding_window must be ignored: use_sliding_window is false, as in every released model
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 256, "max_window_layers": 2, "sliding_window": 8, "use_sliding_window": False,
            "rms_norm_eps": 2e-3, "rope_theta": 1000000.0, "tie_word_embeddings": False, "vocab_size": 136,
            "torch_dtype": "bfloat16", **COMMON}


def mistral():
    return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu", "hidden_size": 32,
            "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 32, "max_position_embeddings": 256, "sliding_window": 12, "rms_norm_eps": 1e-2,
            "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 128, "torch_dtype": "float32", **COMMON}


def qwen3():
    # the spelling of transformers 5: rope_parameters, layer_types, dtype
    return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "hidden_act": "silu",
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 256, "max_window_layers": 2,
            "sliding_window": None, "use_sliding_window": False, "layer_types": ["full_attention"] * 2,
            "rms_norm_eps": 1e-3, "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
            "tie_word_embeddings": True, "vocab_size": 144, "dtype": "bfloat16", **COMMON}


def gemma3():
    # layers 0, 1 and 3 see a window, layer 2 everything; hidden is no square, so the embedding scale is no integer
    return {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "attention_bias": False,
            "attn_logit_softcapping": None, "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 24, "max_position_embeddings": 256,
            "rms_norm_eps": 1e-3, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 12, "sliding_window_pattern": 3,
            "vocab_size": 160, "pad_token_id": 0, "torch_dtype": "bfloat16", **COMMON}


# original_max_position_embeddings 64 and theta 10000 put the 8 rotation pairs on all three branches of the llama3 rule
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}
MODELS = {
    "llama": llama(),
    "llama3": llama(num_attention_heads=4, num_key_value_heads=2, rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True,
                    torch_dtype="float16"),
    "llama-bias": llama(hidden_size=32, intermediate_size=64, num_hidden_layers=1, attention_bias=True, mlp_bias=True,
                        num_key_value_heads=1, torch_dtype="float32"),
    # pairs on the ramp, all stretched and kept; attention scores are multiplied by (1 + 0.1 ln 4)^2 = 1.30
    "llama-yarn": llama(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
                        rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 4.0},
                        torch_dtype="float32"),
    "mistral": mistral(),
    "qwen2": qwen2(),
    "qwen3": qwen3(),
    "gemma3": gemma3(),
}


@contextlib.contextmanager
def float64_everywhere():
    """transformers computes norms, softmax and rotation angles in float32 whatever the model's type, by naming
    torch.float32 or calling .float(). For the reference both mean float64."""
    saved = torch.float, torch.float32, torch.Tensor.float, torch.get_default_dtype()
    torch.float = torch.float32 = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float, torch.float32, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])


GAIN_LESS_ONE = ("gemma_", "gemma2", "gemma3", "nemotron", "qwen3_next", "qwen3_5")  # model types that store a norm's gain - 1


def random_weight(name, shape, config, rng):
    """Activations stay near 1 through the model, attention is neither uniform nor one-hot, norm gains spread around 1."""
    noise = torch.randn(shape, generator=rng, dtype=torch.float64)
    if name.endswith("bias"):
        return 0.5 * noise
    if len(shape) == 1 or name.endswith("norm.weight"):
        gain = torch.exp(0.4 * noise)
        if name.endswith("A_log"):  # states that keep a tenth to nine tenths from token to token
            return noise - 0.5
        if name.endswith("linear_attn.norm.weight"):
            return gain
        if name.endswith("q_norm.weight") and config["model_type"] == "gemma4_text":
            return 0.3 * gain  # whose scores are not divided by sqrt(head_dim)
        return gain - 1 if (config["model_type"] + "_").startswith(GAIN_LESS_ONE) else gain
    if any(part in name for part in ("embed_tokens", "wte", "word_embeddings", "embed_in", "wpe", "embed_positions")):
        return 0.4 * noise
    if any(part in name for part in ("lm_head", "embed_out")):
        return 3 / math.sqrt(shape[1]) * noise
    inputs = shape[0] if config["model_type"] == "gpt2" else shape[1] if config["model_type"] == "gpt_oss" else shape[-1]
    return 1.2 / math.sqrt(inputs) * noise


def empty_model(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def make_weights(config, stored, rng):
    model = empty_model(config)
    tied = {"lm_head.weight", "embed_out.weight"} if model.config.tie_word_embeddings else set()
    return {name: random_weight(name, p.shape, config, rng).to(stored).contiguous()
            for name, p in sorted(model.state_dict().items()) if name not in tied}


def fused(parts, kv_heads):
    """Rows of q, k, v (or gate, up) in one tensor."""
    if kv_heads and len(parts) == 3:
        parts = [p.reshape(kv_heads, -1, *p.shape[1:]) for p in parts]
        return torch.cat(parts, dim=1).flatten(0, 1)
    return torch.cat(parts)


def unstacked(weights):
    """Experts one by one, where transformers has all of them in one tensor and gate and up in another."""
    single = {}
    for name, w in weights.items():
        base, _, kind = name.rpartition(".")
        if kind == "gate_up_proj" and w.dim() == 3:
            gates, ups = w.chunk(2, dim=1)
            for e in range(len(w)):
                single[f"{base}.{e}.gate_proj.weight"], single[f"{base}.{e}.up_proj.weight"] = gates[e], ups[e]
        elif kind == "down_proj" and w.dim() == 3:
            single.update((f"{base}.{e}.down_proj.weight", part) for e, part in enumerate(w))
        else:
            single[name] = w
    return single


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)


def mxfp4(w):
    """Experts [count, in, out] in 4-bit floats of 32 inputs a power of 2 (OCP Microscaling Formats 1.0): bytes, powers, and
    the values."""
    rows = w.double().transpose(1, 2)
    blocks = rows.reshape(*rows.shape[:2], -1, 32)
    power = torch.floor(torch.log2(blocks.abs().amax(-1))) - 2
    scaled = blocks / torch.exp2(power)[..., None]
    size = (scaled.abs()[..., None] - FP4).abs().argmin(-1)
    values = torch.sign(scaled) * FP4[size] * torch.exp2(power)[..., None]
    codes = (size + 8 * (scaled < 0)).to(torch.uint8)
    packed = codes[..., 0::2] | codes[..., 1::2] << 4
    return packed, (power + 127).to(torch.uint8), values.reshape(rows.shape).transpose(1, 2).to(w.dtype).contiguous()


def in_mxfp4(weights):
    """The same in the files' form; `weights` become the values."""
    stored = {}
    for name, w in list(weights.items()):
        if w.dim() == 3:
            stored[name + "_blocks"], stored[name + "_scales"], weights[name] = mxfp4(w)
        else:
            stored[name] = w
    return {name: w.contiguous() for name, w in sorted(stored.items())}


def published(model, weights):
    """The reference's weights under the names and in the layout of `model`, a golden_models.As."""
    named, weights = {}, weights if model.stacked else unstacked(weights)
    for kind in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", ""):  # parts in the order of their rows
        for name in weights:
            if kind in name and name not in sum(named.values(), []):
                named.setdefault(model.name(name), []).append(name)
    return {name: fused([weights[p] for p in parts], model.kv_heads).contiguous() for name, parts in sorted(named.items())}


def alibi_arguments(model, tokens):
    """Positions that rotate nothing, and ALiBi (arXiv 2108.12409) as an additive mask."""
    heads = model.config.num_attention_heads
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]
    position = torch.arange(tokens)
    distance = (position[None, :] - position[:, None]).to(model.dtype)
    mask = torch.tensor(slopes, dtype=model.dtype)[:, None, None] * distance
    mask = mask.masked_fill(distance > 0, torch.finfo(model.dtype).min)
    return {"position_ids": torch.zeros(1, tokens, dtype=torch.long), "attention_mask": mask[None]}


def load(config, dtype, attention="eager"):
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, experts_implementation="eager", dtype=dtype)
    return model.eval()


def fill(model, weights):
    result = model.load_state_dict(weights, strict=False)
    tied = {"lm_head.weight", "embed_out.weight"} if model.config.tie_word_embeddings else set()
    assert set(result.missing_keys) <= tied and not result.unexpected_keys, result
    model.tie_weights()
    allowed = (model.dtype, model.dtype.to_complex(), torch.bool, torch.int64)

    def check(module, args, output):
        output = output[0] if isinstance(output, tuple) else output
        assert not isinstance(output, torch.Tensor) or output.dtype in allowed, (module, output.dtype)

    for module in model.modules():
        if module is not model and module is not model.base_model:
            module.register_forward_hook(check)


def run(model, ids, alibi=False):
    """Logits and the output of each decoder layer."""
    blocks = []

    def keep(module, args, output):
        blocks.append(output if isinstance(output, torch.Tensor) else output[0])

    hooks = [layer.register_forward_hook(keep) for layer in getattr(model.base_model, "layers", [])]
    with torch.inference_mode():
        logits = model(input_ids=ids[None], use_cache=False, **(alibi_arguments(model, len(ids)) if alibi else {})).logits
    for hook in hooks:
        hook.remove()
    assert logits.dtype == model.dtype and torch.isfinite(logits).all()
    return logits[0], [b[0] for b in blocks]


def continued(model, ids, alibi):
    """ids and a greedy continuation, with the logits of all, token by token through the cache."""
    if alibi:  # the mask above is for whole texts
        for _ in range(DECODED):
            ids = torch.cat([ids, run(model, ids, alibi)[0][-1:].argmax(-1)])
        return ids, run(model, ids, alibi)[0]
    with torch.inference_mode():
        out = model(input_ids=ids[None], use_cache=True)
        logits = out.logits[0]
        for _ in range(DECODED):
            following = logits[-1:].argmax(-1)
            ids = torch.cat([ids, following])
            out = model(input_ids=following[None], cache=out.past_key_values, use_cache=True)
            logits = torch.cat([logits, out.logits[0]])
    at_once = run(model, ids)[0]
    assert (logits - at_once).abs().max() < 1e-9 * logits.abs().max(), (logits - at_once).abs().max()
    return ids, logits


def long_logits(model, length):
    """The last eight of a text that is too long to keep."""
    i = torch.arange(length)
    with torch.inference_mode():
        logits = model(input_ids=(3 + (7 * i * i + 13 * i) % 89)[None], use_cache=False, logits_to_keep=8).logits
    return {"long_length": torch.tensor([length]), "long_logits": logits[0]}


def random_generator(name):
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))


def make_published(folder, model):
    """A model of golden_models.py."""
    model = model if isinstance(model, golden_models.As) else golden_models.As(model, model, [])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.published, indent=2) + "\n")
    rng = random_generator(folder.name)
    reference = make_weights(model.reference, getattr(torch, model.published["torch_dtype"]), rng)
    stored = in_mxfp4(reference) if model.mxfp4 else published(model, reference)
    noise = random_generator(folder.name + " others")
    for name, shape in model.others.items():
        stored[name] = torch.randn(shape, generator=noise, dtype=torch.float64).to(torch.bfloat16)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    ids = torch.randint(3, 96, (TOKENS - DECODED,), generator=rng)
    config = AutoConfig.for_model(**model.reference)
    if model.unit_head:
        head = reference["lm_head.weight"].double()
        reference["lm_head.weight"] = head / head.norm(dim=1, keepdim=True)
    with float64_everywhere():
        wide = load(config, torch.float64, model.attention)
        fill(wide, {name: w.double() for name, w in reference.items()})
        ids, logits = continued(wide, ids, model.alibi)
        long = long_logits(wide, model.long) if model.long else {}
    narrow = load(config, torch.float32, model.attention)
    fill(narrow, {name: w.float() for name, w in reference.items()})
    report(folder, run(narrow, ids, model.alibi)[0], {"ids": ids, "logits": logits, **long})


def report(folder, plain, expected):
    logits = expected["logits"]
    rel = ((plain - logits).abs().max() / logits.abs().max()).item()
    # 40 to 160 sequential roundings of 2^-24 each, amplified a little by softmax and norms; a mistake gives above 1e-2
    assert 0 < rel < 1e-5, rel
    expected = {k: (v if v.dtype == torch.int64 else v.float()).contiguous() for k, v in expected.items()}
    save_file(expected, folder / "expected.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {size} bytes, |logits| {logits.std().item():.2f}, transformers' float32 differs by {rel:.1e}")


def make(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rng = random_generator(folder.name)
    stored = getattr(torch, config.get("torch_dtype") or config["dtype"])
    save_file(make_weights(config, stored, rng), folder / "model.safetensors", metadata={"format": "pt"})
    ids = torch.randint(3, config["vocab_size"], (TOKENS,), generator=rng)

    weights = {name: w.double() for name, w in load_file(folder / "model.safetensors").items()}
    with float64_everywhere():
        wide = load(AutoConfig.from_pretrained(folder), torch.float64)
        fill(wide, weights)
        logits, blocks = run(wide, ids)
    narrow = load(AutoConfig.from_pretrained(folder), torch.float32)
    fill(narrow, {name: w.float() for name, w in weights.items()})
    report(folder, run(narrow, ids)[0], {"ids": ids, "logits": logits, **{f"block.{i}": b for i, b in enumerate(blocks)}})


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("out", type=pathlib.Path)
    args.add_argument("names", nargs="*", metavar="NAME", help="default: all of " + " ".join([*MODELS, *golden_models.MODELS]))
    args = args.parse_args()
    for name in args.names or [*MODELS, *golden_models.MODELS]:
        if name in MODELS:
            make(args.out / name, MODELS[name])
        else:
            make_published(args.out / name, golden_models.MODELS[name])


if __name__ == "__main__":
    main()
