#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace awq {

/// Rewrites text before it is cut: "normalizer" of tokenizer.json. Immutable; may be used from several threads.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string text) const = 0;
};

/// A JSON null gives one that changes nothing. Throws Error naming the type if it is not implemented.
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& spec);

}  // namespace awq
