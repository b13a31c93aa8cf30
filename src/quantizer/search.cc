#include "quantizer/search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kRows = 48;     // rows of a matrix a job: eight register tiles of gemm
constexpr int64_t kColumns = 64;  // of the triangle, a product: half of the work below the diagonal is skipped

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
    for (int64_t r = 0; r < m; ++r)
      for (int64_t c = 0; c < width; ++c) sum += double(product[r * width + c]) * double(e[r * n + j + c]);
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

double gram_loss(const Host& host, const Tensor& w, const Tensor& rounded, const Tensor& gram) {
  const int64_t n = gram.shape()[0];
  return total_form(host, w.shape()[0], doubled_triangle(gram), [&](int64_t first, int64_t m, float* e) {
    for (int64_t i = 0; i < m * n; ++i)
      e[i] = rounded.as<float>()[size_t(first * n + i)] - w.as<float>()[size_t(first * n + i)];
  });
}

namespace {

// Errors of `rows` rows in one group for one clip ratio, and each row's e C e^T into loss.
void clip_losses(const Host& host, const Tensor& w, int64_t row, int64_t rows, int64_t group, float ratio,
                 const Tensor& block, const QuantSpec& spec, float* loss) {
  const int64_t g = spec.group_size, cols = w.shape()[1];
  std::vector<float> e(size_t(rows * g)), product(size_t(rows * g));
  for (int64_t r = 0; r < rows; ++r) {
    const auto in = w.as<float>().subspan(size_t((row + r) * cols + group * g), size_t(g));
    const Range range = range_of(in);
    const Grid grid = grid_of(range.clipped(ratio * std::max(-range.low, range.high)), spec);
    round_to(in, grid, spec.levels(), &e[size_t(r * g)]);
    for (int64_t i = 0; i < g; ++i) e[size_t(r * g + i)] -= in[size_t(i)];
  }
  host.kernels.gemm_f32({.a = e.data(),
                         .a_row = g,
                         .b = block.as<float>().data(),
                         .b_panel = kPanel,
                         .b_k = g,
                         .c = product.data(),
                         .c_row = g,
                         .m = int32_t(rows),
                         .n = int32_t(g),
                         .k = int32_t(g),
                         .accumulate = false});
  for (int64_t r = 0; r < rows; ++r)
    loss[r] = std::inner_product(&e[size_t(r * g)], &e[size_t(r * g)] + g, &product[size_t(r * g)], 0.f);
}

Tensor diagonal_block(const Tensor& gram, int64_t group, int64_t g) {
  const int64_t n = gram.shape()[0];
  Tensor block = Tensor::empty({g, g}, DType::f32);
  for (int64_t i = 0; i < g; ++i)
    for (int64_t j = 0; j < g; ++j)
      block.as<float>()[size_t(i * g + j)] =
          gram.as<float>()[size_t((group * g + std::min(i, j)) * n + group * g + std::max(i, j))];
  return block;
}

}  // namespace

Tensor best_clip(const Host& host, const Tensor& w, const Tensor& gram, const QuantSpec& spec, int steps) {
  const int64_t g = spec.group_size, rows = w.shape()[0], groups = w.shape()[1] / g;
  Tensor bound = Tensor::empty({rows, groups}, DType::f32);
  host.pool.each(groups, [&](int64_t k) {
    const Tensor block = diagonal_block(gram, k, g);
    std::vector<float> best(size_t(rows), INFINITY), loss(size_t(rows), 0.f), chosen(size_t(rows), 1.f);
    for (int step = 0; step < steps; ++step) {
      const float ratio = 1.f - 0.05f * float(step);
      clip_losses(host, w, 0, rows, k, ratio, block, spec, loss.data());
      for (size_t r = 0; r < size_t(rows); ++r)
        if (loss[r] < best[r]) {
          best[r] = loss[r];
          chosen[r] = ratio;
        }
    }
    for (int64_t r = 0; r < rows; ++r) {
      const Range range = range_of(w.as<float>().subspan(size_t(r * w.shape()[1] + k * g), size_t(g)));
      bound.as<float>()[size_t(r * groups + k)] = chosen[size_t(r)] * std::max(-range.low, range.high);
    }
  });
  return bound;
}

}  // namespace awq
