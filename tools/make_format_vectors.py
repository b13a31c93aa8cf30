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


def padded(m):
    """Groups that AutoAWQ's GEMV layouts have room for."""
    words = -(-m.scales.shape[1] // 8)
    unit = {32: 4, 64: 2}.get(m.group, 1)
    return -(-words // unit) * unit * 8


def wide(t, cols):
    return np.pad(t, ((0, 0), (0, cols - t.shape[1])))


def gemv(m):
    return {"qweight": stream(m.codes, 4), "qzeros": stream(wide(m.zeros, padded(m)), 4), "scales": wide(m.scales, padded(m))}


def gemv_fast(m):
    """The chain of reshapes that llm-awq documents for its second layout: columns of 32 reordered for two conversions at
    once, four rows interleaved in steps of 64 columns, four codes to a word."""
    n, k = m.codes.shape
    w = m.codes.reshape(n, k // 32, 32)
    w = w.reshape(n, k // 32, 4, 4, 2).transpose(0, 1, 3, 2, 4).reshape(n, k // 32, 32)  # 0 1 8 9 16 17 24 25 2 3 ...
    w = w.reshape(n, k // 32, 4, 4, 2).transpose(0, 1, 2, 4, 3).reshape(n, k)  # of eight: 0 2 4 6 1 3 5 7
    w = w.reshape(n // 4, 4, k // 64, 64).transpose(0, 2, 1, 3).reshape(n // 4, k // 64, 64, 4)
    words = w[..., 0] | w[..., 1] << 4 | w[..., 2] << 8 | w[..., 3] << 12
    zeros = (-(m.zeros.astype(np.float32) * m.scales.astype(np.float32))).astype(np.float16)
    return {"qweight": words.astype(np.uint16).view(np.int16).reshape(n // 4, k), "scales": wide(m.scales, padded(m)).T,
            "qzeros": wide(zeros, padded(m)).T}


def marlin(m):
    """As IST-DASLab's packer does it, on the transposed matrix."""
    perm = []
    for lane in range(32):
        one = [16 * row + lane // 4 + 8 * block for block in (0, 1)
               for row in (2 * (lane % 4), 2 * (lane % 4) + 1, 2 * (lane % 4 + 4), 2 * (lane % 4 + 4) + 1)]
        for tile in range(4):
            perm += [p + 256 * tile for p in one]
    perm = np.array(perm).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].ravel()
    scale_perm = [i + 8 * j for i in range(8) for j in range(8)]
    row_perm = [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]
    n, k = m.codes.shape
    w = m.codes.T.reshape(k // 16, 16, n // 16, 16).transpose(0, 2, 1, 3).reshape(k // 16, n * 16)
    w = w.reshape(-1, perm.size)[:, perm].reshape(k // 16, n * 16)
    order = scale_perm if m.group < k else row_perm
    scales = m.scales.T.reshape(-1, len(order))[:, order].reshape(-1, n)
    return {"qweight": stream(w, 4), "scales": scales}


def modelopt(m, inputs=False):
    signed = (m.codes.astype(int) - 8) & 15  # two's complement
    return {"weight": (signed[0::2] | signed[1::2] << 4).astype(np.uint8), "weight_scale": m.scales,
            "pre_quant_scale": (0.5 + np.arange(m.codes.shape[1]) % 5 / 4).astype(np.float16) if inputs else np.ones(m.codes.shape[1], np.float16)}


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


def autoawq_config(group, version):
    return {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": version != "marlin",
                                    "version": version, "modules_to_not_convert": None}}


def main():
    for inputs in [False, True]:
        write("modelopt-inputs" if inputs else "modelopt",
              {"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 16, "has_zero_point": False,
                                       "pre_quant_scale": True, "exclude_modules": ["lm_head"]}}, lambda m: modelopt(m, inputs), symmetric=True)
    write("autoawq-gemv", autoawq_config(32, "gemv"), gemv, 4, 32, dim=64)
    write("autoawq-gemv-64", autoawq_config(64, "gemv"), gemv, 4, 64, dim=64)
    write("autoawq-gemv-fast", autoawq_config(64, "gemv_fast"), gemv_fast, 4, 64, dim=64)
    write("llm-awq", autoawq_config(64, "llm-awq"), lambda m: {k.replace("qzeros", "scaled_zeros"): v for k, v in gemv_fast(m).items()}, 4, 64, dim=64)
    write("autoawq-marlin", autoawq_config(32, "marlin"), marlin, 4, 32, True, dim=64)
    write("autoawq-marlin-rows", autoawq_config(-1, "marlin"), marlin, 4, -1, True, dim=64)
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
