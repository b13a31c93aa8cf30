#!/usr/bin/env python3
"""One random model in the 4-bit formats of several programs. Run in the environment of requirements-llama.txt.

usage: models.py SHAPE OUT     writes what is missing of OUT/awq (an AutoAWQ folder) and OUT/{q4_0,q4_1}-{bf16,f16,q6_k}.gguf
       models.py --self-test   decodes what was written with the gguf package and compares

A linear layer is codes 1 to 15, zero points 7 to 9 and 16-bit scales for groups of 128 inputs. The folder and Q4_1 are the
same model to the bit: scales keep 7 bits, so that zero * scale is a 16-bit float, too. Q4_0 has no zero points: the
same codes with zero 8. Embedding and head are one matrix, whose type is the second word of a file's name; bf16 and f16
are the folder's values. Weights have variance 1 / inputs, which keeps activations near 1.
"""
import json
import pathlib
import sys
import tempfile

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

GROUP = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble i of a word holds column AWQ_ORDER[i] of eight
SHAPES = {
    "llama-3.2-1b": {"hidden": 2048, "ffn": 8192, "layers": 16, "heads": 32, "kv_heads": 8, "head_dim": 64, "vocab": 128256},
    "tiny": {"hidden": 256, "ffn": 512, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 64, "vocab": 512},
}
THETA, EPSILON, CONTEXT = 500000.0, 1e-5, 8192
FILES = [f"{q}-{head}.gguf" for q in ("q4_0", "q4_1") for head in ("bf16", "f16", "q6_k")]


def linears(s):
    """(name in the folder, name in GGUF, outputs, inputs, heads whose halves GGUF interleaves) of one block."""
    q, kv = s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    return [("self_attn.q_proj", "attn_q", q, s["hidden"], s["heads"]), ("self_attn.k_proj", "attn_k", kv, s["hidden"], s["kv_heads"]),
            ("self_attn.v_proj", "attn_v", kv, s["hidden"], 0), ("self_attn.o_proj", "attn_output", s["hidden"], q, 0),
            ("mlp.gate_proj", "ffn_gate", s["ffn"], s["hidden"], 0), ("mlp.up_proj", "ffn_up", s["ffn"], s["hidden"], 0),
            ("mlp.down_proj", "ffn_down", s["hidden"], s["ffn"], 0)]


def random_linear(seed, rows, columns):
    """codes [rows, columns], zeros and float16 scales [rows, groups]"""
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, 16, (rows, columns), np.uint8)  # standard deviation sqrt((15^2 - 1) / 12) = 4.32
    zeros = rng.integers(7, 10, (rows, columns // GROUP), np.uint8)
    scales = (rng.uniform(0.75, 1.25, zeros.shape) / (4.32 * np.sqrt(columns))).astype(np.float16)
    return codes, zeros, (scales.view(np.uint16) & 0xFFF0).view(np.float16)


def random_embedding(s):
    """float32 values that bfloat16 and float16 hold, too"""
    values = np.random.default_rng(0).standard_normal((s["vocab"], s["hidden"]), np.float32) / np.float32(np.sqrt(s["hidden"]))
    values[np.abs(values) < 2.0**-14] = 2.0**-14  # below, float16 has fewer bits than bfloat16
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


def pack_awq(codes):
    words = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for nibble, column in enumerate(AWQ_ORDER):
        words |= codes[:, column::8].astype(np.uint32) << np.uint32(4 * nibble)
    return words.view(np.int32)


def pack_q4(codes, *fields):
    """Blocks of 32 columns: a float16 of each field (given for groups of 128), then 16 bytes of codes."""
    halves = codes.reshape(codes.shape[0], -1, 2, 16)
    heads = [np.repeat(f, GROUP // 32, 1)[:, :, None].view(np.uint8) for f in fields]
    return np.concatenate([*heads, halves[:, :, 0] | halves[:, :, 1] << 4], 2).reshape(codes.shape[0], -1)


def pack_q6_k(values):
    """Blocks of 256 columns, 16 sub-blocks: low 4 bits, high 2 bits, 8-bit scales of the sub-blocks, a float16 scale."""
    v = values.reshape(-1, 16, 16)
    sub = np.abs(v).max(2) / 31
    d = (sub.max(1) / 127).astype(np.float16)
    scales = np.ceil(sub / d[:, None].astype(np.float32)).clip(1, 127).astype(np.int8)
    step = (d[:, None].astype(np.float32) * scales)[:, :, None]
    codes = (np.round(v / step) + 32).clip(0, 63).astype(np.uint8).reshape(-1, 2, 4, 32)  # [block, half, quarter, lane]
    low = np.concatenate([codes[:, :, 0] & 15 | codes[:, :, 2] << 4, codes[:, :, 1] & 15 | codes[:, :, 3] << 4], 2)
    high = sum(codes[:, :, i] >> 4 << 2 * i for i in range(4))
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), scales.view(np.uint8), d[:, None].view(np.uint8)]
    return np.concatenate(parts, 1).reshape(values.shape[0], -1)


def interleave(rows, heads):
    """GGUF rotates neighbouring channels, the folder those half a head apart."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape) if heads else rows


HEADS = {"bf16": lambda v: (v.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8), "f16": lambda v: v.astype(np.float16),
         "q6_k": pack_q6_k}


def write_gguf(s, path):
    quant, head = path.stem.split("-")
    kind = getattr(gguf.GGMLQuantizationType, quant.upper())
    w = gguf.GGUFWriter(path, "llama")
    for key, value in {"block_count": s["layers"], "context_length": CONTEXT, "embedding_length": s["hidden"], "feed_forward_length": s["ffn"],
                       "head_count": s["heads"], "head_count_kv": s["kv_heads"], "rope_dimension_count": s["head_dim"], "rope_freq_base": THETA,
                       "layer_norm_rms_eps": EPSILON, "vocab_size": s["vocab"], "tokenizer_model": "no_vocab"}.items():
        getattr(w, f"add_{key}")(value)
    ones = np.ones(s["hidden"], np.float32)
    w.add_tensor("token_embd.weight", HEADS[head](random_embedding(s)), raw_dtype=getattr(gguf.GGMLQuantizationType, head.upper()))
    w.add_tensor("output_norm.weight", ones)
    for i in range(s["layers"]):
        for norm in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"blk.{i}.{norm}.weight", ones)
        for j, (_, name, rows, columns, heads) in enumerate(linears(s)):
            codes, zeros, scales = random_linear((1, i, j), rows, columns)
            fields = [scales] if quant == "q4_0" else [scales, -(zeros * scales)]
            w.add_tensor(f"blk.{i}.{name}.weight", interleave(pack_q4(codes, *fields), heads), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def config(s):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": s["hidden"], "intermediate_size": s["ffn"],
            "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"], "head_dim": s["head_dim"],
            "vocab_size": s["vocab"], "rms_norm_eps": EPSILON, "rope_theta": THETA, "rope_scaling": None, "max_position_embeddings": CONTEXT,
            "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 1,
            "torch_dtype": "float16", "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True,
                                                              "version": "gemm", "modules_to_not_convert": None}}


def write_folder(s, path):
    ones = np.ones(s["hidden"], np.float16)
    tensors = {"model.embed_tokens.weight": random_embedding(s).astype(np.float16), "model.norm.weight": ones}
    for i in range(s["layers"]):
        block = f"model.layers.{i}."
        tensors |= {block + "input_layernorm.weight": ones, block + "post_attention_layernorm.weight": ones}
        for j, (name, _, rows, columns, _) in enumerate(linears(s)):
            codes, zeros, scales = random_linear((1, i, j), rows, columns)
            tensors |= {f"{block}{name}.qweight": pack_awq(codes.T), f"{block}{name}.qzeros": pack_awq(zeros.T),
                        f"{block}{name}.scales": np.ascontiguousarray(scales.T)}
    path.mkdir()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config(s), indent=2))


def write(shape, out):
    """Each appears when it is complete."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ["awq", *FILES]:
        if not (out / name).exists():
            print(f"peers: writing {out / name}", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=out) as work:
                (write_folder if name == "awq" else write_gguf)(SHAPES[shape], pathlib.Path(work, name))
                pathlib.Path(work, name).rename(out / name)


def unpack_awq(words):
    columns = [words.view(np.uint32) >> np.uint32(4 * AWQ_ORDER.index(c)) & 15 for c in range(8)]
    return np.stack(columns, 2).reshape(words.shape[0], -1).astype(np.int8)


def folder_weight(tensors, name):
    """float32 [outputs, inputs]"""
    codes, zeros = unpack_awq(tensors[name + ".qweight"]), unpack_awq(tensors[name + ".qzeros"])
    difference = codes - np.repeat(zeros, GROUP, 0)
    return (difference * np.repeat(tensors[name + ".scales"].astype(np.float32), GROUP, 0)).T


def self_test():
    s = SHAPES["tiny"]
    with tempfile.TemporaryDirectory() as work:
        write("tiny", pathlib.Path(work))
        folder = load_file(pathlib.Path(work, "awq", "model.safetensors"))
        embedding = folder["model.embed_tokens.weight"].astype(np.float32)
        for name in FILES:
            tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(pathlib.Path(work, name)).tensors}
            assert len(tensors) == 2 + 9 * s["layers"], (name, sorted(tensors))
            # Q6_K: half a step of 1/31 of a sub-block's largest value, a little more because scales are rounded up to 1/127.
            bound = np.abs(embedding).max() / 31 if "q6_k" in name else 0
            assert np.abs(tensors["token_embd.weight"] - embedding).max() <= bound, name
            for i in range(s["layers"]):
                for hf, ggml, rows, columns, heads in linears(s):
                    weight = interleave(folder_weight(folder, f"model.layers.{i}.{hf}"), heads)
                    difference = np.abs(tensors[f"blk.{i}.{ggml}.weight"] - weight)
                    step = 0 if "q4_1" in name else 1.25 / (4.32 * np.sqrt(columns))  # zeros are 7 to 9, there 8
                    assert weight.shape == (rows, columns) and difference.max() <= step, (name, i, ggml, difference.max())
                    assert 0.9 < weight.std() * np.sqrt(columns) < 1.2, (ggml, weight.std())
    print(f"models.py: {len(FILES)} files agree with the folder")


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    elif len(sys.argv) == 3 and sys.argv[1] in SHAPES:
        write(sys.argv[1], pathlib.Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
