// Round to nearest: every group on the grid of its own range, no data.
#include "quantizer/method.h"

namespace awq {
namespace {

class Rtn final : public Method {
 public:
  bool needs_calibration() const override { return false; }

  Solution solve(BlockWeights& w, const Block&, const BlockCalibration&, const QuantSpec& spec, Backend&,
                 const Host& host) const override {
    std::vector<Param> matrices;
    for (Param p : w.spec.params())
      if (!is_norm(p.role)) matrices.push_back(p);
    Solution s;
    s.layers.resize(matrices.size());
    for (Param p : matrices) s.matrices[p];  // the map's shape is fixed before threads fill it
    host.pool.each(int64_t(matrices.size()), [&](int64_t i) {
      const Param p = matrices[size_t(i)];
      QMatrix q = quantize(w.tensor(p), spec);
      const double error = weight_error(w.tensor(p), dequantize(q));
      s.layers[size_t(i)] = {.param = p, .error = error, .rounding_error = error};
      s.matrices.at(p) = std::move(q);
    });
    return s;
  }
};

}  // namespace

std::unique_ptr<Method> make_rtn();
std::unique_ptr<Method> make_rtn() { return std::make_unique<Rtn>(); }

}  // namespace awq
