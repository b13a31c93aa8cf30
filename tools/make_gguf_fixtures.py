#!/usr/bin/env python3
"""Makes the GGUF files that the tests read, with the Python package `gguf` (0.19.0) as writer and as reference.

    tools/make_gguf_fixtures.py

tests/io/fixtures/ggml_blocks.gguf   for every storage type T that the library reads: a tensor "T" of random blocks and
                                     "T.expected", the floats that gguf.dequantize makes of it
tests/io/fixtures/ggml_rounded.gguf  a matrix "F32", and the blocks "T" that gguf.quantize makes of it
tests/fuzz/corpus/gguf/*.gguf        one tiny model a family: seeds of the fuzz target, and inputs of the format's tests.
                                     Element (r, c) of a matrix in Hugging Face's order is 32 * block + r + c / 16, of a
                                     norm or bias 32 * block + r / 16, so that the tests need no expected values
"""
import pathlib

import gguf
import numpy as np

TESTS = pathlib.Path(__file__).parent.parent / "tests"
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K"]
DIM, FFN, HEADS, KV_HEADS, HEAD_DIM, BLOCKS = 16, 24, 4, 2, 4, 2


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_blocks(path):
    rng = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "none")
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        data = rng.integers(0, 256, (2, 256 // length * size), dtype=np.uint8)
        with np.errstate(all="ignore"):  # random scales may be infinite or NaN, and are kept
            expected = gguf.dequantize(data, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        writer.add_tensor(name + ".expected", np.ascontiguousarray(expected, dtype=np.float32))
    finish(writer)


def make_rounded(path):
    w = np.random.default_rng(4).standard_normal((6, 96)).astype(np.float32) * np.float32([[1e-4], [1], [30], [1e-7], [0.02], [1e-9]])
    w[1, :32] = 0
    w[2, 3], w[2, 9] = 100, -100  # the first of two extremes counts
    writer = gguf.GGUFWriter(path, "none")
    writer.add_tensor("F32", w)
    for name in ["Q4_0", "Q4_1", "Q8_0"]:
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name, gguf.quantize(w, kind), raw_dtype=kind)
    finish(writer)


def permuted(w, heads):
    """Rows as Llama files have them: the two halves of a head interleaved."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def values(block, *shape):
    grid = [n / 16 if i == len(shape) - 1 else n for i, n in enumerate(np.indices(shape))]
    return (32 * block + sum(grid)).astype(np.float32)


def add_block(writer, arch, i):
    gemma, llama, qwen3 = arch == "gemma3", arch == "llama", arch == "qwen3"
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    norms = {"attn_norm": DIM, "ffn_norm": DIM}
    if gemma:
        norms |= {"post_attention_norm": DIM, "post_ffw_norm": DIM}
    if gemma or qwen3:
        norms |= {"attn_q_norm": HEAD_DIM, "attn_k_norm": HEAD_DIM}
    for name, n in norms.items():
        writer.add_tensor(f"blk.{i}.{name}.weight", values(i, n) + np.float32(gemma))
    shapes = {"attn_q": (q, DIM), "attn_k": (kv, DIM), "attn_v": (kv, DIM), "attn_output": (DIM, q),
              "ffn_gate": (FFN, DIM), "ffn_up": (FFN, DIM), "ffn_down": (DIM, FFN)}
    for name, shape in shapes.items():
        w, b = values(i, *shape), values(i, shape[0])
        if llama and name in ("attn_q", "attn_k"):
            w, b = (permuted(x, HEADS if name == "attn_q" else KV_HEADS) for x in (w, b))
        writer.add_tensor(f"blk.{i}.{name}.weight", w.astype(np.float16))
        if (arch == "qwen2" and name in ("attn_q", "attn_k", "attn_v")) or (llama and name.startswith("attn")):
            writer.add_tensor(f"blk.{i}.{name}.bias", b)


def add_byte_level_vocabulary(writer, pre):
    tokens = ["<|endoftext|>", "<|im_end|>", "<think>", "a", "b", "c", "\u0120", "ab", "\u0120ab", "abc", "[PAD10]"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 4, 1, 1, 1, 1, 1, 1, 1, 5])
    writer.add_token_merges(["a b", "\u0120 ab", "ab c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    return len(tokens)


def add_sentencepiece_vocabulary(writer):
    tokens = ["<unk>", "<s>", "</s>", "<0x41>", "  ", "\u2581", "a", "b", "\u2581a", "ab", "\u2581ab"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0, 0.0, 0.0, 0.0, -1000.0, -5.0, -6.0, -7.0, -2.0, -1.0, -3.0])
    writer.add_token_types([2, 3, 3, 6, 4, 1, 1, 1, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(9)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    return len(tokens)


def make_model(path, arch, pre):
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(128)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)
    if arch == "gemma3":
        writer.add_sliding_window(8)
    rows = add_byte_level_vocabulary(writer, pre) if pre else add_sentencepiece_vocabulary(writer)
    writer.add_tensor("token_embd.weight", values(0, rows, DIM))
    writer.add_tensor("output_norm.weight", values(0, DIM) + np.float32(arch == "gemma3"))
    if arch == "llama":
        writer.add_tensor("output.weight", values(1, rows, DIM))
    for i in range(BLOCKS):
        add_block(writer, arch, i)
    finish(writer)


def main():
    models = TESTS / "fuzz" / "corpus" / "gguf"
    for folder in (TESTS / "io" / "fixtures", models):
        folder.mkdir(parents=True, exist_ok=True)
    make_blocks(TESTS / "io" / "fixtures" / "ggml_blocks.gguf")
    make_rounded(TESTS / "io" / "fixtures" / "ggml_rounded.gguf")
    for arch, pre in {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2", "gemma3": None}.items():
        make_model(models / f"{arch}.gguf", arch, pre)


if __name__ == "__main__":
    main()
