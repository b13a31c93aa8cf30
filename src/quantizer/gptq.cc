// GPTQ with activation order on static groups: a group's grid is that of its columns in the file's order, so the file
// needs no permutation.
#include "quantizer/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quantizer/method.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kTile = Gram::kTile;
constexpr int64_t kRoundedRows = 48;  // rows of a matrix at once

void gemm(const kernels::KernelSet& k, const float* a, int64_t a_row, const float* b, float* c, int64_t m, int64_t n,
          int64_t depth) {
  if (depth <= 0) return;
  k.gemm_f32({.a = a,
              .a_row = a_row,
              .b = b,
              .b_panel = kPanel,
              .b_k = kTile,
              .c = c,
              .c_row = kTile,
              .m = int32_t(m),
              .n = int32_t(n),
              .k = int32_t(depth),
              .accumulate = true});
}

/// The block [n][kTile] on the diagonal, in double within a column.
void factor_block(float* d, int64_t n) {
  for (int64_t j = n - 1; j >= 0; --j)
    for (int64_t i = j; i >= 0; --i) {
      double sum = double(d[i * kTile + j]);
      for (int64_t k = j + 1; k < n; ++k) sum -= double(d[i * kTile + k]) * double(d[j * kTile + k]);
      if (i == j && !(sum > 0))
        fail("quantize", "the inputs' Gram matrix is not positive; the activations are damaged");
      d[i * kTile + j] = float(i == j ? std::sqrt(sum) : sum / double(d[j * kTile + j]));
    }
}

/// x [kTile] becomes x D^-T, D the block's factor.
void solve_row(const float* d, int64_t n, float* x) {
  for (int64_t j = n - 1; j >= 0; --j) {
    double sum = double(x[j]);
    for (int64_t k = j + 1; k < n; ++k) sum -= double(x[k]) * double(d[j * kTile + k]);
    x[j] = float(sum / double(d[j * kTile + j]));
  }
}

}  // namespace

void factor_upper(const Host& host, Gram& c) {
  for (int64_t last = c.tiles() - 1; last >= 0; --last) {
    float* panel = c.tile(last);
    const int64_t above = last * kTile, n = c.width(last);
    factor_block(panel + above * kTile, n);
    host.pool.run(above, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) solve_row(panel + above * kTile, n, panel + r * kTile);
    });
    host.pool.each(last, [&](int64_t i) {
      const int64_t t = last - 1 - i;  // the largest first
      std::vector<float> minus(size_t(kTile * kTile + kPanel));
      for (int64_t r = 0; r < kTile; ++r)
        for (int64_t k = 0; k < n; ++k) minus[size_t(k * kTile + r)] = -panel[(t * kTile + r) * kTile + k];
      gemm(host.kernels, panel, kTile, minus.data(), c.tile(t), c.rows(t), kTile, n);
    });
  }
}

Compensation::Compensation(const Host& host, const Gram& gram, std::span<const float> divisors, float damping)
    : order_(size_t(gram.channels())), factor_(gram.channels()) {
  const auto divisor = [&](int64_t c) { return divisors.empty() ? 1.f : divisors[size_t(c)]; };
  const auto at = [&](int64_t i, int64_t j) { return gram.at(i, j) / (divisor(i) * divisor(j)); };
  double sum = 0;
  for (int64_t c = 0; c < gram.channels(); ++c) sum += double(at(c, c));
  // Where no input was ever other than zero, any codes do.
  const float more = sum > 0 ? float(double(damping) * sum / double(gram.channels())) : 1;
  std::iota(order_.begin(), order_.end(), int64_t(0));
  std::ranges::stable_sort(order_, [&](int64_t a, int64_t b) { return at(a, a) > at(b, b); });
  host.pool.each(factor_.tiles(), [&](int64_t t) {
    for (int64_t i = 0; i < factor_.rows(t); ++i)
      for (int64_t j = std::max(i, t * kTile); j < t * kTile + factor_.width(t); ++j)
        factor_.tile(t)[i * kTile + j % kTile] = at(order_[size_t(i)], order_[size_t(j)]) + (i == j ? more : 0);
  });
  factor_upper(host, factor_);
}

void Compensation::round(const Host& host, const Rows& w, QMatrix& q) const {
  const int64_t n = w.cols, group = q.spec.group_size;
  host.pool.each((w.rows + kRoundedRows - 1) / kRoundedRows, [&](int64_t band) {
    const int64_t first = band * kRoundedRows, m = std::min(kRoundedRows, w.rows - first);
    Tensor weights = Tensor::empty({m, n}, DType::f32), errors_of = Tensor::empty({m, n}, DType::f32);
    const auto in = weights.as<float>(), errors = errors_of.as<float>();
    std::vector<float> sums(size_t(kRoundedRows * kTile));
    w.read(first, m, in.data());
    for (int64_t t = 0; t < factor_.tiles(); ++t) {
      const float *tile = factor_.tile(t), *block = tile + t * kTile * kTile;
      std::ranges::fill(sums, 0.f);
      gemm(host.kernels, errors.data(), n, tile, sums.data(), m, factor_.width(t), t * kTile);
      for (int64_t r = 0; r < m; ++r)
        for (int64_t j = 0; j < factor_.width(t); ++j) {
          float* row = errors.data() + r * n + t * kTile;
          float sum = sums[size_t(r * kTile + j)];
          for (int64_t i = 0; i < j; ++i) sum += row[i] * block[i * kTile + j];
          const int64_t column = order_[size_t(t * kTile + j)], at = (first + r) * n + column;
          const float weight = in[size_t(r * n + column)], target = weight + sum / block[j * kTile + j];
          const Grid grid{q.scales.as<float>()[size_t(at / group)], q.zeros.as<uint8_t>()[size_t(at / group)]};
          uint8_t& code = q.codes.as<uint8_t>()[size_t(at)];
          encode({&target, 1}, grid, q.spec.levels(), &code);
          row[j] = weight - float(int(code) - grid.zero) * grid.scale;
        }
    }
  });
}

namespace {

constexpr float kDamping = 0.01f;

class Gptq final : public Method {
 public:
  bool needs_calibration() const override { return true; }
  bool folds() const override { return false; }
  int64_t extra_bytes(int64_t cols) const override { return Compensation::bytes_for(cols); }

  Solution solve(BlockWeights& w, const Block&, const BlockCalibration& calibration,
                 const SolveContext& c) const override {
    Solution s;
    for (const ScaleGroup& g : scale_groups(w.spec)) {
      const Timed timed(c.costs.clip);
      if (c.progress) c.progress();
      const Gram& gram = calibration.sites.at(g.consumers.front()).gram;
      c.costs.clip.operations += Compensation::operations(gram.channels());
      const Compensation compensation(c.host, gram, {}, kDamping);
      const QuadraticForm form(c.host, gram);
      for (Param p : g.consumers) round(p, rows_of(w, p), form, compensation, c, s);
    }
    return s;
  }

 private:
  static void round(Param p, const Rows& w, const QuadraticForm& form, const Compensation& compensation,
                    const SolveContext& c, Solution& s) {
    c.costs.clip.operations += 4 * QuadraticForm::operations(w);
    const double energy = form.energy(w);
    const auto relative = [&](const QMatrix& q) { return energy > 0 ? form.loss(w, rows_of(q)) / energy : 0; };
    QMatrix q = quantize(pieces_of(w), c.spec, c.host.pool);
    LayerResult layer{.param = p, .rounding_error = relative(q), .ranges = {}};
    QMatrix better = quantize(pieces_of(w), c.spec, c.host.pool);
    compensation.round(c.host, w, better);
    layer.error = relative(better);
    if (layer.error < layer.rounding_error)
      q = std::move(better);
    else
      layer.error = layer.rounding_error;
    s.layers.push_back(std::move(layer));
    s.matrices[p] = std::move(q);
  }
};

}  // namespace

std::unique_ptr<Method> make_gptq();
std::unique_ptr<Method> make_gptq() { return std::make_unique<Gptq>(); }

}  // namespace awq
