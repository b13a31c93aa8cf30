#pragma once
// What a model is: plain values that describe every supported architecture. Nothing here touches weights.
#include <algorithm>
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
/// Of latent attention (LatentSpec) q_a and kv_a come before q, k and v, and k_rope is the part of keys with positions.
/// o_gate weighs the channels that o reads; beta to o_norm are of a delta net (DeltaSpec). Names with "own" are of what
/// a token brings for one block alone (OwnInputSpec), names with "experts" or "dense" of mixtures beside an MLP
/// (ExpertsSpec::apart).
enum class Role : uint8_t {
  embed,
  positions,
  embed_norm,
  own_embed,
  own_projection,
  own_norm,
  attn_norm,
  q_a,
  q_a_norm,
  kv_a,
  kv_a_norm,
  k_rope,
  q,
  k,
  v,
  o_gate,
  beta,
  decay,
  conv,
  decay_bias,
  decay_rate,
  o_norm,
  o,
  q_norm,
  k_norm,
  sinks,
  attn_post_norm,
  mlp_norm,
  experts_norm,
  router_norm,
  gate,
  up,
  down,
  router,
  shared_router,
  experts_weight,
  dense_post_norm,
  experts_post_norm,
  mlp_post_norm,
  own_gate,
  own_out,
  own_post_norm,
  out_scale,
  final_norm,
  head
};
std::string_view name_of(Role role);  // "q", "attn_norm"
/// Whether it is a vector that is never rounded: a norm's gains, sinks (AttentionSpec), what a delta net has of them,
/// or factors of experts or of a block.
bool is_norm(Role role);
/// Whether it is a matrix that stays in floats, of few rows that decide much: it chooses or weighs experts, or says
/// what a delta net's state keeps; or one that all blocks read of (own_projection).
bool stays_float(Role role);
/// Whether it belongs to the attention or what stands in its place, norms included; of a block's parameters.
bool in_attention(Role role);

constexpr int kSharedExpert = -1;
/// A role plus, in mixture-of-experts blocks, which expert. A dense MLP is expert 0.
struct Param {
  Role role;
  int expert = 0;
  auto operator<=>(const Param&) const = default;
};

/// A place where activations can be observed: the input of a linear layer, named by the first layer that reads it.
/// q stands for the input of q, k and v; gate for that of gate and up, or up where there is no gate. Among experts,
/// gate of expert 0 stands for the input of the whole MLP, and each has its own down.
using Site = Param;

// A block is norm, mixer, residual, norm, MLP, residual. Each axis on which families differ is a field of the struct
// that owns it: the kind of norm in NormSpec, its placement in BlockSpec, everything about heads, masks and query
// scaling in AttentionSpec, positions in RopeSpec, the MLP in MlpSpec, how many of it there are and which of them a
// token passes in ExpertsSpec; another mixer is an optional struct beside `attention`: DeltaSpec. A value that
// `block_forward` does not implement is refused by `parse`.

/// gelu_tanh is the approximation by tanh, relu2 the square of relu; clamped_swish is of MlpSpec::limit; no MLP has
/// sigmoid, gates of attention do.
enum class Activation : uint8_t { silu, gelu_tanh, gelu, relu, relu2, clamped_swish, sigmoid };

/// y = x / sqrt(mean(x^2) + eps) * (gain + gain_offset) + bias; `layer` subtracts the mean of x before all.
enum class NormKind : uint8_t { rms, layer };
struct NormSpec {
  NormKind kind = NormKind::rms;
  float eps = 1e-5f;
  float gain_offset = 0.f;  // 1 where the checkpoint stores gain - 1 (Gemma)
  bool gain = true, bias = false;
  bool operator==(const NormSpec&) const = default;
};

/// Where norms stand. `both` is the sandwich: a norm before and after the attention and the MLP (Gemma 2 and 3);
/// `after` leaves their inputs as they are (OLMo 2).
enum class NormPlacement : uint8_t { before, both, after };
/// Whether attention and MLP read the same x, and both are added to it; from a norm each, or from one.
enum class Parallel : uint8_t { no, two_norms, one_norm };
/// What of q and of k is normalised before rope: heads, by the same gains or each by its own, or the whole row.
enum class HeadNorm : uint8_t { none, head, each_head, row };

/// What attention mixes: v x, the same with each head normalised without gains, or, without a matrix of its own, the
/// heads of k x, normalised so, as they are before their own norm and rotation.
enum class Values : uint8_t { plain, normalised, normalised_keys };

/// How angles are changed for contexts longer than the model was first trained on. Those of `dynamic` and `longrope`
/// depend on how long the sequence is.
enum class RopeScaling : uint8_t { none, linear, dynamic, llama3, yarn, longrope };
struct RopeSpec {
  float theta = 10000.f;
  int dims = 0;              // rotated channels of a head, <= head_dim; 0: positions are not rotated
  bool interleaved = false;  // whether neighbours are paired, or the two halves of them
  int turned = 0;            // pairs beyond so many stay as they are; 0: all turn
  RopeScaling scaling = RopeScaling::none;
  float factor = 1.f;
  float low_freq_factor = 1.f, high_freq_factor = 4.f;  // llama3
  int original_context = 8192;                          // all but linear
  float beta_fast = 32.f, beta_slow = 1.f;              // yarn
  bool truncate = true;                                 // yarn
  float attention_factor = 1.f;                         // yarn, longrope: multiplies rotated queries and rotated keys
  std::vector<double> short_factors{},
      long_factors{};  // longrope [dims / 2]: divide angles, within original_context or not
  bool operator==(const RopeSpec&) const = default;
  /// Angle per position of pair i of dims / 2, in a sequence of `length` positions.
  std::vector<float> frequencies(int length = 0) const;
  /// Sequences of lengths with the same regime have the same angles.
  int regime(int length) const;
  /// Positions that the rule reaches for a model whose config.json gives `max_positions`.
  int context(int max_positions) const;
  std::string text() const;  // "yarn rope scaling by 4 of 32768 positions"
};

/// Multi-head latent attention (DeepSeek-AI 2024, arXiv 2405.04434): k and v read the normalised kv_a x, which has few
/// channels, and q the normalised q_a x where q_rank is not 0. k has no more than the first part of a head: the last
/// rope.dims channels are rotated, in queries a head's own, in keys k_rope x, which all heads share.
struct LatentSpec {
  int q_rank = 0, kv_rank = 0;
  NormSpec norm{};
  bool operator==(const LatentSpec&) const = default;
};

struct AttentionSpec {
  int heads = 0, kv_heads = 0, head_dim = 0;
  int value_dim = 0;          // of a head of v; 0: head_dim
  float query_scale = 0.f;    // multiplies q.k, beside what rope brings
  std::optional<int> window;  // sees itself and the window - 1 positions before
  float soft_cap = 0.f;       // scores become cap * tanh(score / cap); 0: they stay
  float clip = 0.f;           // q, k and v are kept within +-clip; 0: they stay
  float alibi = 0.f;          // times alibi_slope(head) * (key's - query's position) is added to scores
  HeadNorm head_norm = HeadNorm::none;
  Values values = Values::plain;
  bool qkv_bias = false, o_bias = false;
  bool sinks = false;  // a score of each head that takes its share of the softmax and has no value
  bool gated = false;  // what o reads is multiplied by sigmoid(o_gate x)
  RopeSpec rope;
  std::optional<LatentSpec> latent{};
  float score_scale() const { return query_scale * rope.attention_factor * rope.attention_factor; }
  int q_rows() const { return heads * head_dim; }
  int kv_rows() const { return kv_heads * head_dim; }  // of keys
  int v_dim() const { return value_dim ? value_dim : head_dim; }
  int v_rows() const { return kv_heads * v_dim(); }
  int out_rows() const { return heads * v_dim(); }  // what o reads
  int unrotated() const { return head_dim - rope.dims; }
  /// ALiBi's slopes (Press et al. 2021, arXiv 2108.12409) times `alibi`, [heads]; empty without.
  std::vector<float> alibi_slopes() const;
  bool operator==(const AttentionSpec&) const = default;
};

/// A gated delta net (Yang et al. 2024, arXiv 2412.06464). q, k and v of x pass a causal convolution of `kernel`
/// positions, each channel by itself, and silu; q and k of each head are then divided by their length. A value head,
/// several of which may share one of q and k, has no keys and values of earlier positions but a state S [key_dim,
/// value_dim]: S *= exp(-exp(decay_rate) softplus(decay x + decay_bias)), S += k (sigmoid(beta x) (v - S^T k))^T, and
/// y = S^T q / sqrt(key_dim). o reads o_norm(y), whose gains all heads share, times silu(o_gate x).
struct DeltaSpec {
  int key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0, kernel = 0;
  NormSpec norm{};
  int key_rows() const { return key_heads * key_dim; }
  int value_rows() const { return value_heads * value_dim; }
  int channels() const { return 2 * key_rows() + value_rows(); }       // of the convolution: q's, k's and v's
  int64_t state() const { return int64_t(value_rows()) * key_dim; }    // values of all heads
  int64_t past() const { return int64_t(channels()) * (kernel - 1); }  // that the convolution reads
  bool operator==(const DeltaSpec&) const = default;
};

/// down(act(gate x) * up x), or down(act(up x)) where it is not gated. With clamped_swish (gpt-oss) it is
/// down(g * sigmoid(alpha g) * (u + 1)), where g is gate x but at most limit, and u is up x within +-limit.
struct MlpSpec {
  int hidden = 0;
  Activation act = Activation::silu;
  bool gated = true;
  bool bias = false;
  float alpha = 1.f, limit = 0.f;
  bool operator==(const MlpSpec&) const = default;
};

/// What the router's output becomes: softmax over all experts, or a sigmoid of each.
enum class Scores : uint8_t { softmax, sigmoid };

/// A mixture of MLPs of one shape. A token passes the `active` experts with the largest of its scores, whose outputs
/// are weighted by these, and the shared one, if there is one.
struct ExpertsSpec {
  int count = 0, active = 0;
  Scores scores = Scores::softmax;
  bool bias = false;        // of the router, that is added to its output
  bool correction = false;  // of the router, that is added to scores where experts are chosen, not to their weights
  int groups = 1, active_groups = 1;  // only experts of the best groups may be chosen
  int group_best = 1;                 // a group is as good as the sum of so many of its best scores
  bool normalized = true;             // the weights of a token's experts are divided by their sum
  float scale = 1.f;                  // multiplies the weights, after that
  int shared_hidden = 0;              // of the MLP that every token passes; 0: there is none
  bool shared_gate = false;           // its output is multiplied by sigmoid(shared_router x)
  /// The shared one is an MLP beside the mixture: each has a norm before (mlp_norm, experts_norm) and after it
  /// (dense_post_norm, experts_post_norm), and the router one of its own; then both are added.
  bool apart = false;
  float router_scale = 1.f;  // multiplies the router's output
  bool weighted = false;     // each expert's weights are multiplied by its experts_weight, after all
  bool operator==(const ExpertsSpec&) const = default;
};

/// Keys and values that more than one block reads. Where blocks run one by one, they are passed on (stream.h).
struct SharedKeys {
  std::optional<int> of;  // the block that made them; none: this one
  int64_t place = 0;      // of their channels among all that are passed on
  bool operator==(const SharedKeys&) const = default;
};

/// One decoder block. Every supported architecture is a value of this struct; adding a field means teaching
/// `block_forward` and `scale_groups` about it, both in block.cc.
struct BlockSpec {
  int dim = 0;
  NormSpec norm;
  NormPlacement placement = NormPlacement::before;
  Parallel parallel = Parallel::no;
  float residual_scale = 1.f;  // multiplies what is added to x
  AttentionSpec attention;     // without heads where there is a delta net
  std::optional<SharedKeys> shared_keys{};
  std::optional<DeltaSpec> delta{};
  MlpSpec mlp;                         // of each expert, where there are any
  std::optional<ExpertsSpec> experts;  // none: one MLP for all tokens
  int own_width = 0;        // x += norm(own_out (act(own_gate x) * own)), behind the MLP; 0: not (OwnInputSpec)
  bool out_scaled = false;  // at last x is multiplied by a number
  bool on_host = false;     // computed by the CPU beside a device that has no memory for it: Backend::place
  bool operator==(const BlockSpec&) const = default;

  /// Every parameter the block has, in the order they are written to files.
  std::vector<Param> params() const;
  /// Whether its attention reads keys and values of an earlier block.
  bool borrows_keys() const { return shared_keys && shared_keys->of; }
  /// The MLPs' numbers, the shared one's last.
  std::vector<int> mlps() const;
  /// Whether a token passes it only if the router says so.
  bool is_routed(Param p) const {
    return experts && p.expert >= 0 && (p.role == Role::gate || p.role == Role::up || p.role == Role::down);
  }
  int mlp_hidden(int expert) const { return expert == kSharedExpert ? experts.value().shared_hidden : mlp.hidden; }
  /// Channels that o reads.
  int mixed_rows() const { return delta ? delta->value_rows() : attention.out_rows(); }
  int widest_mlp() const { return std::max(mlp.hidden, experts ? experts->shared_hidden : 0); }
  bool has_bias(Param p) const;
  NormSpec norm_of(Role role) const;
  /// Rows and columns of a matrix; {channels, 0} for a norm.
  std::pair<int64_t, int64_t> shape(Param p) const;
};

/// Where a model of several parts has its language: what "model." in the names of its family becomes, and what stands
/// before other names; and what stands behind a block's number.
struct NameLayout {
  std::string model, outer, block{};
};

/// A vector that a token brings for one block alone: scale * (norm(own_projection e) + row_scale * row), with the
/// block's rows of the projection, its row of the token's in own_embed, and the token's embedding e as it is stored.
struct OwnInputSpec {
  int width = 0;
  float row_scale = 1.f, scale = 1.f;
  NormSpec norm{};
  bool operator==(const OwnInputSpec&) const = default;
};

/// Tensors of files that the model is computed without.
struct UnusedTensors {
  std::string begin;   // of their names
  std::string reason;  // "of a block beyond the model's, ..."
};

struct ModelSpec {
  std::string arch;                        // "Qwen2ForCausalLM"
  std::string language_arch{};             // of its language, where it has other parts too: vision
  std::vector<NameLayout> layouts{};       // of files with such parts; of opened ones their own alone
  std::vector<std::string> other_parts{};  // beginnings of the other parts' names
  std::vector<std::string> carried{};      // their tensors in the files that were opened: written as they are
  int dim = 0, vocab = 0;
  int max_context = 0;  // positions that it was made for: beyond them it must not be run
  std::string context_key = "max_position_embeddings";  // of the config, that says how many they are
  std::string context_rule = "no rope scaling";         // what makes them so many, beside max_position_embeddings
  float embed_scale = 1.f;
  int learned_positions = 0;   // rows of a table that is added to embeddings; 0: there is none
  int first_position_row = 0;  // of position 0
  bool embed_norm = false;     // final_norm's kind, on embeddings
  std::optional<OwnInputSpec> own_input{};
  float head_input_scale = 1.f;  // multiplies the normalised last hidden state
  float logit_cap = 0.f;         // logits become cap * tanh(logit / cap); 0: they stay
  bool head_bias = false;
  bool head_unit_rows = false;  // rows of the head are divided by their length
  std::vector<UnusedTensors> unused{};
  bool tied_embeddings = false;
  NormSpec final_norm;
  std::vector<BlockSpec> blocks;
  /// Whether a sequence has states, which hold all positions before and cannot go back to fewer of them.
  bool recurrent() const {
    return std::ranges::any_of(blocks, [](const BlockSpec& b) { return b.delta.has_value(); });
  }
};

/// Layers that share an input. Its channels are divided by s and the columns of `consumers` multiplied by it; the
/// division is folded into `producer`. The float model is unchanged; only the rounding error moves.
struct ScaleGroup {
  std::optional<Param> producer;  // none: nothing before these layers can absorb scales, they are rounded as they are
  std::vector<Param> consumers;
  std::vector<Param> float_readers{};  // read the same input and are multiplied alike, but are not rounded: routers
  int tied_heads = 1;                  // query heads that must share scales: heads / kv_heads where v feeds o
  int head_dim = 0;                    // with tied_heads > 1
  bool squared = false;                // what the producer puts out is squared on its way: it is divided by sqrt(s)
};
/// Derived from the topology, next to block_forward; every matrix of the block is a consumer or a float reader of one
/// group, but a router with a norm of its own. A norm is a producer only if every reader of its output is in the group.
std::vector<ScaleGroup> scale_groups(const BlockSpec& spec);

/// Rows of a stored tensor that are a parameter's: `count` from `begin`, and so many again a `period` later. Fused
/// projections lie one after another (one period) or are repeated for each head (InternLM2, Falcon, NeoX).
struct RowPattern {
  int64_t begin = 0, count = 0, period = 0;  // period 0: the tensor is this parameter
  bool operator==(const RowPattern&) const = default;
  int64_t stored(int64_t row) const { return row / count * period + begin + row % count; }  // where the tensor has it
  int64_t of(int64_t total) const { return total / period * count; }                        // rows of a tensor's total
};
/// Where a checkpoint has a parameter.
struct Source {
  Source(std::string n) : name(std::move(n)) {}  // NOLINT: a name alone is the usual case
  Source(std::string n, RowPattern r) : name(std::move(n)), rows(r) {}
  std::string name;  // without ".weight" or ".bias": "model.layers.3.self_attn.q_proj"
  RowPattern rows;
  bool transposed = false;  // the matrix is stored [in, out]
  int64_t stack = 0;        // the tensor is [stack, rows, cols] of so many experts; 0: it is [rows, cols]
  std::string weight{};     // the tensor's name, with its end; empty: name + ".weight"
  std::string bias{};       // the bias's; empty: name + ".bias"
  std::string apart{};      // name of an expert's matrix where each is a tensor of its own: where they are codes
};

/// What the library must be told about one family of checkpoints.
struct Architecture {
  std::string_view hf_name;                                         // "Qwen2ForCausalLM"
  std::string_view gguf_name;                                       // "qwen2", as general.architecture spells it
  ModelSpec (*parse)(const nlohmann::json& config);                 // throws Error on a value it does not know
  Source (*source)(const ModelSpec& spec, int block, Param param);  // block is -1 for what is not in one
};
std::span<const Architecture> architectures();
const Architecture& find_architecture(std::string_view hf_name);  // throws Error, listing what exists

}  // namespace awq
