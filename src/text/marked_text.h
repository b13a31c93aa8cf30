#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

struct ByteRange {
  size_t begin, end;
  bool operator==(const ByteRange&) const = default;
};

/// Text of which some bytes are marked: those of a rendered chat that come from the conversation, not the template.
class MarkedText {
 public:
  MarkedText() = default;
  explicit MarkedText(std::string text, bool marked = false);

  const std::string& text() const { return text_; }
  /// In order, none empty, none touching the next.
  const std::vector<ByteRange>& marks() const { return marks_; }
  bool has_marks() const { return !marks_.empty(); }
  /// The bytes it takes, about.
  uint64_t cost() const { return text_.size() + marks_.size() * sizeof(ByteRange); }

  void append(std::string_view text, bool marked = false);
  void append(const MarkedText& other) { append_part(other, other.text_); }
  /// `part` views the text of `whole`.
  void append_part(const MarkedText& whole, std::string_view part);
  MarkedText part(std::string_view part) const;

 private:
  void mark(size_t begin, size_t end);

  std::string text_;
  std::vector<ByteRange> marks_;
};

}  // namespace awq
