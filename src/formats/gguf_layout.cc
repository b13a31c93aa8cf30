#include "formats/gguf_layout.h"

#include <cstring>

#include "base/check.h"
#include "formats/params.h"

namespace awq {
namespace {

struct Place {
  Role role;
  std::string_view name;  // in block N: "blk.N.<name>.weight"
};

// The families agree on the names; which of them a model has is its spec's business.
constexpr Place kPlaces[] = {{Role::embed, "token_embd"},
                             {Role::final_norm, "output_norm"},
                             {Role::head, "output"},
                             {Role::attn_norm, "attn_norm"},
                             {Role::q, "attn_q"},
                             {Role::k, "attn_k"},
                             {Role::v, "attn_v"},
                             {Role::o, "attn_output"},
                             {Role::q_norm, "attn_q_norm"},
                             {Role::k_norm, "attn_k_norm"},
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

}  // namespace

bool is_stacked(const ModelSpec& spec, int block, Param p) {
  return block >= 0 && spec.blocks.at(size_t(block)).is_routed(p);
}

std::string gguf_name(const ModelSpec& spec, int block, Param p) {
  const char* of = is_stacked(spec, block, p) ? "_exps" : p.expert == kSharedExpert ? "_shexp" : "";
  for (const Place& place : kPlaces)
    if (place.role == p.role)
      return block < 0 ? std::string(place.name) : fmt::format("blk.{}.{}{}", block, place.name, of);
  fail("gguf", "{} has no tensor in a GGUF file", name_of(p.role));
}

Shape gguf_shape(const ModelSpec& spec, int block, Param p) {
  const Shape one = shape_of(spec, block, p);
  if (is_stacked(spec, block, p)) return {spec.blocks[size_t(block)].experts->count, one[0], one[1]};
  return one.rank() == 2 && one[0] == 1 ? Shape{one[1]} : one;
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

bool has_pairs(std::string_view gguf_architecture, Role role) {
  const bool pairs = gguf_architecture == "llama" || gguf_architecture.starts_with("granite");
  return pairs && (role == Role::q || role == Role::k);
}

}  // namespace awq
