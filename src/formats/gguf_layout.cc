#include "formats/gguf_layout.h"

#include <cstring>

#include "base/check.h"
#include "formats/params.h"
#include "model/arch/gguf.h"

namespace awq {
namespace {

// In block N "blk.N.<name>.weight". The families agree on most names; which of them a model has is its spec's business.
constexpr TensorName kPlaces[] = {{Role::embed, "token_embd"},
                                  {Role::positions, "position_embd"},
                                  {Role::embed_norm, "token_embd_norm"},
                                  {Role::final_norm, "output_norm"},
                                  {Role::head, "output"},
                                  {Role::attn_norm, "attn_norm"},
                                  {Role::q_a, "attn_q_a"},
                                  {Role::q_a_norm, "attn_q_a_norm"},
                                  {Role::kv_a, "attn_kv_a_mqa"},
                                  {Role::k_rope, "attn_kv_a_mqa"},
                                  {Role::kv_a_norm, "attn_kv_a_norm"},
                                  {Role::q, "attn_q"},
                                  {Role::k, "attn_k"},
                                  {Role::v, "attn_v"},
                                  {Role::o, "attn_output"},
                                  {Role::q_norm, "attn_q_norm"},
                                  {Role::k_norm, "attn_k_norm"},
                                  {Role::sinks, "attn_sinks"},
                                  {Role::attn_post_norm, "post_attention_norm"},
                                  {Role::mlp_norm, "ffn_norm"},
                                  {Role::gate, "ffn_gate"},
                                  {Role::up, "ffn_up"},
                                  {Role::down, "ffn_down"},
                                  {Role::router, "ffn_gate_inp"},
                                  {Role::shared_router, "ffn_gate_inp_shexp"},
                                  {Role::mlp_post_norm, "post_ffw_norm"}};

/// Row to(h, i, j) of the result is row from(h, i, j): half j of pair i of head h.
template <class To, class From>
Tensor moved(const Tensor& t, int64_t head_dim, To to, From from) {
  Tensor out = Tensor::empty(t.shape(), t.dtype());
  const size_t row = t.bytes() / size_t(t.shape()[0]);
  for (int64_t h = 0; h < t.shape()[0]; h += head_dim)
    for (int64_t i = 0; i < head_dim / 2; ++i)
      for (int64_t j = 0; j < 2; ++j)
        std::memcpy(out.data() + size_t(h + to(i, j)) * row, t.data() + size_t(h + from(i, j)) * row, row);
  return out;
}

/// Keys and values of latent attention, and what makes the latent and the rotated part of keys.
Source latent_source(Source s, const AttentionSpec& a, int block, Param p, bool split) {
  if (p.role == Role::q && a.latent->q_rank) s.name += "_b";
  if (p.role == Role::kv_a || p.role == Role::k_rope) s.rows = latent_rows(a, p.role);
  if (p.role != Role::k && p.role != Role::v) return s;
  if (!split) return {fmt::format("blk.{}.attn_kv_b", block), latent_rows(a, p.role)};
  s.name += "_b";
  s.stack = a.heads;
  s.transposed = p.role == Role::k;
  return s;
}

Source block_source(Source s, const BlockSpec& b, int block, Param p, const GgufLayout& layout) {
  if (b.is_routed(p)) return stacked(s, b, p, {});
  if (p.role == Role::router && b.experts->correction) s.bias = fmt::format("blk.{}.exp_probs_b.bias", block);
  if (b.attention.latent) return latent_source(s, b.attention, block, p, layout.split_keys);
  if (layout.fused_qkv && is_qkv(p.role))
    return {fmt::format("blk.{}.attn_qkv", block), rows_in_order(b.attention, p.role)};
  if (layout.fused_gate && b.mlp.gated && (p.role == Role::gate || p.role == Role::up))
    return {fmt::format("blk.{}.ffn_up", block), rows_in_order(b.mlp, p.role)};
  return s;
}

}  // namespace

std::string gguf_name(const GgufFamily& family, const ModelSpec& spec, int block, Param p) {
  const bool routed = block >= 0 && spec.blocks.at(size_t(block)).is_routed(p);
  const char* of = routed ? "_exps" : p.expert == kSharedExpert ? "_shexp" : "";
  for (const std::span<const TensorName> table : {family.names, std::span<const TensorName>(kPlaces)})
    for (const TensorName& place : table)
      if (place.role == p.role)
        return block < 0 ? std::string(place.name) : fmt::format("blk.{}.{}{}", block, place.name, of);
  fail("gguf", "{} has no tensor in a GGUF file", name_of(p.role));
}

GgufLayout gguf_layout(const GgufFamily& family) {
  return {.fused_qkv = family.fused_qkv, .fused_gate = family.fused_gate};
}

GgufLayout gguf_layout(const Gguf& file) {
  const auto has = [&](const char* name) { return file.find(fmt::format("blk.0.{}.weight", name)) != nullptr; };
  return {.split_keys = has("attn_k_b"), .fused_qkv = has("attn_qkv"), .fused_gate = has("ffn_up") && !has("ffn_gate")};
}

StoredTensors gguf_tensors(const GgufFamily& family, const ModelSpec& spec, const GgufLayout& layout) {
  return {spec, [&](int block, Param p) {
            const Source s = gguf_name(family, spec, block, p);
            return block < 0 ? s : block_source(s, spec.blocks[size_t(block)], block, p, layout);
          }};
}

Shape gguf_shape(const StoredTensor& t) { return t.shape.rank() == 2 && t.shape[0] == 1 ? Shape{t.shape[1]} : t.shape; }

Shape gguf_bias_shape(const StoredTensor& t) { return t.stack ? Shape{t.stack, t.rows / t.stack} : Shape{t.rows}; }

float gguf_gain_offset(const ModelSpec& spec, int block, Param p) {
  if (block < 0 || p.role == Role::sinks) return block < 0 ? spec.final_norm.gain_offset : 0;
  return spec.blocks[size_t(block)].norm_of(p.role).gain_offset;
}

Tensor halves_from_pairs(const Tensor& t, int64_t head_dim) {
  return moved(
      t, head_dim, [=](int64_t i, int64_t j) { return j * head_dim / 2 + i; },
      [](int64_t i, int64_t j) { return 2 * i + j; });
}

Tensor pairs_from_halves(const Tensor& t, int64_t head_dim) {
  return moved(
      t, head_dim, [](int64_t i, int64_t j) { return 2 * i + j; },
      [=](int64_t i, int64_t j) { return j * head_dim / 2 + i; });
}

bool has_pairs(const GgufFamily& family, Role role) { return family.pairs && (role == Role::q || role == Role::k); }

}  // namespace awq
