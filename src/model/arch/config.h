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
  float number(std::string_view key) const;
  float number(std::string_view key, float missing) const { return has(key) ? number(key) : missing; }
  bool flag(std::string_view key, bool missing) const;
  std::string text(std::string_view key, std::string_view missing) const;
  /// Throws Error if the key is present with another value: it would change what the model computes.
  void require_absent_or(std::string_view key, const nlohmann::json& value) const;

 private:
  const nlohmann::json& json_;
};

Activation activation_of(const Config& c, std::string_view key);
/// From `rope_parameters` (newer files) or `rope_theta` and `rope_scaling`. `json` is the object that holds the keys.
RopeSpec rope_of(const nlohmann::json& json, int head_dim, float default_theta = 10000.f);
/// Heads, sizes and norm as Llama-shaped configs spell them; sizes are checked against each other.
BlockSpec llama_block(const Config& c);
/// All blocks alike, with the one rope of the config, which may extend the context.
ModelSpec llama_model(const Config& c, const nlohmann::json& json, BlockSpec block);
/// Positions and the context's rule are left to the family; the context is max_position_embeddings.
ModelSpec model_without_rope(const Config& c, const BlockSpec& block);
/// Blocks whose `layer_types` entry is "sliding_attention" get the window.
void apply_layer_types(const Config& c, ModelSpec& m);
std::string llama_source(int block, Param p);

}  // namespace awq
