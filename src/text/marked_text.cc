#include "text/marked_text.h"

#include <algorithm>

namespace awq {

MarkedText::MarkedText(std::string text, bool marked) : text_(std::move(text)) {
  if (marked) mark(0, text_.size());
}

void MarkedText::append(std::string_view text, bool marked) {
  text_.append(text);
  if (marked) mark(text_.size() - text.size(), text_.size());
}

void MarkedText::append_part(const MarkedText& whole, std::string_view part) {
  if (part.empty()) return;
  const auto begin = static_cast<size_t>(part.data() - whole.text_.data()), end = begin + part.size();
  const size_t moved = text_.size() - begin;  // may wrap around
  text_.append(part);
  auto m = std::upper_bound(whole.marks_.begin(), whole.marks_.end(), begin,
                            [](size_t pos, const ByteRange& r) { return pos < r.end; });
  for (; m != whole.marks_.end() && m->begin < end; ++m)
    mark(std::max(m->begin, begin) + moved, std::min(m->end, end) + moved);
}

MarkedText MarkedText::part(std::string_view part) const {
  MarkedText out;
  out.append_part(*this, part);
  return out;
}

void MarkedText::mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!marks_.empty() && marks_.back().end == begin)
    marks_.back().end = end;
  else
    marks_.push_back({begin, end});
}

}  // namespace awq
