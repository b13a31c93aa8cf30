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

double sum_of_products(const float* a, const float* b, int64_t n) {
  float lanes[kPanel] = {};
  for (int64_t c = 0; c < n; c += kPanel)
    for (int64_t i = 0; i < kPanel; ++i) lanes[i] += a[c + i] * b[c + i];
  return std::accumulate(lanes, lanes + kPanel, 0.0);
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
  Tensor before = Tensor::empty({m, w.cols}, DType::f32);  // not a vector: tensors take over freed pages
  const auto original = before.as<float>();
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
    Tensor rows_of_e = Tensor::empty({m, gram_.channels()}, DType::f32);
    float* e = rows_of_e.as<float>().data();
    errors(first, m, e);
    part[size_t(i)] = panels_ ? on_tiles(e, m) : in_floats(e, m);
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
  // Sum of e_c C_ck e_k over the columns c of some panels and k in [first, last).
  const auto part = [&](int64_t panel, int64_t count, int64_t first, int64_t last) {
    const int64_t width = count * kPanel;
    k.tiles_bf16(panels() + panel * n * kPanel, int32_t(width), rows.view, y.data(), width, 0, int32_t(count),
                 int32_t(first), int32_t(last));
    double sum = 0;
    for (int64_t r = 0; r < m; ++r) sum += sum_of_products(e + r * n + panel * kPanel, y.data() + r * width, width);
    return sum;
  };
  double sum = 0;
  for (int64_t p = 0; p < n / kPanel; p += kPanels) {  // below the blocks of the diagonal is what lies above them
    const int64_t block = p * kPanel / kernels::kTileColumns * kernels::kTileColumns,
                  end = std::min<int64_t>(block + kernels::kTileColumns, n), count = std::min(kPanels, n / kPanel - p);
    if (block) sum += 2 * part(p, count, 0, block);
    sum += part(p, count, block, end);
  }
  return sum;
}

}  // namespace awq
