#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/function_ref.h"

namespace awq {

/// A regular expression as tokenizer files write them (Oniguruma, Ruby syntax, Unicode), run by PCRE2. Where the two
/// read a pattern differently it is rewritten; what cannot be rewritten throws Error with the pattern. Characters newer
/// than PCRE2's Unicode tables (10.42: Unicode 14) count as unassigned. Immutable; may be used from several threads.
class Regex {
 public:
  explicit Regex(std::string_view pattern);

  using Range = std::pair<size_t, size_t>;  // [begin, end)
  /// The non-overlapping matches in `text`, which must be valid UTF-8, from left to right. An empty match directly
  /// behind another match does not count. Throws Error if the pattern needs too many steps on this text.
  void for_each(std::string_view text, FunctionRef<void(Range)> match) const;
  std::vector<Range> find_all(std::string_view text) const;

 private:
  std::string pattern_;
  std::shared_ptr<const void> code_;
};

/// The pattern in PCRE2's syntax, for options UTF, UCP and MULTILINE. Exposed for tests.
std::string to_pcre2(std::string_view pattern);

}  // namespace awq
