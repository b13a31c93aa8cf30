#include "eval/repetition.h"

#include <algorithm>
#include <array>
#include <set>

namespace awq {
namespace {

constexpr size_t kRun = 4;  // tokens whose repetition counts

}  // namespace

size_t same_tokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  return size_t(std::ranges::mismatch(a, b).in1 - a.begin());
}

double repetition(std::span<const int32_t> tokens) {
  if (tokens.size() < kRun) return 0;
  std::set<std::array<int32_t, kRun>> distinct;
  const size_t all = tokens.size() - kRun + 1;
  for (size_t i = 0; i < all; ++i) {
    std::array<int32_t, kRun> run{};
    std::ranges::copy(tokens.subspan(i, kRun), run.begin());
    distinct.insert(run);
  }
  return 1 - double(distinct.size()) / double(all);
}

}  // namespace awq
