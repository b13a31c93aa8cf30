#!/usr/bin/env python3
"""Makes tests/formats/fixtures/fp8, a model of 8-bit floats in blocks, and tests/formats/fp8-floats, the float model that
torch makes of it; and tests/fuzz/corpus/packed/fp8, a seed of the fuzz target: the number of its config.json there, then a safetensors file.

    tools/make_fp8_vectors.py          (needs torch and safetensors)

A Qwen3 of one block with a mixture of experts and blocks of 24 x 48 that divide no matrix, so that blocks at the edges
are smaller. All 254 numbers of the type are in each matrix. Scales are F32 or BF16; one matrix has a scale of its inputs too, which has
nothing to do with weights.
"""
import json
import pathlib

import torch
from safetensors.torch import save, save_file

TESTS = pathlib.Path(__file__).parent.parent / "tests" / "formats"
SEED = TESTS.parent / "fuzz" / "corpus" / "packed" / "fp8"
SEED_CONFIG, SEED_BLOCK = 9, (16, 24)  # of tests/fuzz/packed_fuzz.cc
DIM, HEADS, HEAD, EXPERT, VOCAB, EXPERTS = 64, 2, 32, 32, 16, 2
BLOCK = (24, 48)


def matrices():
    at = "model.layers.0."
    for name, rows, cols in [("q", HEADS * HEAD, DIM), ("k", HEAD, DIM), ("v", HEAD, DIM), ("o", DIM, HEADS * HEAD)]:
        yield f"{at}self_attn.{name}_proj", rows, cols
    for e in range(EXPERTS):
        for name, rows, cols in [("gate", EXPERT, DIM), ("up", EXPERT, DIM), ("down", DIM, EXPERT)]:
            yield f"{at}mlp.experts.{e}.{name}_proj", rows, cols


def plain(random):
    at = "model.layers.0."
    shapes = {"model.embed_tokens": (VOCAB, DIM), "lm_head": (VOCAB, DIM), "model.norm": (DIM,), at + "input_layernorm": (DIM,),
              at + "post_attention_layernorm": (DIM,), at + "self_attn.q_norm": (HEAD,), at + "self_attn.k_norm": (HEAD,),
              at + "mlp.gate": (EXPERTS, DIM)}
    return {name + ".weight": torch.randn(shape, generator=random).to(torch.bfloat16) for name, shape in shapes.items()}


def in_blocks(rows, cols, block, random):
    """Codes with every number of the type, as far as there is room, and scales."""
    numbers = torch.tensor([i for i in range(256) if i & 127 != 127], dtype=torch.uint8)
    codes = numbers[torch.randperm(rows * cols, generator=random) % len(numbers)].reshape(rows, cols).view(torch.float8_e4m3fn)
    return codes, torch.exp(torch.randn([-(-n // b) for n, b in zip((rows, cols), block)], generator=random)) / 4096


def make_seed():
    """The Llama of packed_fuzz.cc."""
    random = torch.Generator().manual_seed(4)
    at, dim, ffn, vocab = "model.layers.0.", 32, 64, 16
    tensors = {name + ".weight": torch.randn(shape, generator=random).to(torch.bfloat16)
               for name, shape in [("model.embed_tokens", (vocab, dim)), ("lm_head", (vocab, dim)), ("model.norm", (dim,)),
                                   (at + "input_layernorm", (dim,)), (at + "post_attention_layernorm", (dim,))]}
    shapes = {f"self_attn.{n}_proj": (dim, dim) for n in "qkvo"} | {"mlp.gate_proj": (ffn, dim), "mlp.up_proj": (ffn, dim), "mlp.down_proj": (dim, ffn)}
    for name, (rows, cols) in shapes.items():
        tensors[f"{at}{name}.weight"], tensors[f"{at}{name}.weight_scale_inv"] = in_blocks(rows, cols, SEED_BLOCK, random)
    SEED.write_bytes(bytes([SEED_CONFIG]) + save(tensors))


def main():
    make_seed()
    random = torch.Generator().manual_seed(3)
    stored = plain(random)
    floats = dict(stored)
    for i, (name, rows, cols) in enumerate(matrices()):
        codes, scales = in_blocks(rows, cols, BLOCK, random)
        scales = scales.to(torch.bfloat16) if i % 2 else scales
        stored[name + ".weight"], stored[name + ".weight_scale_inv"] = codes, scales
        each = scales.float().repeat_interleave(BLOCK[0], 0)[:rows].repeat_interleave(BLOCK[1], 1)[:, :cols]
        floats[name + ".weight"] = codes.float() * each
    stored["model.layers.0.self_attn.o_proj.input_scale"] = torch.tensor(0.5)
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": DIM, "intermediate_size": EXPERT,
              "moe_intermediate_size": EXPERT, "num_attention_heads": HEADS, "num_key_value_heads": 1, "head_dim": HEAD,
              "num_hidden_layers": 1, "vocab_size": VOCAB, "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
              "rope_theta": 10000.0, "tie_word_embeddings": False, "attention_bias": False, "num_experts": EXPERTS,
              "num_experts_per_tok": 1, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "torch_dtype": "bfloat16"}
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "static", "weight_block_size": list(BLOCK),
                    "modules_to_not_convert": ["lm_head"]}
    for folder, tensors, extra in [("fixtures/fp8", stored, {"quantization_config": quantization}), ("fp8-floats", floats, {})]:
        (TESTS / folder).mkdir(parents=True, exist_ok=True)
        save_file({k: t.contiguous() for k, t in tensors.items()}, TESTS / folder / "model.safetensors", metadata={"format": "pt"})
        (TESTS / folder / "config.json").write_text(json.dumps(config | extra, indent=1) + "\n")


if __name__ == "__main__":
    main()
