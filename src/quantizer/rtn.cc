// Round to nearest: every group on the grid of its own range, no data.
#include "formats/params.h"
#include "quantizer/method.h"

namespace awq {
namespace {

class Rtn final : public Method {
 public:
  bool needs_calibration() const override { return false; }
  bool folds() const override { return false; }

  Solution solve(BlockWeights& w, const Block&, const BlockCalibration&, const SolveContext& c) const override {
    const Timed timed(c.costs.search);
    Solution s;
    for (Param p : w.spec.params()) {
      if (!is_rounded(p.role)) continue;
      const Rows rows = rows_of(w, p);
      const QMatrix& q = s.matrices[p] = quantize(pieces_of(rows), c.spec, c.host.pool);
      const double error = weight_error(c.host, rows, q);
      s.layers.push_back({.param = p, .error = error, .rounding_error = error, .ranges = {}});
    }
    return s;
  }
};

}  // namespace

std::unique_ptr<Method> make_rtn();
std::unique_ptr<Method> make_rtn() { return std::make_unique<Rtn>(); }

}  // namespace awq
