#include "eval/study.h"

#include "eval/embedded.h"

namespace awq {
namespace {

class StudyJob {
 public:
  explicit StudyJob(const StudyFlow& f)
      : f_(f), dev_(*f.device.backend), host_{f.device.pool, f.device.kernels}, outer_(load_outer(dev_, f.source)) {}

  std::vector<std::vector<WindowScore>> run() {
    states_.assign(f_.changes.size() + 1, embedded(dev_, outer_, f_.windows, f_.window));
    for (Tensor& x : states_) x = x.clone();
    calibration_ = embedded(dev_, outer_, joined(f_.sequences), int(f_.sequences.front().size()));
    for (int b = 0; b < int(outer_.spec.blocks.size()); ++b) block(b);
    for (Tensor& x : states_) final_norm_forward(dev_, outer_, x);
    std::vector<std::vector<WindowScore>> all;
    for (const Tensor& x : states_) all.push_back(scores(x));
    return all;
  }

 private:
  void block(int b) {
    const BlockWeights w = load_float_block(f_.source, b, host_.pool);
    const Block original = upload(dev_, w, DType::f32);
    BlockCosts costs;
    const BlockCalibration seen = calibrate(
        dev_, host_, original, b, in_memory(calibration_, int(f_.sequences.front().size())), f_.calibration, costs);
    run_sequences(dev_, original, f_.window, states_[0]);
    for (size_t i = 0; i < f_.changes.size(); ++i) {
      if (f_.progress)
        f_.progress(b * int(f_.changes.size()) + int(i), int(outer_.spec.blocks.size() * f_.changes.size()));
      const Block changed = f_.changes[i]->changed({w, original, seen, dev_, host_});
      run_sequences(dev_, changed, f_.window, states_[i + 1]);
    }
  }

  std::vector<WindowScore> scores(const Tensor& x) const {
    const Scorer scorer(f_.device.pool, f_.device.kernels, dev_, outer_, DType::f32);
    std::vector<WindowScore> all;
    for (int64_t t = 0; t < x.shape()[0]; t += f_.window) {
      const Tensor reference = states_[0].rows(t, t + f_.window - 1);
      all.push_back(scorer.score(f_.windows.subspan(size_t(t), size_t(f_.window)), x.rows(t, t + f_.window - 1),
                                 &outer_, &reference));
    }
    return all;
  }

  const StudyFlow& f_;
  Backend& dev_;
  Host host_;
  Model outer_;  // without blocks
  Tensor calibration_;
  std::vector<Tensor> states_;  // of the float model, and of each change
};

}  // namespace

std::vector<std::vector<WindowScore>> study(const StudyFlow& flow) { return StudyJob(flow).run(); }

}  // namespace awq
