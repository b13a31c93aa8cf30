#include "engine/answer_text.h"

#include <algorithm>

namespace awq {

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) { std::erase(stops_, ""); }

std::string StopFilter::push(std::string_view piece, bool look) {
  held_ += piece;
  if (!look) return release(0);
  for (const std::string& s : stops_)
    if (const size_t at = held_.find(s); at != std::string::npos) {
      held_.resize(at);
      stopped_by_ = s;  // the first in the text: what is behind it is gone
    }
  return release(stopped() ? 0 : longest_beginning());
}

size_t StopFilter::longest_beginning() const {
  size_t keep = 0;
  for (const std::string& s : stops_)
    for (size_t n = std::min(s.size(), held_.size()); n > keep; --n)
      if (held_.ends_with(std::string_view(s).substr(0, n))) keep = n;
  return keep;
}

std::string StopFilter::release(size_t keep) {
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

}  // namespace awq
