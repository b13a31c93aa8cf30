#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace awq {

/// Holds back what may be the beginning of a stop string, and everything from a stop string on.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops);
  /// Text that is safe to show. `stopped()` tells whether a stop string has come; without `look` none is looked for.
  std::string push(std::string_view piece, bool look = true);
  std::string flush() { return release(0); }
  bool stopped() const { return !stopped_by_.empty(); }
  const std::string& stopped_by() const { return stopped_by_; }

 private:
  size_t longest_beginning() const;
  std::string release(size_t keep);

  std::vector<std::string> stops_;
  std::string held_, stopped_by_;
};

/// An answer's text while its tokens arrive: whole characters, up to the first stop string.
class AnswerText {
 public:
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops)
      : decoder_(tokenizer), filter_(std::move(stops)) {}
  std::string push(int32_t token, bool look = true) { return filter_.push(decoder_.push(token), look); }
  /// What was held back, where no stop string came.
  std::string flush() { return filter_.stopped() ? std::string() : filter_.push(decoder_.flush()) + filter_.flush(); }
  bool stopped() const { return filter_.stopped(); }
  const std::string& stopped_by() const { return filter_.stopped_by(); }

 private:
  StreamDecoder decoder_;
  StopFilter filter_;
};

}  // namespace awq
