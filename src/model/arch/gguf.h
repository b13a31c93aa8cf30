#pragma once
// How GGUF files describe the families: metadata that becomes config.json, and tensors' names.
#include <nlohmann/json.hpp>
#include <string>

#include "io/gguf.h"
#include "model/arch/config.h"

namespace awq {

/// Reads the keys below "<architecture>.".
class GgufKeys {
 public:
  explicit GgufKeys(const Gguf& file) : file_(file), arch_(file.text("general.architecture")) {}
  const Gguf& file() const { return file_; }
  std::string_view arch() const { return arch_; }
  std::string key(std::string_view name) const { return arch_ + "." + std::string(name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }
  int64_t size(std::string_view name) const;  // at least 1
  int64_t size(std::string_view name, int64_t missing) const { return has(name) ? size(name) : missing; }
  int64_t whole(std::string_view name) const;  // at least 0, which is what it is where it is absent
  bool flag(std::string_view name) const { return file_.flag(key(name), false); }
  std::string_view text(std::string_view name, std::string_view missing) const {
    return file_.text(key(name), missing);
  }
  /// The shortest decimal that reads back as the same float: 1e-05, not 9.99999974e-06.
  double decimal(std::string_view name) const { return shortest(float(file_.number(key(name)))); }
  double decimal(std::string_view name, double missing) const { return has(name) ? decimal(name) : missing; }
  static double shortest(float v) { return std::stod(fmt::format("{}", v)); }
  bool has_weight(std::string_view name) const { return file_.find(fmt::format("blk.0.{}.weight", name)) != nullptr; }
  bool has_bias(std::string_view name) const { return file_.find(fmt::format("blk.0.{}.bias", name)) != nullptr; }
  template <class T>
  [[noreturn]] void bad(std::string_view name, std::string_view expected, const T& got) const {
    fail("gguf", "{}: the metadata \"{}\" should be {}, but is {}", file_.path().string(), key(name), expected, got);
  }

 private:
  const Gguf& file_;
  std::string arch_;
};

/// A family's files. Keys that no list has are refused: they may change what the model computes.
struct GgufFamily {
  std::string_view name;                        // of general.architecture
  nlohmann::json (*config)(const GgufKeys& k);  // Hugging Face's config.json, without special tokens
  std::span<const std::string_view> keys{};     // below "<architecture>.", beside those that every family may have
  std::span<const TensorName> names{};          // in a block, where others than usual: "ffn_norm"
  std::span<const std::string_view> tensors{};  // that config() reads
  bool pairs = false;                           // channels of q and k that rotate together are neighbours
  bool fused_qkv = false;                       // where they are written, q, k and v are one matrix
  bool fused_gate = false;                      // and gate and up, under up's name
};
std::span<const GgufFamily> gguf_families();
const GgufFamily* find_gguf_family(std::string_view name);
std::span<const std::string_view> gguf_common_keys();

/// Sizes, positions and the scaling of them, of heads whose channels are all rotated and as many in keys as in values.
nlohmann::json gguf_config_of(const GgufKeys& k, std::string_view architecture, std::string_view model_type);
/// The same without the size of heads.
nlohmann::json gguf_sizes(const GgufKeys& k, std::string_view architecture, std::string_view model_type);
int64_t gguf_head_dim(const GgufKeys& k);
/// "head_dim" and "partial_rotary_factor" of heads of which the first channels are rotated.
nlohmann::json gguf_partial_rope(const GgufKeys& k);
void refuse_gguf_experts(const GgufKeys& k);
/// 0 where there is none.
int64_t gguf_window(const GgufKeys& k);
/// Llama 3.1's scaling is a tensor of divisors.
void apply_gguf_divisors(const GgufKeys& k, nlohmann::json& config);

}  // namespace awq
