#include "quantizer/form.h"

#include <algorithm>
#include <numeric>

#include "base/numeric.h"
#include "model/cpu_tiles.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kFormRows = 48;       // of e, a job: eight register tiles of gemm
constexpr int64_t kFormTileRows = 128;  // the same on tiles
constexpr int64_t kPanels = 16;         // at once: their sums of 128 rows are 128 kB

using Vector = std::span<const float>;

// Sum of e (2 p - c e), eight sums side by side, which a compiler may vectorize as they stand. n is a multiple of 8.
double form(const float* e, const float* p, const float* c, int64_t n) {
  double sum[8] = {};
  for (int64_t i = 0; i < n; i += 8)
    for (int64_t lane = 0; lane < 8; ++lane) {
      const double v = e[i + lane];
      sum[lane] += v * (2 * double(p[i + lane]) - double(c[i + lane]) * v);
    }
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/// Rows [16 k, 16 k + 16) of columns [16 p, 16 p + 16) of the square, of which the Gram matrix has the upper triangle.
void square(const Gram& gram, int64_t k, int64_t p, uint16_t* to) {
  constexpr int64_t kTile = Gram::kTile, kEach = kTile / kPanel;
  if (k == p) {
    for (int64_t i = 0; i < kPanel * kPanel; ++i)
      to[i] = f32_to_bf16(gram.at(k * kPanel + i / kPanel, p * kPanel + i % kPanel));
    return;
  }
  const int64_t row = std::min(k, p), col = std::max(k, p);
  const float* from = gram.tile(col / kEach) + row * kPanel * kTile + col % kEach * kPanel;
  for (int64_t i = 0; i < kPanel; ++i)
    for (int64_t j = 0; j < kPanel; ++j)
      to[k < p ? i * kPanel + j : j * kPanel + i] = number_to_bf16(from[i * kTile + j]);
}

/// rounded - w, divided where there are divisors.
void errors_of(const Rows& w, const Rows& rounded, Vector divisors, int64_t first, int64_t m, float* e) {
  std::vector<float> original(size_t(m * w.cols));
  w.read(first, m, original.data());
  rounded.read(first, m, e);
  for (size_t i = 0; i < original.size(); ++i) e[i] -= original[i];
  if (divisors.empty()) return;
  for (int64_t r = 0; r < m; ++r)
    for (size_t c = 0; c < divisors.size(); ++c) e[size_t(r * w.cols) + c] /= divisors[c];
}

}  // namespace

QuadraticForm::QuadraticForm(const Host& host, const Gram& gram, Products products) : host_(host), gram_(gram) {
  const int64_t n = gram.channels();
  for (int64_t i = 0; i < n; ++i) diagonal_.push_back(gram.at(i, i));
  if (products == Products::exact || !has_tiles(host.kernels) || n % 32) return;
  panels_ = Tensor::empty({n / kPanel, n, kPanel}, DType::bf16);
  auto* to = reinterpret_cast<uint16_t*>(panels_.data());
  host.pool.each(n / kPanel, [&](int64_t p) {
    for (int64_t k = 0; k < n / kPanel; ++k) square(gram, k, p, to + (p * n + k * kPanel) * kPanel);
  });
}

double QuadraticForm::total(int64_t rows, const std::function<void(int64_t, int64_t, float*)>& errors) const {
  const int64_t step = panels_ ? kFormTileRows : kFormRows;
  std::vector<double> part(size_t((rows + step - 1) / step));
  host_.pool.each(int64_t(part.size()), [&](int64_t i) {
    const int64_t first = i * step, m = std::min(step, rows - first);
    std::vector<float> e(size_t(m * gram_.channels()));
    errors(first, m, e.data());
    part[size_t(i)] = panels_ ? on_tiles(e.data(), m) : in_floats(e.data(), m);
  });
  return std::accumulate(part.begin(), part.end(), 0.0);
}

double QuadraticForm::loss(const Rows& w, const Rows& rounded, Vector divisors) const {
  return total(w.rows, [&](int64_t first, int64_t m, float* e) { errors_of(w, rounded, divisors, first, m, e); });
}

double QuadraticForm::energy(const Rows& w, Vector divisors) const {
  return loss(zero_rows(w.rows, w.cols), w, divisors);
}

// With p_j the sum over k <= j of e_k C_kj, that is the sum over j of e_j (2 p_j - C_jj e_j).
double QuadraticForm::in_floats(const float* e, int64_t m) const {
  const int64_t n = gram_.channels();
  float product[kFormRows * Gram::kTile];
  double sum = 0;
  for (int64_t t = 0; t < gram_.tiles(); ++t) {
    const int64_t first = t * Gram::kTile, width = gram_.width(t);
    host_.kernels.gemm_f32({.a = e,
                            .a_row = n,
                            .b = gram_.tile(t),
                            .b_panel = kPanel,
                            .b_k = Gram::kTile,
                            .c = product,
                            .c_row = width,
                            .m = int32_t(m),
                            .n = int32_t(width),
                            .k = int32_t(gram_.rows(t)),
                            .accumulate = false});
    for (int64_t r = 0; r < m; ++r)
      sum += form(e + r * n + first, product + r * width, diagonal_.data() + first, width);
  }
  return sum;
}

double QuadraticForm::on_tiles(const float* e, int64_t m) const {
  const kernels::KernelSet& k = host_.kernels;
  const int64_t n = gram_.channels();
  const TileRows rows(k, e, m, n);
  rows.prepare(0, int32_t(m));
  std::vector<float> y(size_t(m * kPanels * kPanel));
  double sum = 0;
  for (int64_t p = 0; p < n / kPanel; p += kPanels) {
    const int64_t count = std::min(kPanels, n / kPanel - p), width = count * kPanel;
    k.tiles_bf16(panels() + p * n * kPanel, int32_t(width), rows.view, y.data(), width, 0, int32_t(count));
    for (int64_t r = 0; r < m; ++r) {
      float lanes[kPanel] = {};
      for (int64_t c = 0; c < width; c += kPanel)
        for (int64_t i = 0; i < kPanel; ++i) lanes[i] += e[r * n + p * kPanel + c + i] * y[size_t(r * width + c + i)];
      sum += std::accumulate(lanes, lanes + kPanel, 0.0);
    }
  }
  return sum;
}

}  // namespace awq
