#include "model/backend_parts.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/parallel.h"

namespace awq {
namespace {

std::vector<int> positions_of(Batch batch) {
  std::vector<int> at;
  for (const Sequence& s : batch)
    for (int t = 0; t < s.tokens; ++t) at.push_back(s.first + t);
  return at;
}

}  // namespace

void Backend::heads(const HeadsInput& in, Batch batch, int block, const AttentionSpec& spec, Tensor& y) {
  Tensor q = in.q, k = in.k;
  if (in.q_norm) norm(q, in.q_norm->gain, in.q_norm->bias, in.q_norm->spec, spec.head_dim, q);
  if (in.k_norm) norm(k, in.k_norm->gain, in.k_norm->bias, in.k_norm->spec, spec.head_dim, k);
  if (!in.frequencies.empty())
    for (Tensor* t : {&q, &k}) rope(*t, batch, in.frequencies, spec.head_dim, 0, spec.rope.interleaved);
  attention(q, k, in.v, in.sinks, batch, block, spec, y);
}

void require_rows(const Tensor& table, std::span<const int32_t> tokens) {
  const int64_t vocab = table.shape()[0];
  for (const int32_t t : tokens)
    if (t < 0 || t >= vocab) fail("forward", "token {} is outside the vocabulary of {}", t, vocab);
}

void copy_rows(const Tensor& table, std::span<const int32_t> tokens, float scale, float* x) {
  const int64_t dim = table.shape()[1];
  for (const int32_t t : tokens) {
    table.rows(t, t + 1).widen(x);
    for (const float* end = x + dim; x < end; ++x) *x *= scale;
  }
}

RopeTables::Found RopeTables::of(Batch batch, std::span<const float> frequencies) {
  std::vector<int> at = positions_of(batch);
  const auto known =
      std::ranges::find_if(tables_, [&](const RopeTable& t) { return std::ranges::equal(t.frequencies, frequencies); });
  size_t slot = size_t(known - tables_.begin());
  if (slot == kCount) {
    slot = std::exchange(oldest_, (oldest_ + 1) % kCount);
    tables_[slot] = {{frequencies.begin(), frequencies.end()}, {}, {}, {}};
  } else if (known->positions == at) {
    return {*known, slot, false};
  }
  tables_[slot].positions = std::move(at);
  fill(tables_[slot]);
  return {tables_[slot], slot, true};
}

void RopeTables::fill(RopeTable& t) {
  const size_t half = t.frequencies.size(), n = t.positions.size() * half;
  t.cosines.resize(n);
  t.sines.resize(n);
  const auto rows = [&](int64_t begin, int64_t end) {
    for (size_t i = size_t(begin) * half; i < size_t(end) * half; ++i) {
      const float angle = float(t.positions[i / half]) * t.frequencies[i % half];
      t.cosines[i] = std::cos(angle);
      t.sines[i] = std::sin(angle);
    }
  };
  constexpr size_t kForked = 1024;  // a cosine costs about 16 values; below 16k values a fork costs more than it saves
  const auto positions = int64_t(t.positions.size());
  n < kForked ? rows(0, positions) : pool_.run(positions, 1, rows);
}

}  // namespace awq
