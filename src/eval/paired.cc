#include "eval/paired.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace awq {
namespace {

constexpr int kResamples = 4000;  // an interval's ends are then known to about 1/40 of its width

std::vector<double> resampled_means(const std::vector<double>& d) {
  std::mt19937_64 random(0);
  std::vector<double> means(kResamples);
  for (double& m : means) {
    double sum = 0;
    for (size_t i = 0; i < d.size(); ++i) sum += d[size_t(random() % d.size())];
    m = sum / double(d.size());
  }
  std::ranges::sort(means);
  return means;
}

}  // namespace

Paired paired_bootstrap(std::span<const double> a, std::span<const double> b) {
  std::vector<double> d;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) d.push_back(a[i] - b[i]);
  if (d.empty()) return {};
  const std::vector<double> means = resampled_means(d);
  const auto share = [&](auto is) { return double(std::ranges::count_if(means, is)) / kResamples; };
  const double below = share([](double m) { return m <= 0; }), above = share([](double m) { return m >= 0; });
  const auto at = [&](double q) { return means[size_t(q * (kResamples - 1))]; };
  return {.difference = std::accumulate(d.begin(), d.end(), 0.0) / double(d.size()),
          .low = at(0.025),
          .high = at(0.975),
          .p = std::clamp(2 * std::min(below, above), 1.0 / kResamples, 1.0)};
}

}  // namespace awq
