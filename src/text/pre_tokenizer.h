#pragma once
#include <deque>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

/// A stretch of text that is tokenized on its own.
struct Piece {
  std::string_view text;
  bool first = false;  // starts where the whole input starts (Metaspace's prepend_scheme "first" asks)
};

/// Owns texts that pieces view.
class Arena {
 public:
  std::string_view keep(std::string text) { return texts_.emplace_back(std::move(text)); }

 private:
  std::deque<std::string> texts_;  // a deque does not move its elements
};

/// Cuts pieces into smaller ones and rewrites them: "pre_tokenizer" of tokenizer.json. Immutable; may be used from
/// several threads.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// The new pieces view the old texts or `arena`. Empty pieces are dropped.
  virtual std::vector<Piece> apply(const std::vector<Piece>& pieces, Arena& arena) const = 0;
};

/// A JSON null gives one that changes nothing. Throws Error naming the type if it is not implemented.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const nlohmann::json& spec);

/// The scheme of a Metaspace component ("always", "first", "never"), checked; shared with its decoder.
enum class PrependScheme { always, first, never };
PrependScheme prepend_scheme(const nlohmann::json& spec);
/// The replacement of a Metaspace component: one character.
std::string metaspace_replacement(const nlohmann::json& spec);

}  // namespace awq
