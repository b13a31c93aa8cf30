#include "quant/survey.h"

#include <fmt/format.h>

#include <cmath>
#include <mutex>
#include <numeric>

namespace awq {
namespace {

CodeSurvey nothing(const QuantSpec& spec) {
  const auto values = size_t(spec.levels() + 1);
  CodeSurvey s;
  s.spec = spec;
  s.codes.resize(values);
  s.zeros.resize(values);
  return s;
}

void add_scale(CodeSurvey& s, float scale, bool equal) {
  const float size = std::abs(scale);
  if (size == 0) {
    ++s.zero_scales;
    s.lost_groups += !equal;
    return;
  }
  s.smallest_scale = s.smallest_scale == 0 ? size : std::min(s.smallest_scale, size);
  s.largest_scale = std::max(s.largest_scale, size);
}

void add_group(CodeSurvey& s, const QMatrix& q, size_t group) {
  const auto size = size_t(q.spec.group_size);
  const auto codes = q.codes.as<uint8_t>().subspan(group * size, size);
  for (const uint8_t c : codes) ++s.codes[c];
  const bool equal = std::ranges::all_of(codes, [&](uint8_t c) { return c == codes[0]; });
  ++s.groups;
  s.equal_groups += equal;
  add_scale(s, q.scales.as<float>()[group], equal);
  if (q.zeros) ++s.zeros.at(q.zeros.as<uint8_t>()[group]);
}

void add(CodeSurvey& to, const CodeSurvey& s) {
  for (size_t i = 0; i < s.codes.size(); ++i) to.codes[i] += s.codes[i], to.zeros[i] += s.zeros[i];
  to.groups += s.groups;
  to.equal_groups += s.equal_groups;
  to.zero_scales += s.zero_scales;
  to.lost_groups += s.lost_groups;
  to.largest_scale = std::max(to.largest_scale, s.largest_scale);
  if (to.smallest_scale == 0 || (s.smallest_scale != 0 && s.smallest_scale < to.smallest_scale))
    to.smallest_scale = s.smallest_scale;
}

}  // namespace

int64_t CodeSurvey::count() const { return std::accumulate(codes.begin(), codes.end(), int64_t(0)); }

CodeSurvey survey(const QMatrix& q, ThreadPool& pool) {
  CodeSurvey all = nothing(q.spec);
  std::mutex mutex;
  pool.run(q.rows() * q.groups(), 1, [&](int64_t begin, int64_t end) {
    CodeSurvey part = nothing(q.spec);
    for (int64_t g = begin; g < end; ++g) add_group(part, q, size_t(g));
    const std::lock_guard lock(mutex);
    add(all, part);
  });
  return all;
}

double most_saturated(const QuantSpec& spec) { return 0.5 + 0.5 / spec.levels() + 2. / spec.group_size; }

std::vector<std::string> suspicions(const CodeSurvey& s) {
  std::vector<std::string> found;
  if (s.lost_groups)
    found.push_back(fmt::format("{} of {} groups have the scale 0 beside codes that differ: their weights are lost",
                                s.lost_groups, s.groups));
  if (const auto most = std::ranges::max_element(s.codes); *most == s.count())
    found.push_back(fmt::format("every code is {}", most - s.codes.begin()));
  else if (const double ends = s.low() + s.high(), bound = most_saturated(s.spec); ends > bound)
    found.push_back(fmt::format("{:.1f} % of the codes are 0 or {}; rounding gives {:.1f} % at most", 100 * ends,
                                s.spec.levels(), 100 * bound));
  return found;
}

}  // namespace awq
