#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/check.h"

namespace awq {
namespace {

// Tokens e^30 times less likely than the likeliest: a million of them together have a share below 1e-7.
constexpr float kNever = -30;

}  // namespace

void Sampler::penalize(std::span<float> logits, std::span<const int32_t> history) const {
  if (options_.repetition_penalty == 1) return;
  const auto penalty = float(options_.repetition_penalty);
  for (int32_t t : std::unordered_set<int32_t>(history.begin(), history.end())) {
    float& v = logits[size_t(t)];
    v = v > 0 ? v / penalty : v * penalty;
  }
}

// Candidates in descending order where a filter needs order, else in the vocabulary's.
std::vector<Sampler::Choice> Sampler::kept(std::span<const float> logits) const {
  const double top = *std::max_element(logits.begin(), logits.end());
  std::vector<Choice> all;
  all.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto x = float((logits[i] - top) / options_.temperature);
    if (x < kNever) continue;
    const float p = std::exp(x);
    if (p >= float(options_.min_p)) all.push_back({int32_t(i), p});
  }
  const auto better = [](const Choice& a, const Choice& b) { return a.p > b.p || (a.p == b.p && a.token < b.token); };
  if (options_.top_k > 0 && size_t(options_.top_k) < all.size()) {
    std::nth_element(all.begin(), all.begin() + options_.top_k - 1, all.end(), better);
    all.resize(size_t(options_.top_k));
  }
  if (options_.top_p >= 1) return all;
  double total = 0, sum = 0;
  for (const Choice& c : all) total += double(c.p);
  const auto worse = [&](const Choice& a, const Choice& b) { return better(b, a); };
  std::make_heap(all.begin(), all.end(), worse);  // only as many as are kept get sorted
  size_t left = all.size();
  while (left > 0 && sum < options_.top_p * total) {
    std::pop_heap(all.begin(), all.begin() + long(left), worse);
    sum += double(all[--left].p);
  }
  return {all.rbegin(), all.rbegin() + long(all.size() - left)};
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> history) {
  penalize(logits, history);
  if (options_.temperature <= 0) return int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const std::vector<Choice> choices = kept(logits);
  if (choices.empty())
    fail("generate",
         "no token is left to choose from: either min_p ({}) is above 1, or the logits are not finite, and the model "
         "is damaged",
         options_.min_p);
  double total = 0;
  for (const Choice& c : choices) total += double(c.p);
  double at = uniform() * total;
  for (const Choice& c : choices)
    if ((at -= double(c.p)) < 0) return c.token;
  return choices.back().token;
}

}  // namespace awq
