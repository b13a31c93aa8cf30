#pragma once
#include <cmath>
#include <random>

#include "kernels/registry.h"
#include "quantizer/gram.h"
#include "quantizer/rows.h"

namespace awq {

/// A layer with correlated inputs, rounded; and the loss by its definition, in double.
struct Layer {
  Layer(int bits, int group, bool divided, int threads = 2) : pool(threads) {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    Tensor x = Tensor::empty({4 * kCols, kCols}, DType::f32);
    for (int64_t t = 0; t < 4 * kCols; ++t) {
      const float common = normal(rng);
      for (int64_t c = 0; c < kCols; ++c)
        x.as<float>()[size_t(t * kCols + c)] = (common + normal(rng)) * (c % 9 == 0 ? 4.f : 1.f);
    }
    gram.add(host, x);
    w = Tensor::empty({kRows, kCols}, DType::f32);
    for (float& v : w.as<float>()) v = normal(rng);
    for (int64_t c = 0; divided && c < kCols; ++c) divisors.push_back(std::exp(0.5f * normal(rng)));
    q = quantize(w, {.bits = bits, .group_size = group});
  }

  double divisor(int64_t c) const { return divisors.empty() ? 1 : double(divisors[size_t(c)]); }
  double damping(float share) const {
    double sum = 0;
    for (int64_t c = 0; c < kCols; ++c) sum += double(gram.at(c, c)) / divisor(c) / divisor(c);
    return double(share) * sum / double(kCols);
  }
  double error(int64_t r, int64_t c) const {
    const auto i = size_t(r * kCols + c), g = i / size_t(q.spec.group_size);
    return (double(q.codes.as<uint8_t>()[i]) - double(q.zeros.as<uint8_t>()[g])) * double(q.scales.as<float>()[g]) -
           double(w.as<float>()[i]);
  }
  /// Half of what a row's loss changes by with a weight.
  double slope(int64_t r, int64_t j, double damp) const {
    double sum = damp * error(r, j);
    for (int64_t c = 0; c < kCols; ++c) sum += error(r, c) / divisor(c) * double(gram.at(c, j)) / divisor(j);
    return sum;
  }
  double curvature(int64_t j, double damp) const { return double(gram.at(j, j)) / divisor(j) / divisor(j) + damp; }
  double scale(int64_t r, int64_t c) const {
    return double(q.scales.as<float>()[size_t((r * kCols + c) / q.spec.group_size)]);
  }
  uint8_t& code(int64_t r, int64_t c) { return q.codes.as<uint8_t>()[size_t(r * kCols + c)]; }
  double loss(int64_t r, float share) const {
    const double damp = damping(share);
    double sum = 0;
    for (int64_t c = 0; c < kCols; ++c) sum += error(r, c) * slope(r, c, damp);
    return sum;
  }
  double loss(float share) const {
    double sum = 0;
    for (int64_t r = 0; r < kRows; ++r) sum += loss(r, share);
    return sum;
  }

  static constexpr int64_t kRows = 51, kCols = 256;  // a band and a rest; four tiles
  ThreadPool pool;
  Host host{pool, kernels::select()};
  Gram gram{kCols};
  Tensor w;
  std::vector<float> divisors;
  QMatrix q;
};

}  // namespace awq
