#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"

namespace awq {
namespace {

// Tokens e^30 times less likely than the likeliest: a million of them together have a share below 1e-7.
constexpr float kNever = -30;

}  // namespace

void Sampler::penalize(std::span<float> logits, std::span<const int32_t> history, size_t prompt) const {
  for (const auto& [token, by] : options_.bias) logits[size_t(token)] += by;
  if (options_.presence_penalty != 0 || options_.frequency_penalty != 0) {
    std::unordered_map<int32_t, int> times;
    for (int32_t t : history.subspan(prompt)) ++times[t];
    for (const auto& [token, n] : times)
      logits[size_t(token)] -= float(options_.presence_penalty + options_.frequency_penalty * n);
  }
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
  keep_typical(all);
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

// Meister et al., "Locally Typical Sampling", arXiv 2202.00666: in order of | -log p - entropy |, up to the one with
// which their share is reached. The result is in that order.
void Sampler::keep_typical(std::vector<Choice>& all) const {
  if (options_.typical_p >= 1) return;
  double total = 0, entropy = 0, sum = 0;
  for (const Choice& c : all) total += double(c.p);
  for (const Choice& c : all)
    if (c.p > 0) entropy -= double(c.p) / total * std::log(double(c.p) / total);
  const auto far = [&](const Choice& c) { return std::abs(-std::log(double(c.p) / total) - entropy); };
  std::ranges::stable_sort(all, {}, far);
  size_t n = 0;
  while (n < all.size() && sum < options_.typical_p * total) sum += double(all[n++].p);
  all.resize(n);
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> history, size_t prompt) {
  penalize(logits, history, prompt);
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
