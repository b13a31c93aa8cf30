#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>

#include "text/regex.h"

namespace awq {

/// {"String": text} or {"Regex": expression}, as Split and Replace hold them.
class Pattern {
 public:
  /// Reads "pattern" of `spec`; `component` is for the error.
  Pattern(const nlohmann::json& spec, std::string_view component);
  void for_each(std::string_view text, FunctionRef<void(Regex::Range)> match) const;
  std::string replace_all(std::string_view text, std::string_view with) const;

 private:
  std::variant<std::string, Regex> what_;
};

}  // namespace awq
