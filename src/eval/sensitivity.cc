#include "eval/sensitivity.h"

#include "eval/divergence.h"
#include "eval/embedded.h"
#include "model/stream.h"

namespace awq {
namespace {

class Job {
 public:
  explicit Job(const SensitivityFlow& f)
      : f_(f),
        dev_(*f.device.backend),
        host_{f.device.pool, f.device.kernels},
        scorer_(f.device.pool, f.device.kernels, dev_, f.model, DType::f32) {}

  std::vector<MatrixSensitivity> run() {
    const int blocks = int(f_.model.blocks.size());
    Tensor x = embedded(dev_, f_.model, f_.windows, f_.window), calibration;
    if (f_.method.needs_calibration())
      calibration = embedded(dev_, f_.model, joined(f_.sequences), int(f_.sequences.front().size()));
    const Tensor last = finished(x.clone(), 0);
    for (int64_t t = 0; t < last.shape()[0]; t += f_.window)
      original_.push_back(head_logits(dev_, f_.model, last.rows(t, t + f_.window - 1)));
    std::vector<MatrixSensitivity> all;
    for (int b = 0; b < blocks; ++b) {
      if (f_.progress) f_.progress(b, blocks);
      block(b, x, calibration, all);
      run_sequences(dev_, f_.model.blocks[size_t(b)], f_.window, x);
    }
    return all;
  }

 private:
  /// The last hidden states, normalised, from those before block `from`.
  Tensor finished(Tensor x, int from) const {
    for (size_t b = size_t(from); b < f_.model.blocks.size(); ++b)
      run_sequences(dev_, f_.model.blocks[b], f_.window, x);
    final_norm_forward(dev_, f_.model, x = hidden_of(x, f_.model.spec.dim));
    return x;
  }

  void block(int b, const Tensor& x, Tensor& calibration, std::vector<MatrixSensitivity>& all) {
    BlockWeights w = load_float_block(f_.source, b, host_.pool);
    const Block original = upload(dev_, w);
    BlockCalibration statistics;
    BlockCosts costs;
    if (calibration)
      statistics = calibrate(dev_, host_, original, b, in_memory(calibration, int(f_.sequences.front().size())),
                             f_.calibration, costs);
    const Solution solution = f_.method.solve(w, original, statistics, {f_.spec, dev_, host_, costs, {}});
    const Block folded = upload(dev_, w);  // what the matrices were rounded from
    for (Param p : w.spec.params())
      if (const auto q = solution.matrices.find(p); q != solution.matrices.end())
        all.push_back({b, p, measured(alone(folded, p, q->second, w), b, x)});
  }

  Block alone(Block block, Param p, const QMatrix& q, const BlockWeights& w) const {
    const auto bias = w.bias.find(p);
    block.linear[p] = dev_.linear(dequantize(q), bias == w.bias.end() ? nullptr : &bias->second);
    return block;
  }

  std::vector<double> measured(const Block& block, int b, const Tensor& x) const {
    Tensor y = x.clone();
    run_sequences(dev_, block, f_.window, y);
    y = finished(std::move(y), b + 1);
    std::vector<double> kl;
    for (int64_t t = 0; t < y.shape()[0]; t += f_.window) {
      const auto window = f_.windows.subspan(size_t(t), size_t(f_.window));
      kl.push_back(scorer_.score(window, y.rows(t, t + f_.window - 1), original_[size_t(t / f_.window)]).kl);
    }
    return kl;
  }

  const SensitivityFlow& f_;
  Backend& dev_;
  Host host_;
  Scorer scorer_;
  std::vector<Tensor> original_;  // logits of each window, [window - 1, vocab]
};

}  // namespace

std::vector<MatrixSensitivity> sensitivities(const SensitivityFlow& flow) { return Job(flow).run(); }

}  // namespace awq
