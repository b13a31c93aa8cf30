#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"

namespace awq {
namespace {

// Tokens e^30 times less likely than the likeliest: a million of them together have a share below 1e-7.
constexpr float kNever = 1e-13f;

constexpr size_t kSumBlock = 512;  // so many are added up before it is asked whether the picked one is among them

/// As eight sums, which fit the vectors of any set.
double sum_of(std::span<const float> p) {
  double lanes[8] = {};
  size_t i = 0;
  for (; i + 8 <= p.size(); i += 8)
    for (size_t j = 0; j < 8; ++j) lanes[j] += double(p[i + j]);
  for (; i < p.size(); ++i) lanes[i % 8] += double(p[i]);
  return std::accumulate(lanes, lanes + 8, 0.);
}

}  // namespace

int32_t likeliest(std::span<const float> logits) { return int32_t(std::ranges::max_element(logits) - logits.begin()); }

Sampler::Sampler(const SamplerOptions& options) : kernels_(kernels::select()), options_(options), rng_(options.seed) {}

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

bool Sampler::filters() const {
  return options_.top_k > 0 || options_.min_p > 0 || options_.typical_p < 1 || options_.top_p < 1;
}

std::vector<float> Sampler::probabilities(std::span<const float> logits) const {
  const float top = *std::ranges::max_element(logits);
  const auto by = float(std::min(1 / options_.temperature, double(std::numeric_limits<float>::max())));
  std::vector<float> p(logits.size());
  for (size_t i = 0; i < p.size(); ++i) p[i] = (logits[i] - top) * by;
  kernels_.softmax(p.data(), ptrdiff_t(p.size()), 1, int32_t(p.size()));
  return p;
}

// Candidates in descending order where a filter needs order, else in the vocabulary's.
std::vector<Sampler::Choice> Sampler::kept(std::span<const float> p) const {
  const float least = *std::ranges::max_element(p) * std::max(kNever, float(options_.min_p));
  std::vector<Choice> all;
  for (size_t i = 0; i < p.size(); ++i)
    if (p[i] >= least) all.push_back({int32_t(i), p[i]});
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

void Sampler::fail_empty() const {
  fail("generate",
       "no token is left to choose from: either min_p ({}) is above 1, or the logits are not finite, and the model is "
       "damaged",
       options_.min_p);
}

/// The first with which the sum is above `at`; some p is above 0.
int32_t Sampler::pick(std::span<const float> p, double at) const {
  size_t i = 0;
  for (double block; i + kSumBlock < p.size() && at >= (block = sum_of(p.subspan(i, kSumBlock))); i += kSumBlock)
    at -= block;
  for (; i < p.size(); ++i)
    if ((at -= double(p[i])) < 0) return int32_t(i);
  while (p[--i] <= 0) {  // sums were rounded
  }
  return int32_t(i);
}

int Sampler::candidates() const {
  const SamplerOptions& o = options_;
  if (!o.bias.empty() || o.presence_penalty != 0 || o.frequency_penalty != 0 || o.repetition_penalty != 1) return 0;
  return o.temperature <= 0 ? 1 : std::max(o.top_k, 0);
}

int32_t Sampler::sample_among(std::span<const int32_t> tokens, std::span<float> logits) {
  return tokens[size_t(sample(logits, {}, 0))];
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> history, size_t prompt) {
  penalize(logits, history, prompt);
  if (options_.temperature <= 0) return likeliest(logits);
  std::vector<float> p = probabilities(logits);
  std::vector<Choice> choices;
  if (filters()) {
    choices = kept(p);
    p.clear();
    for (const Choice& c : choices) p.push_back(c.p);
  }
  const double total = sum_of(p);
  if (!(total > 0)) fail_empty();
  const int32_t at = pick(p, uniform() * total);
  return choices.empty() ? at : choices[size_t(at)].token;
}

}  // namespace awq
