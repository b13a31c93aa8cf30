#!/usr/bin/env python3
"""Make the tiny random models of tests/golden and their reference logits, with transformers.

usage: make_golden.py OUT_DIR [NAME...]        (packages: requirements-golden.txt; reads no file but what it wrote)

Each OUT_DIR/NAME holds
  config.json          in the spelling that real checkpoints of the family use
  model.safetensors    random weights: F32, F16 or BF16
  expected.safetensors ids I64 [T]; logits F32 [T, vocab]; block.N F32 [T, hidden]: the output of decoder layer N

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

TOKENS = 40
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


def random_weight(name, shape, config, rng):
    """Activations stay near 1 through the model, attention is neither uniform nor one-hot, norm gains spread around 1."""
    noise = torch.randn(shape, generator=rng, dtype=torch.float64)
    if name.endswith("bias"):
        return 0.5 * noise
    if len(shape) == 1:
        gain = torch.exp(0.4 * noise)
        return gain - 1 if config["model_type"].startswith("gemma") else gain
    if name == "model.embed_tokens.weight":
        return 0.4 * noise
    if name == "lm_head.weight":
        return 3 / math.sqrt(shape[1]) * noise
    return 1.2 / math.sqrt(shape[1]) * noise


def make_weights(config, stored, rng):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    tied = "lm_head.weight" if model.config.tie_word_embeddings else ""
    return {name: random_weight(name, p.shape, config, rng).to(stored).contiguous()
            for name, p in sorted(model.state_dict().items()) if name != tied}


def load(folder, dtype):
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager", dtype=dtype)
    return model.eval()


def run(model, weights, ids):
    """Logits and the output of each decoder layer."""
    result = model.load_state_dict(weights, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert set(result.missing_keys) == tied and not result.unexpected_keys, result
    model.tie_weights()
    dtype = model.dtype
    blocks = []

    def check(module, args, output):
        output = output if isinstance(output, torch.Tensor) else output[0]
        assert output.dtype == dtype, (module, output.dtype)

    def keep(module, args, output):
        blocks.append(output if isinstance(output, torch.Tensor) else output[0])

    for module in model.modules():
        if module is not model and module is not model.model:
            module.register_forward_hook(check)
    for layer in model.model.layers:
        layer.register_forward_hook(keep)
    with torch.inference_mode():
        logits = model(input_ids=ids[None], use_cache=False).logits
    assert logits.dtype == dtype and torch.isfinite(logits).all()
    return logits[0], [b[0] for b in blocks]


def make(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rng = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(folder.name.encode()).digest()[:4], "little"))
    stored = getattr(torch, config.get("torch_dtype") or config["dtype"])
    save_file(make_weights(config, stored, rng), folder / "model.safetensors", metadata={"format": "pt"})
    ids = torch.randint(3, config["vocab_size"], (TOKENS,), generator=rng)

    weights = {name: w.double() for name, w in load_file(folder / "model.safetensors").items()}
    with float64_everywhere():
        logits, blocks = run(load(folder, torch.float64), weights, ids)
    plain, _ = run(load(folder, torch.float32), {name: w.float() for name, w in weights.items()}, ids)
    rel = ((plain - logits).abs().max() / logits.abs().max()).item()
    # 40 to 160 sequential roundings of 2^-24 each, amplified a little by softmax and norms; a mistake gives above 1e-2
    assert 0 < rel < 1e-5, rel
    expected = {"ids": ids, "logits": logits, **{f"block.{i}": b for i, b in enumerate(blocks)}}
    expected = {k: (v if k == "ids" else v.float()).contiguous() for k, v in expected.items()}
    save_file(expected, folder / "expected.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {len(weights)} tensors, {size} bytes, |logits| {logits.std().item():.2f}, "
          f"transformers' float32 differs by {rel:.1e}", *(f"{b.std().item():.2f}" for b in blocks))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("out", type=pathlib.Path)
    args.add_argument("names", nargs="*", metavar="NAME", help="default: all of " + " ".join(MODELS))
    args = args.parse_args()
    for name in args.names or MODELS:
        make(args.out / name, MODELS[name])


if __name__ == "__main__":
    main()
