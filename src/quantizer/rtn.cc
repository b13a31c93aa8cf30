// Round to nearest: every group on the grid of its own range, no data.
#include <numeric>

#include "quantizer/method.h"

namespace awq {
namespace {

constexpr int64_t kRtnRows = 64;  // a job; sums are added in this order

double relative_error(const Host& host, const Rows& w, const QMatrix& q) {
  std::vector<double> error(size_t((w.rows + kRtnRows - 1) / kRtnRows)), energy(error.size());
  host.pool.each(int64_t(error.size()), [&](int64_t i) {
    const int64_t first = i * kRtnRows, m = std::min(kRtnRows, w.rows - first);
    std::vector<float> a(size_t(m * w.cols)), b(a.size());
    w.read(first, m, a.data());
    dequantize(q, first, m, b.data());
    for (size_t k = 0; k < a.size(); ++k) {
      error[size_t(i)] += double(b[k] - a[k]) * double(b[k] - a[k]);
      energy[size_t(i)] += double(a[k]) * double(a[k]);
    }
  });
  const double all = std::accumulate(energy.begin(), energy.end(), 0.0);
  return all > 0 ? std::accumulate(error.begin(), error.end(), 0.0) / all : 0;
}

class Rtn final : public Method {
 public:
  bool needs_calibration() const override { return false; }

  Solution solve(BlockWeights& w, const Block&, const BlockCalibration&, const SolveContext& c) const override {
    const Timed timed(c.costs.search);
    Solution s;
    for (Param p : w.spec.params()) {
      if (is_norm(p.role)) continue;
      const Rows rows = rows_of(w, p);
      const QMatrix& q = s.matrices[p] = quantize(pieces_of(rows), c.spec, c.host.pool);
      const double error = relative_error(c.host, rows, q);
      s.layers.push_back({.param = p, .error = error, .rounding_error = error, .ranges = {}});
    }
    return s;
  }
};

}  // namespace

std::unique_ptr<Method> make_rtn();
std::unique_ptr<Method> make_rtn() { return std::make_unique<Rtn>(); }

}  // namespace awq
