#pragma once
// What the families share in reading config.json.
#include <nlohmann/json.hpp>
#include <string>

#include "base/check.h"
#include "model/spec.h"

namespace awq {

/// config.json with errors that name the key. A key that is absent or null counts as missing.
class Config {
 public:
  explicit Config(const nlohmann::json& json) : json_(json) {}
  bool has(std::string_view key) const;
  const nlohmann::json& at(std::string_view key) const;
  int positive(std::string_view key) const;
  int positive(std::string_view key, int missing) const { return has(key) ? positive(key) : missing; }
  int whole(std::string_view key, int missing) const;  // at least 0
  float number(std::string_view key) const;
  float number(std::string_view key, float missing) const { return has(key) ? number(key) : missing; }
  bool flag(std::string_view key, bool missing) const;
  std::string text(std::string_view key, std::string_view missing) const;
  /// Throws Error if the key is present with another value: it would change what the model computes.
  void require_absent_or(std::string_view key, const nlohmann::json& value) const;

 private:
  const nlohmann::json& json_;
};

/// How a family spells the sizes that all have; Llama's way where it says nothing.
struct Spelling {
  const char *dim = "hidden_size", *heads = "num_attention_heads", *kv_heads = "num_key_value_heads",
             *hidden = "intermediate_size", *eps = "rms_norm_eps", *blocks = "num_hidden_layers",
             *positions = "max_position_embeddings", *vocab = "vocab_size";
  int hidden_times = 0;  // of dim, where `hidden` is absent; 0: it must be there
  bool tied = false;     // where "tie_word_embeddings" is absent
};

Activation activation_of(const Config& c, std::string_view key);
/// From `rope_parameters` (newer files) or `rope_theta` and `rope_scaling`. `json` is the object that holds the keys.
/// `partial`: the family rotates this part of a head where "partial_rotary_factor" is absent; else the key may not be
/// there.
RopeSpec rope_of(const nlohmann::json& json, int head_dim, float default_theta = 10000.f,
                 std::optional<float> partial = {});
/// Of the layers of one type, where "rope_parameters" has one object a type; `json` otherwise.
nlohmann::json rope_of_type(const nlohmann::json& json, const char* layer_type);
/// The config of the language in a model of several parts, as if it were a model by itself: with its architecture, with
/// what files leave out, and without axes of positions, which text does not have.
nlohmann::json language_config(const nlohmann::json& json);
/// Throws Error for sizes that do not fit each other or are not plausible.
void check_sizes(const BlockSpec& b);
/// Heads, sizes and norm; sizes are checked against each other.
BlockSpec llama_block(const Config& c, const Spelling& names = {});
/// All blocks alike, with the block's rope if it has one, else that of the config; it may extend the context.
ModelSpec llama_model(const Config& c, const nlohmann::json& json, BlockSpec block, const Spelling& names = {});
/// Positions and the context's rule are left to the family; the context is what the config says.
ModelSpec model_without_rope(const Config& c, const BlockSpec& block, const Spelling& names = {});
/// Blocks whose `layer_types` entry is "sliding_attention" get the window.
void apply_layer_types(const Config& c, ModelSpec& m);
/// Blocks whose `layer_types` entry is "linear_attention" get a gated delta net in the place of attention; without such
/// a list all but every "full_attention_interval"-th.
void apply_deltas(const Config& c, ModelSpec& m);

/// Every "decoder_sparse_step"-th block has experts, but those of "mlp_only_layers".
void apply_dense_blocks(const Config& c, ModelSpec& m);

/// How many experts there are and how many of them a token passes.
ExpertsSpec experts_of(const Config& c, const char* count = "num_experts", const char* active = "num_experts_per_tok");

/// Of so many experts that every token passes, as one MLP. Throws Error where no model is so wide.
int width_of_shared(int count, int hidden);
/// "n_group" and "topk_group": a group is as good as so many of its best.
void read_groups(const Config& c, int best, ExpertsSpec& e);
/// DeepSeek-V3's: sigmoids, corrected where they choose, in groups of which the best two experts count.
ExpertsSpec corrected_experts(const Config& c);
/// Why tensors for predicting further tokens are not used.
constexpr const char* kFurtherTokens =
    "of a block beyond the model's, for predicting further tokens, which this version does not do";
/// The last "num_kv_shared_layers" blocks read keys and values of the last block before them with the same window, or
/// the same lack of one; what files have of their own is not used. With "use_double_wide_mlp" their MLPs are twice as
/// wide.
void share_last_keys(const Config& c, ModelSpec& m);
/// A vector of each token for each block, "hidden_size_per_layer_input" channels, of which null is none.
void apply_own_inputs(const Config& c, const nlohmann::json& json, ModelSpec& m);
/// The first "first_k_dense_replace" blocks have one MLP, and files may have "num_nextn_predict_layers" more blocks
/// than the model, for predicting further tokens: they are not used.
void apply_first_dense(const Config& c, const BlockSpec& dense, ModelSpec& m);
/// Llama's, with multi-head latent attention.
BlockSpec latent_block(const Config& c, const nlohmann::json& json, const Spelling& names = {});

/// A tensor's name by role; "{}" stands for the block's number, a second one for the expert's. What begins with a dot
/// stands behind "model.layers.{}".
struct TensorName {
  Role role;
  std::string_view name;
};
/// As the table says, or Llama's name for what is not in it.
Source named(std::span<const TensorName> names, int block, Param p);
Source llama_source(const ModelSpec& spec, int block, Param p);

/// "mlp.gate", "mlp.shared_expert_gate", "mlp.experts.5.up_proj", "mlp.shared_expert.up_proj"; as Llama where there are
/// none.
Source experts_source(const ModelSpec& spec, int block, Param p);

/// As experts_source, but "mlp.shared_experts.up_proj", "mlp.gate.e_score_correction_bias", and latent attention's
/// "q_a_proj", "kv_a_proj_with_mqa", "kv_b_proj" and their norms.
Source routed_source(const ModelSpec& spec, int block, Param p);

/// The expert's part of a tensor that holds all of them: `s` says what of one expert's rows is `p`'s.
Source stacked(Source s, const BlockSpec& b, Param p, std::string apart);

/// The same where gate and up of all experts are one tensor, and down of all another:
/// "model.layers.3.<of>experts.down_proj".
Source experts_in_two(const ModelSpec& spec, int block, Param p, std::string_view of);

/// Of latent attention kv_a and k_rope follow each other; k and v do so in each head.
RowPattern latent_rows(const AttentionSpec& a, Role role);
/// Rows of q, k and v in one tensor: all of q, then k, then v.
RowPattern rows_in_order(const AttentionSpec& a, Role role);
/// For each kv head its query heads, then k, then v.
RowPattern rows_by_kv_head(const AttentionSpec& a, Role role);
/// Of each head its queries, and then the gate of what o reads.
RowPattern rows_with_gate(const AttentionSpec& a, Role role);
/// q, k and v of a delta net, one after another; or for each key head its q and k, and then v and gate, or beta and
/// decay, of the value heads that share it.
RowPattern rows_in_order(const DeltaSpec& d, Role role);
RowPattern rows_by_key_head(const DeltaSpec& d, Role role);
/// All of gate, then up.
RowPattern rows_in_order(const MlpSpec& m, Role role);
bool is_qkv(Role role);

}  // namespace awq
