#include "quantizer/search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kRows = 48;     // rows of a matrix a job: eight register tiles of gemm
constexpr int64_t kColumns = 64;  // of the triangle, a product: half of the work below the diagonal is skipped

// Eight sums side by side, which a compiler may vectorize as they stand. n is a multiple of 8.
double dot(const float* a, const float* b, int64_t n) {
  double sum[8] = {};
  for (int64_t i = 0; i < n; i += 8)
    for (int64_t lane = 0; lane < 8; ++lane) sum[lane] += double(a[i + lane]) * double(b[i + lane]);
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

// C with its off-diagonal doubled: e C e^T = sum over j of e_j sum over k <= j of e_k T_kj.
Tensor doubled_triangle(const Tensor& gram) {
  Tensor t = gram.clone();
  const int64_t n = t.shape()[0];
  auto v = t.as<float>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) v[size_t(i * n + j)] *= j < i ? 0.f : j == i ? 1.f : 2.f;
  return t;
}

// Sum over the rows of e, f32 [m, K], of e C e^T. `product` is scratch of m * kColumns.
double quadratic_form(const kernels::KernelSet& k, const float* e, int64_t m, const Tensor& triangle, float* product) {
  const int64_t n = triangle.shape()[0];
  double sum = 0;
  for (int64_t j = 0; j < n; j += kColumns) {
    const int64_t width = std::min(kColumns, n - j);
    k.gemm_f32({.a = e,
                .a_row = n,
                .b = triangle.as<float>().data() + j,
                .b_panel = kPanel,
                .b_k = n,
                .c = product,
                .c_row = width,
                .m = int32_t(m),
                .n = int32_t(width),
                .k = int32_t(j + width),
                .accumulate = false});
    for (int64_t r = 0; r < m; ++r) sum += dot(product + r * width, e + r * n + j, width);
  }
  return sum;
}

// `errors(first row, rows, out)` fills rows of e; partial sums are added in row order, so threads do not matter.
double total_form(const Host& host, int64_t rows, const Tensor& triangle,
                  const std::function<void(int64_t, int64_t, float*)>& errors) {
  const int64_t n = triangle.shape()[0];
  std::vector<double> part(size_t((rows + kRows - 1) / kRows));
  host.pool.each(int64_t(part.size()), [&](int64_t i) {
    const int64_t first = i * kRows, m = std::min(kRows, rows - first);
    std::vector<float> e(size_t(m * n)), product(size_t(m * kColumns));
    errors(first, m, e.data());
    part[size_t(i)] = quadratic_form(host.kernels, e.data(), m, triangle, product.data());
  });
  return std::accumulate(part.begin(), part.end(), 0.0);
}

void round_scaled(std::span<const float> w, std::span<const float> s, const QuantSpec& spec, float* out) {
  const auto g = size_t(spec.group_size);
  for (size_t c = 0; c < w.size(); c += g) {
    float* group = out + c;
    for (size_t i = 0; i < g; ++i) group[i] = w[c + i] * s[c + i];
    round_to({group, g}, grid_of(range_of({group, g}), spec), spec.levels(), group);
    for (size_t i = 0; i < g; ++i) group[i] /= s[c + i];
  }
}

}  // namespace

std::vector<float> weight_mean(std::span<const Tensor> weights, int group_size) {
  const auto cols = size_t(weights.front().shape()[1]), g = size_t(group_size);
  std::vector<double> sum(cols);
  int64_t rows = 0;
  for (const Tensor& w : weights) {
    rows += w.shape()[0];
    const auto v = w.as<float>();
    for (size_t i = 0; i < v.size(); i += g) {
      float largest = 0;
      for (size_t c = 0; c < g; ++c) largest = std::max(largest, std::abs(v[i + c]));
      for (size_t c = 0; c < g; ++c) sum[i % cols + c] += double(std::abs(v[i + c]) / (largest + 1e-6f));
    }
  }
  std::vector<float> mean;
  for (double v : sum) mean.push_back(float(v / double(rows)));
  return mean;
}

std::vector<Candidate> candidates(int steps) {
  std::vector<Candidate> c;
  for (int i = 0; i <= steps; ++i) {
    const float ratio = float(i) / float(steps);
    c.push_back({ratio, false});
    c.push_back({ratio, true});
  }
  return c;
}

std::vector<float> scales_of(Candidate c, std::span<const float> mean_abs, std::span<const float> weight_mean) {
  std::vector<float> s(mean_abs.size(), 1.f);
  if (c.identity()) return s;
  for (size_t i = 0; i < s.size(); ++i) {
    s[i] = std::pow(mean_abs[i], c.ratio);
    if (c.weight_term) s[i] /= std::pow(weight_mean[i], 1 - c.ratio) + 1e-4f;
    s[i] = std::max(s[i], 1e-4f);
  }
  const auto [low, high] = std::minmax_element(s.begin(), s.end());
  const float middle = std::sqrt(*low) * std::sqrt(*high);
  for (float& v : s) v /= middle;
  return s;
}

std::vector<float> tied(std::span<const float> channels, int tied_heads, int head_dim) {
  std::vector<float> out(channels.size());
  const auto d = size_t(head_dim), span = d * size_t(tied_heads);
  for (size_t kv = 0; kv < channels.size(); kv += span)
    for (size_t i = 0; i < d; ++i) {
      float mean = 0;
      for (size_t h = 0; h < span; h += d) mean += channels[kv + h + i] / float(tied_heads);
      for (size_t h = 0; h < span; h += d) out[kv + h + i] = mean;
    }
  return out;
}

Tensor effective_weight(const Tensor& w, std::span<const float> s, const QuantSpec& spec) {
  Tensor out = Tensor::empty(w.shape(), DType::f32);
  const auto cols = size_t(w.shape()[1]);
  for (size_t r = 0; r < size_t(w.shape()[0]); ++r)
    round_scaled(w.as<float>().subspan(r * cols, cols), s, spec, out.as<float>().data() + r * cols);
  return out;
}

std::vector<double> gram_losses(const Host& host, std::span<const Tensor> weights, const Tensor& gram,
                                std::span<const std::vector<float>> scales, const QuantSpec& spec) {
  const Tensor triangle = doubled_triangle(gram);
  const auto n = size_t(gram.shape()[0]);
  std::vector<double> losses;
  for (const std::vector<float>& s : scales) {
    double loss = 0;
    for (const Tensor& w : weights)
      loss += total_form(host, w.shape()[0], triangle, [&](int64_t first, int64_t m, float* e) {
        for (size_t r = size_t(first); r < size_t(first + m); ++r, e += n) {
          const auto row = w.as<float>().subspan(r * n, n);
          round_scaled(row, s, spec, e);
          for (size_t c = 0; c < n; ++c) e[c] -= row[c];
        }
      });
    losses.push_back(loss);
  }
  return losses;
}

double gram_energy(const Host& host, const Tensor& w, const Tensor& gram) {
  return gram_loss(host, w, Tensor::zeros(w.shape(), DType::f32), gram);
}

double weight_error(const Tensor& w, const Tensor& rounded) {
  double error = 0, energy = 0;
  const auto a = w.as<float>(), b = rounded.as<float>();
  for (size_t i = 0; i < a.size(); ++i) {
    error += double(b[i] - a[i]) * double(b[i] - a[i]);
    energy += double(a[i]) * double(a[i]);
  }
  return energy > 0 ? error / energy : 0;
}

double gram_loss(const Host& host, const Tensor& w, const Tensor& rounded, const Tensor& gram) {
  const int64_t n = gram.shape()[0];
  return total_form(host, w.shape()[0], doubled_triangle(gram), [&](int64_t first, int64_t m, float* e) {
    for (int64_t i = 0; i < m * n; ++i)
      e[i] = rounded.as<float>()[size_t(first * n + i)] - w.as<float>()[size_t(first * n + i)];
  });
}

namespace {

Tensor diagonal_block(const Tensor& gram, int64_t group, int64_t g) {
  const int64_t n = gram.shape()[0];
  Tensor block = Tensor::zeros({g * g + kPanel}, DType::f32);  // a product reads whole panels of the last row
  for (int64_t i = 0; i < g; ++i)
    for (int64_t j = 0; j < g; ++j)
      block.as<float>()[size_t(i * g + j)] =
          gram.as<float>()[size_t((group * g + std::min(i, j)) * n + group * g + std::max(i, j))];
  return block;
}

// The ranges of all rows in one group of columns.
class GroupRanges {
 public:
  GroupRanges(const Host& host, const Tensor& w, int64_t group, const Tensor& gram, const QuantSpec& spec)
      : host_(host), w_(w), group_(group), spec_(spec), block_(diagonal_block(gram, group, spec.group_size)) {
    for (int64_t r = 0; r < w.shape()[0]; ++r) whole_.push_back(range_of(weights(r)));
    best_ = whole_;
    loss_.assign(whole_.size(), INFINITY);
    errors_.resize(whole_.size() * size_t(spec.group_size));
    product_.resize(errors_.size());
  }

  std::vector<Range> search(RangeSteps steps) {
    for (int i = 0; i < steps.both; ++i)
      try_all([&](size_t r) { return whole_[r].clipped(shrunk(i) * whole_[r].largest()); });
    for (int i = 1; i <= steps.each; ++i)
      try_all([&](size_t r) { return Range{shrunk(i) * whole_[r].low, best_[r].high}; });
    for (int i = 1; i <= steps.each; ++i)
      try_all([&](size_t r) { return Range{best_[r].low, shrunk(i) * whole_[r].high}; });
    return std::move(best_);
  }

 private:
  static float shrunk(int step) { return 1.f - 0.05f * float(step); }
  std::span<const float> weights(int64_t row) const {
    const int64_t g = spec_.group_size;
    return w_.as<float>().subspan(size_t(row * w_.shape()[1] + group_ * g), size_t(g));
  }

  template <class F>
  void try_all(const F& range_for) {
    const auto g = size_t(spec_.group_size);
    std::vector<Range> tried;
    for (size_t r = 0; r < whole_.size(); ++r) {
      tried.push_back(range_for(r));
      const auto in = weights(int64_t(r));
      round_to(in, grid_of(tried[r], spec_), spec_.levels(), &errors_[r * g]);
      for (size_t i = 0; i < g; ++i) errors_[r * g + i] -= in[i];
    }
    multiply();
    for (size_t r = 0; r < whole_.size(); ++r) {
      const double loss = dot(&errors_[r * g], &product_[r * g], spec_.group_size);
      if (!(loss < loss_[r])) continue;
      loss_[r] = loss;
      best_[r] = tried[r];
    }
  }

  void multiply() {
    const int64_t g = spec_.group_size;
    host_.kernels.gemm_f32({.a = errors_.data(),
                            .a_row = g,
                            .b = block_.as<float>().data(),
                            .b_panel = kPanel,
                            .b_k = g,
                            .c = product_.data(),
                            .c_row = g,
                            .m = int32_t(whole_.size()),
                            .n = int32_t(g),
                            .k = int32_t(g),
                            .accumulate = false});
  }

  const Host& host_;
  const Tensor& w_;
  int64_t group_;
  const QuantSpec& spec_;
  Tensor block_;
  std::vector<Range> whole_, best_;
  std::vector<double> loss_;
  std::vector<float> errors_, product_;
};

}  // namespace

std::vector<Range> best_ranges(const Host& host, const Tensor& w, const Tensor& gram, const QuantSpec& spec,
                               RangeSteps steps) {
  const int64_t rows = w.shape()[0], groups = w.shape()[1] / spec.group_size;
  std::vector<Range> ranges(size_t(rows * groups));
  host.pool.each(groups, [&](int64_t k) {
    const std::vector<Range> best = GroupRanges(host, w, k, gram, spec).search(steps);
    for (int64_t r = 0; r < rows; ++r) ranges[size_t(r * groups + k)] = best[size_t(r)];
  });
  return ranges;
}

}  // namespace awq
