#pragma once
// What a model is: plain values that describe every supported architecture. Nothing here touches weights.
#include <compare>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

/// A parameter by what it does. Norms are named by their place: before and after attention, before and after the MLP.
enum class Role : uint8_t {
  embed,
  attn_norm,
  q,
  k,
  v,
  o,
  q_norm,
  k_norm,
  attn_post_norm,
  mlp_norm,
  gate,
  up,
  down,
  mlp_post_norm,
  final_norm,
  head
};
std::string_view name_of(Role role);  // "q", "attn_norm"
bool is_norm(Role role);

/// A role plus, in mixture-of-experts blocks, which expert.
struct Param {
  Role role;
  int expert = 0;
  auto operator<=>(const Param&) const = default;
};

/// A place where activations can be observed: the input of a linear layer, named by the first layer that reads it.
/// q stands for the input of q, k and v; gate for that of gate and up.
using Site = Param;

// A block is norm, mixer, residual, norm, MLP, residual. Each axis on which families differ is a field of the struct
// that owns it: the kind of norm in NormSpec, its placement in BlockSpec, everything about heads, masks and query
// scaling in AttentionSpec, positions in RopeSpec, the MLP in MlpSpec; experts will be an optional struct beside `mlp`
// and another mixer one beside `attention`. A value that `block_forward` does not implement is refused by `parse`.

enum class Activation : uint8_t { silu, gelu_tanh };

/// y = x / rms(x) * (gain + gain_offset)
struct NormSpec {
  float eps = 1e-5f;
  float gain_offset = 0.f;  // 1 where the checkpoint stores gain - 1 (Gemma)
  bool operator==(const NormSpec&) const = default;
};

/// Where norms stand. `both` is the sandwich: a norm before and after the attention and the MLP (Gemma 2 and 3).
enum class NormPlacement : uint8_t { before, both };

/// How angles are changed for contexts longer than the model was first trained on. `dynamic` changes none up to
/// max_position_embeddings; beyond, angles would follow the length and not fit the keys in a cache, so that is refused.
enum class RopeScaling : uint8_t { none, linear, dynamic, llama3, yarn };
struct RopeSpec {
  float theta = 10000.f;
  int dims = 0;  // rotated channels of a head, <= head_dim; the two halves of them are paired
  RopeScaling scaling = RopeScaling::none;
  float factor = 1.f;
  float low_freq_factor = 1.f, high_freq_factor = 4.f;  // llama3
  int original_context = 8192;                          // llama3, yarn
  float beta_fast = 32.f, beta_slow = 1.f;              // yarn
  bool truncate = true;                                 // yarn
  float attention_factor = 1.f;                         // yarn: multiplies rotated queries and rotated keys
  bool operator==(const RopeSpec&) const = default;
  /// Angle per position of pair i of dims / 2.
  std::vector<float> frequencies() const;
  /// Positions that the rule reaches for a model whose config.json gives `max_positions`.
  int context(int max_positions) const;
  std::string text() const;  // "yarn rope scaling by 4 of 32768 positions"
};

struct AttentionSpec {
  int heads = 0, kv_heads = 0, head_dim = 0;
  float query_scale = 0.f;    // multiplies q.k, beside what rope brings
  std::optional<int> window;  // sees itself and the window - 1 positions before
  bool head_norm = false;     // q and k normalised per head before rope (Qwen3, Gemma 3)
  bool qkv_bias = false, o_bias = false;
  RopeSpec rope;
  float score_scale() const { return query_scale * rope.attention_factor * rope.attention_factor; }
  int q_rows() const { return heads * head_dim; }
  int kv_rows() const { return kv_heads * head_dim; }
  bool operator==(const AttentionSpec&) const = default;
};

/// down(act(gate x) * up x)
struct MlpSpec {
  int hidden = 0;
  Activation act = Activation::silu;
  bool bias = false;
  bool operator==(const MlpSpec&) const = default;
};

/// One decoder block. Every supported architecture is a value of this struct; adding a field means teaching
/// `block_forward` and `scale_groups` about it, both in block.cc.
struct BlockSpec {
  int dim = 0;
  NormSpec norm;
  NormPlacement placement = NormPlacement::before;
  AttentionSpec attention;
  MlpSpec mlp;
  bool operator==(const BlockSpec&) const = default;

  /// Every parameter the block has, in the order they are written to files.
  std::vector<Param> params() const;
  bool has_bias(Param p) const;
  /// Rows and columns of a matrix; {channels, 0} for a norm.
  std::pair<int64_t, int64_t> shape(Param p) const;
};

struct ModelSpec {
  std::string arch;  // "Qwen2ForCausalLM"
  int dim = 0, vocab = 0;
  int max_context = 0;       // positions that it was made for: beyond them it must not be run
  std::string context_rule;  // what makes them so many, beside max_position_embeddings
  float embed_scale = 1.f;
  bool tied_embeddings = false;
  NormSpec final_norm;
  std::vector<BlockSpec> blocks;
};

/// Layers that share an input. Its channels are divided by s and the columns of `consumers` multiplied by it; the
/// division is folded into `producer`. The float model is unchanged; only the rounding error moves.
struct ScaleGroup {
  Param producer;
  std::vector<Param> consumers;
  int tied_heads = 1;  // query heads that must share scales: heads / kv_heads where v feeds o
  int head_dim = 0;    // with tied_heads > 1
};
/// Derived from the topology, next to block_forward. A norm is a producer only if every reader of its output is a
/// consumer.
std::vector<ScaleGroup> scale_groups(const BlockSpec& spec);

/// What the library must be told about one family of checkpoints.
struct Architecture {
  std::string_view hf_name;                          // "Qwen2ForCausalLM"
  std::string_view gguf_name;                        // "qwen2", as general.architecture spells it
  ModelSpec (*parse)(const nlohmann::json& config);  // throws Error on a value it does not know
  /// Tensor name without ".weight" or ".bias": "model.layers.3.self_attn.q_proj". block is -1 for embed, final_norm,
  /// head.
  std::string (*source)(int block, Param param);
};
std::span<const Architecture> architectures();
const Architecture& find_architecture(std::string_view hf_name);  // throws Error, listing what exists

}  // namespace awq
