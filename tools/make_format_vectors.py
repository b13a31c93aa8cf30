#!/usr/bin/env python3
"""Makes the model folders that tests/formats/packed_test.cc reads, with packers of its own in numpy.

    tools/make_format_vectors.py          (needs numpy, torch and safetensors)

tests/formats/fixtures/CASE/ is a Llama of one block. Matrix number i of the block (q k v o gate up down) has the codes,
zero points and scales of the formulas below, which the test has too, so that nothing but the layout is in the files.
"""
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

FIXTURES = pathlib.Path(__file__).parent.parent / "tests" / "formats" / "fixtures"
NAMES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj"]


class Matrix:
    """codes [rows, cols], zeros and scales [rows, groups]"""

    def __init__(self, i, rows, cols, bits, group, symmetric):
        r, c = np.indices((rows, cols))
        self.codes = ((r * 7 + c * 13 + r * c + i) % 2**bits).astype(np.uint32)
        r, g = np.indices((rows, cols // group))
        self.zeros = ((r * 5 + g * 3 + i) % 2**bits).astype(np.uint32)
        if symmetric:
            self.zeros[:] = 2 ** (bits - 1)
        self.scales = ((1 + (r * 3 + g * 7 + i) % 61) / 1024).astype(np.float16)
        self.bits, self.group = bits, group


def stream(codes, bits, word=np.int32):
    """Fields without gaps from the low end, each row for itself."""
    planes = (codes[:, :, None] >> np.arange(bits)) & 1
    planes = planes.reshape(codes.shape[0], -1, 32).astype(np.uint64)
    return (planes << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(word)


def contiguous(tensors):
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}


def compressed_tensors(m, symmetric):
    t = {"weight_packed": stream(m.codes, m.bits), "weight_scale": m.scales,
         "weight_shape": np.array(m.codes.shape, np.int64)}
    if not symmetric:
        t["weight_zero_point"] = stream(m.zeros.T, m.bits).T
    return t


def gptq(m, version, act_order=False):
    rows, cols = m.codes.shape
    columns = np.arange(cols)
    codes, g_idx = m.codes, columns // m.group
    if act_order:  # column c of the matrix belongs to the group of place c * 5
        g_idx = columns * 5 % cols // m.group
        place = np.argsort(g_idx, kind="stable")
        codes = np.empty_like(m.codes)
        codes[:, place] = m.codes
    zeros = stream(m.zeros.T, m.bits).view(np.uint32)
    if version == 1:
        zeros = zeros - np.uint32(0x11111111 if m.bits == 4 else 0x01010101)
    return {"qweight": stream(codes, m.bits).T, "qzeros": zeros.view(np.int32), "scales": m.scales.T,
            "g_idx": g_idx.astype(np.int32)}


def mlx(m):
    biases = (-(m.zeros.astype(np.float32) * m.scales.astype(np.float32))).astype(np.float16)
    return {"weight": stream(m.codes, m.bits, np.uint32), "scales": m.scales, "biases": biases}


def config(dim, quantization):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": dim, "intermediate_size": 2 * dim,
            "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 16,
            "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "torch_dtype": "float16"} | quantization


def write(case, quantization, pack, bits=4, group=16, symmetric=False, dim=32):
    tensors = {"model.norm.weight": np.ones(dim, np.float16)}
    for name in ["model.embed_tokens", "lm_head"]:
        r, c = np.indices((16, dim))
        tensors[name + ".weight"] = ((r * 3 + c) % 32 / 16 - 1).astype(np.float16)
    for norm in ["input_layernorm", "post_attention_layernorm"]:
        tensors[f"model.layers.0.{norm}.weight"] = np.ones(dim, np.float16)
    for i, name in enumerate(NAMES):
        rows, cols = (2 * dim, dim) if name in NAMES[4:6] else (dim, 2 * dim) if name == NAMES[6] else (dim, dim)
        m = Matrix(i, rows, cols, bits, group if group > 0 else cols, symmetric)
        for suffix, t in pack(m).items():
            tensors[f"model.layers.0.{name}.{suffix}"] = t
    folder = FIXTURES / case
    folder.mkdir(parents=True, exist_ok=True)
    save_file(contiguous(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config(dim, quantization), indent=1) + "\n")


def ct_config(bits, symmetric, group):
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group" if group > 0 else "channel",
               "group_size": group if group > 0 else None}
    return {"quantization_config": {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}}


def gptq_config(bits, group, version, symmetric=False):
    return {"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False,
                                    "sym": symmetric, "checkpoint_format": version, "lm_head": False}}


def main():
    for bits, symmetric, group in [(4, False, 16), (4, True, 16), (8, False, 16), (8, True, -1), (4, False, -1)]:
        case = f"compressed-tensors-{bits}-{'sym' if symmetric else 'asym'}-{group if group > 0 else 'channel'}"
        write(case, ct_config(bits, symmetric, group), lambda m: compressed_tensors(m, symmetric), bits, group, symmetric)
    write("gptq-v1", gptq_config(4, 16, "gptq"), lambda m: gptq(m, 1))
    write("gptq-v2", gptq_config(4, 16, "gptq_v2"), lambda m: gptq(m, 2))
    write("gptq-v2-act-order", gptq_config(4, 16, "gptq_v2"), lambda m: gptq(m, 2, True))
    write("gptq-v2-8", gptq_config(8, -1, "gptq_v2"), lambda m: gptq(m, 2), 8, -1)
    for bits in [2, 3, 4, 5, 6, 8]:
        q = {"group_size": 32, "bits": bits}
        write(f"mlx-{bits}", {"quantization": q, "quantization_config": q}, mlx, bits, 32)


if __name__ == "__main__":
    main()
