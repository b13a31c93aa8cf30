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
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K", "MXFP4"]
DIM, FFN, HEADS, KV_HEADS, HEAD_DIM, BLOCKS = 16, 24, 4, 2, 4, 2
EXPERTS, RANK, NOPE, ROPE, VALUE = 4, 8, 4, 2, 3


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


def add(writer, i, name, *shape):
    writer.add_tensor(f"blk.{i}.{name}", values(i, *shape).astype(np.float16 if len(shape) > 1 else np.float32))


def add_stack(writer, i, name, *shape):
    """Every expert's part is the formula by itself."""
    writer.add_tensor(f"blk.{i}.{name}", np.stack([values(i, *shape)] * EXPERTS).astype(np.float16 if len(shape) > 1 else np.float32))


def add_experts(writer, i, bias):
    writer.add_tensor(f"blk.{i}.ffn_gate_inp.weight", values(i, EXPERTS, DIM))
    for name, shape in {"gate": (FFN, DIM), "up": (FFN, DIM), "down": (DIM, FFN)}.items():
        add_stack(writer, i, f"ffn_{name}_exps.weight", *shape)
        if bias:
            add_stack(writer, i, f"ffn_{name}_exps.bias", shape[0])
        else:
            add(writer, i, f"ffn_{name}_shexp.weight", *shape)
    add(writer, i, "ffn_gate_inp.bias" if bias else "exp_probs_b.bias", EXPERTS)


def add_dense(writer, i):
    for name, shape in {"gate": (FFN, DIM), "up": (FFN, DIM), "down": (DIM, FFN)}.items():
        add(writer, i, f"ffn_{name}.weight", *shape)


def add_latent_attention(writer, i):
    """As newer files have it: keys and values apart, each head's keys turned round; of the first block's kind in both blocks."""
    add(writer, i, "attn_q_a.weight", RANK, DIM)
    add(writer, i, "attn_q_a_norm.weight", RANK)
    add(writer, i, "attn_q_b.weight", HEADS * (NOPE + ROPE), RANK)
    writer.add_tensor(f"blk.{i}.attn_kv_a_mqa.weight", np.concatenate([values(i, RANK, DIM), values(i, ROPE, DIM)]).astype(np.float16))
    add(writer, i, "attn_kv_a_norm.weight", RANK)
    keys = values(i, HEADS * NOPE, RANK).reshape(HEADS, NOPE, RANK)
    writer.add_tensor(f"blk.{i}.attn_k_b.weight", np.ascontiguousarray(keys.swapaxes(1, 2)).astype(np.float16))
    writer.add_tensor(f"blk.{i}.attn_v_b.weight", values(i, HEADS * VALUE, RANK).reshape(HEADS, VALUE, RANK).astype(np.float16))
    add(writer, i, "attn_output.weight", DIM, HEADS * VALUE)


def add_attention(writer, i, bias):
    for name, shape in {"attn_q": (HEADS * HEAD_DIM, DIM), "attn_k": (KV_HEADS * HEAD_DIM, DIM), "attn_v": (KV_HEADS * HEAD_DIM, DIM),
                        "attn_output": (DIM, HEADS * HEAD_DIM)}.items():
        add(writer, i, f"{name}.weight", *shape)
        if bias == "all" or (bias and name != "attn_output"):
            add(writer, i, f"{name}.bias", shape[0])


def add_sizes(writer, latent):
    writer.add_context_length(128)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1 if latent else KV_HEADS)
    writer.add_key_length(RANK + ROPE if latent else HEAD_DIM)
    writer.add_value_length(RANK if latent else HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(2)
    writer.add_expert_feed_forward_length(FFN)


def add_routing(writer):
    writer.add_expert_shared_count(1)
    writer.add_leading_dense_block_count(1)
    writer.add_expert_weights_scale(2.5)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def make_mixture(path, arch):
    writer = gguf.GGUFWriter(path, arch)
    latent, oss = arch == "deepseek2", arch == "gpt-oss"
    further = 1 if arch == "glm4moe" else 0  # a block for predicting further tokens
    writer.add_block_count(BLOCKS + further)
    add_sizes(writer, latent)
    if not oss:
        add_routing(writer)
        writer.add_rope_dimension_count(ROPE)
    if latent:
        writer.add_q_lora_rank(RANK)
        writer.add_kv_lora_rank(RANK)
        writer.add_key_length_mla(NOPE + ROPE)
        writer.add_value_length_mla(VALUE)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)
        writer.add_rope_scaling_yarn_log_mul(0.1)
        writer.add_expert_group_count(2)
        writer.add_expert_group_used_count(1)
    if oss:
        writer.add_sliding_window(8)
    if further:
        writer.add_nextn_predict_layers(further)
    rows = add_byte_level_vocabulary(writer, "qwen2")
    writer.add_tensor("token_embd.weight", values(0, rows, DIM))
    writer.add_tensor("output_norm.weight", values(0, DIM))
    for i in range(BLOCKS):
        add(writer, i, "attn_norm.weight", DIM)
        add(writer, i, "ffn_norm.weight" if latent else "post_attention_norm.weight", DIM)
        add_latent_attention(writer, i) if latent else add_attention(writer, i, "all" if oss else "qkv")
        if oss:
            add(writer, i, "attn_sinks.weight", HEADS)
        add_experts(writer, i, oss) if i or oss else add_dense(writer, i)
    if further:
        add(writer, BLOCKS, "nextn.eh_proj.weight", DIM, 2 * DIM)
    finish(writer)


def main():
    models = TESTS / "fuzz" / "corpus" / "gguf"
    for folder in (TESTS / "io" / "fixtures", models):
        folder.mkdir(parents=True, exist_ok=True)
    make_blocks(TESTS / "io" / "fixtures" / "ggml_blocks.gguf")
    make_rounded(TESTS / "io" / "fixtures" / "ggml_rounded.gguf")
    for arch, pre in {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2", "gemma3": None}.items():
        make_model(models / f"{arch}.gguf", arch, pre)
    for arch in ("deepseek2", "glm4moe", "gpt-oss"):
        make_mixture(models / f"{arch}.gguf", arch)


if __name__ == "__main__":
    main()
