#pragma once
#include <deque>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "text/function_ref.h"

namespace awq {

/// A stretch of text that is tokenized on its own.
struct Stretch {
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

/// Receives pieces from left to right.
using StretchSink = FunctionRef<void(const Stretch&)>;

/// Cuts a piece into smaller ones and rewrites them: "pre_tokenizer" of tokenizer.json. Immutable; may be used from
/// several threads.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// The new pieces view the old text or `arena`. None of them is empty.
  virtual void apply(const Stretch& piece, Arena& arena, StretchSink sink) const = 0;
};

struct PreTokenizing {
  std::unique_ptr<PreTokenizer> steps;
  /// The last step, writing each byte as a character of the byte alphabet, is left to the caller, who needs it only for
  /// pieces that it has not met before.
  bool byte_alphabet = false;
};

/// A JSON null gives one that changes nothing. Throws Error naming the type if it is not implemented.
PreTokenizing make_pre_tokenizer(const nlohmann::json& spec);

/// The scheme of a Metaspace component ("always", "first", "never"), checked; shared with its decoder.
enum class PrependScheme { always, first, never };
PrependScheme prepend_scheme(const nlohmann::json& spec);
/// The replacement of a Metaspace component: one character.
std::string metaspace_replacement(const nlohmann::json& spec);

}  // namespace awq
