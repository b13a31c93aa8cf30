#include "model/experts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace awq {
namespace {

/// The indices of the largest, ascending. Values that are not numbers do not matter: no order is relied on.
std::vector<size_t> largest(std::span<const double> values, int count) {
  std::vector<size_t> chosen;
  for (int n = 0; n < count; ++n) {
    size_t best = values.size();
    for (size_t i = 0; i < values.size(); ++i)
      if (!std::ranges::count(chosen, i) && (best == values.size() || values[i] > values[best])) best = i;
    chosen.push_back(best);
  }
  std::ranges::sort(chosen);
  return chosen;
}

/// What experts weigh: softmax up to a factor that all share, so that none overflows; or sigmoid.
std::vector<double> scores_of(const ExpertsSpec& spec, std::span<const float> logits) {
  const double most = *std::ranges::max_element(logits);
  std::vector<double> s;
  for (float v : logits)
    s.push_back(spec.scores == Scores::softmax ? std::exp(double(v) - most) : 1 / (1 + std::exp(-double(v))));
  return s;
}

/// What experts are chosen by. Of a softmax the logits, whose order is the same and which do not underflow.
std::vector<double> merits_of(const ExpertsSpec& spec, std::span<const float> logits, std::span<const double> scores,
                              std::span<const float> correction) {
  std::vector<double> m(scores.begin(), scores.end());
  if (spec.scores == Scores::softmax) m.assign(logits.begin(), logits.end());
  for (size_t i = 0; i < correction.size(); ++i) m[i] += double(correction[i]);
  return m;
}

double sum_of(std::span<const double> values, std::span<const size_t> among) {
  double sum = 0;
  for (size_t i : among) sum += values[i];
  return sum;
}

/// Experts of other groups than the best are out.
void keep_best_groups(const ExpertsSpec& spec, std::vector<double>& merits) {
  const size_t size = merits.size() / size_t(spec.groups);
  std::vector<double> of_group;
  for (size_t g = 0; g < size_t(spec.groups); ++g) {
    const auto members = std::span(merits).subspan(g * size, size);
    of_group.push_back(sum_of(members, largest(members, spec.group_best)));
  }
  const std::vector<size_t> best = largest(of_group, spec.active_groups);
  for (size_t i = 0; i < merits.size(); ++i)
    if (!std::ranges::count(best, i / size)) merits[i] = -std::numeric_limits<double>::infinity();
}

}  // namespace

std::vector<Route> routes_of(const ExpertsSpec& spec, const Tensor& logits, std::span<const float> correction) {
  std::vector<Route> routes(size_t(spec.count));
  for (int64_t t = 0; t < logits.shape()[0]; ++t) {
    const auto values = logits.rows(t, t + 1).as<float>();
    const std::vector<double> scores = scores_of(spec, values);
    std::vector<double> merits = merits_of(spec, values, scores, correction);
    if (spec.groups > 1) keep_best_groups(spec, merits);
    const std::vector<size_t> chosen = largest(merits, spec.active);
    double all = 1;
    if (spec.normalized)
      all = sum_of(scores, chosen);
    else if (spec.scores == Scores::softmax)
      all = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (size_t e : chosen) {
      routes[e].rows.push_back(int32_t(t));
      routes[e].weights.push_back(float(scores[e] / all * double(spec.scale)));
    }
  }
  return routes;
}

Route shared_route(const Tensor& logits, int64_t tokens) {
  Route r{std::vector<int32_t>(size_t(tokens)), std::vector<float>(size_t(tokens), 1.f)};
  std::iota(r.rows.begin(), r.rows.end(), 0);
  for (size_t t = 0; logits && t < r.weights.size(); ++t) r.weights[t] = 1 / (1 + std::exp(-logits.as<float>()[t]));
  return r;
}

}  // namespace awq
