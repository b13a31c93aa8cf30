#include "model/experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace awq {
namespace {

/// The indices of the largest, ascending. Values that are not numbers do not matter: no order is relied on.
std::vector<size_t> largest(std::span<const float> values, int count) {
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

/// Of those in `among`, relative to the largest of all.
double sum_of_exponentials(std::span<const float> values, std::span<const size_t> among, double most) {
  double sum = 0;
  for (size_t i : among) sum += std::exp(double(values[i]) - most);
  return sum;
}

}  // namespace

std::vector<Route> routes_of(const ExpertsSpec& spec, const Tensor& logits) {
  std::vector<Route> routes(size_t(spec.count));
  std::vector<size_t> all(routes.size());
  std::iota(all.begin(), all.end(), size_t(0));
  for (int64_t t = 0; t < logits.shape()[0]; ++t) {
    const auto values = logits.rows(t, t + 1).as<float>();
    const std::vector<size_t> chosen = largest(values, spec.active);
    const double most = *std::ranges::max_element(values),
                 sum = sum_of_exponentials(values, spec.normalized ? chosen : all, most);
    for (size_t e : chosen) {
      routes[e].rows.push_back(int32_t(t));
      routes[e].weights.push_back(float(std::exp(double(values[e]) - most) / sum));
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
