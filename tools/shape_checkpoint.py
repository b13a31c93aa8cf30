#!/usr/bin/env python3
"""A folder with bfloat16 weights at random in a published model's shape, to see what a job takes before the model is there.

usage: shape_checkpoint.py SHAPE OUT [--blocks N] [--filled N]

The file has the whole size (Llama 2 7B: 13.5 GB), but blocks behind the first `--filled` ones are holes in it: zeros that take no
room on most disks. Weights are +- 0.008 to 0.03, gains 0.5 to 2. The tokenizer is a tiny one, and calib.txt a text for it."""
import argparse
import json
import os
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "cli"))
import tiny  # noqa: E402

# dim, MLP, query heads, kv heads, their width, blocks
SHAPES = {"smollm2-135m": (576, 1536, 9, 3, 64, 30), "llama-2-7b": (4096, 11008, 32, 32, 128, 32), "llama-2-70b": (8192, 28672, 64, 8, 128, 80)}
VOCAB = 32000


def tensors(dim, hidden, heads, kv_heads, head, blocks):
    """(name, shape, block): those of no block first"""
    for name, shape in (("model.embed_tokens", (VOCAB, dim)), ("lm_head", (VOCAB, dim)), ("model.norm", (dim,))):
        yield name + ".weight", shape, -1
    q, kv = heads * head, kv_heads * head
    block = {"input_layernorm": (dim,), "self_attn.q_proj": (q, dim), "self_attn.k_proj": (kv, dim), "self_attn.v_proj": (kv, dim),
             "self_attn.o_proj": (dim, q), "post_attention_layernorm": (dim,), "mlp.gate_proj": (hidden, dim), "mlp.up_proj": (hidden, dim),
             "mlp.down_proj": (dim, hidden)}
    for i in range(blocks):
        for name, shape in block.items():
            yield f"model.layers.{i}.{name}.weight", shape, i


def values(n, matrix):
    """n bfloat16: the high byte is a sign and an exponent, the low one is at random."""
    signs = bytes((0x3C, 0xBC)[i % 2] for i in range(256))
    bits = bytearray(os.urandom(2 * n))
    bits[1::2] = bits[1::2].translate(signs) if matrix else b"\x3f" * n
    return bits


def write_weights(path, listed, filled):
    header, at = {}, 0
    for name, shape, _ in listed:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, block in listed:
            begin, end = header[name]["data_offsets"]
            if block >= filled and len(shape) > 1:
                file.seek(end - begin, os.SEEK_CUR)
                continue
            for part in range(begin, end, 8 << 20):
                file.write(values(min(8 << 20, end - part) // 2, len(shape) > 1))
        file.truncate(8 + len(text) + at)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--blocks", type=int, help="so many instead of the shape's")
    parser.add_argument("--filled", type=int, help="blocks that are no holes; default: all")
    args = parser.parse_args()
    dim, hidden, heads, kv_heads, head, blocks = SHAPES[args.shape]
    blocks = args.blocks or blocks
    args.out.mkdir(parents=True, exist_ok=True)
    write_weights(args.out / "model.safetensors", list(tensors(dim, hidden, heads, kv_heads, head, blocks)),
                  blocks if args.filled is None else args.filled)
    config = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": dim, "intermediate_size": hidden,
              "num_hidden_layers": blocks, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": VOCAB, "max_position_embeddings": 4096,
              "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False}
    (args.out / "config.json").write_text(json.dumps(config, indent=1))
    (args.out / "tokenizer.json").write_text(json.dumps(tiny.tokenizer()))
    lines = (f"Line {i}: the quick brown fox jumps over {i * i} lazy dogs, {i * 7 % 13} times.\n" for i in range(4000))
    (args.out / "calib.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
