#pragma once
#include <cstdint>
#include <span>

namespace awq {

/// Tokens before the first in which they differ.
size_t same_tokens(std::span<const int32_t> a, std::span<const int32_t> b);
/// Share of runs of four tokens that were there before: 1 - distinct / all, "seq-rep-4" of Welleck et al., arXiv
/// 1908.04319. 0 where there are fewer than four.
double repetition(std::span<const int32_t> tokens);

}  // namespace awq
