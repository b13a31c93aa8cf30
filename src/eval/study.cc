#include "eval/study.h"

#include "eval/embedded.h"
#include "model/stream.h"

namespace awq {
namespace {

class StudyJob {
 public:
  explicit StudyJob(const StudyFlow& f)
      : f_(f), dev_(*f.device.backend), host_{f.device.pool, f.device.kernels}, outer_(load_outer(dev_, f.source)) {}

  std::vector<std::vector<WindowScore>> run() {
    for (const StudyPart& p : f_.parts) {
      changes_ += p.changes.size();
      calibrations_.push_back(embedded(dev_, outer_, joined(p.sequences), length(p)));
    }
    states_.assign(changes_ + 1, embedded(dev_, outer_, f_.windows, f_.window));
    for (Tensor& x : states_) x = x.clone();
    for (int b = 0; b < int(outer_.spec.blocks.size()); ++b) block(b);
    for (Tensor& x : states_) final_norm_forward(dev_, outer_, x = hidden_of(x, outer_.spec.dim));
    std::vector<std::vector<WindowScore>> all;
    for (const Tensor& x : states_) all.push_back(scores(x));
    return all;
  }

 private:
  static int length(const StudyPart& p) { return int(p.sequences.front().size()); }

  void block(int b) {
    const BlockWeights w = load_float_block(f_.source, b, host_.pool);
    const Block original = upload(dev_, w, DType::f32);
    run_sequences(dev_, original, f_.window, states_[0]);
    size_t done = 0;
    for (size_t i = 0; i < f_.parts.size(); ++i) {
      BlockCosts costs;
      const BlockCalibration seen = calibrate(
          dev_, host_, original, b, in_memory(calibrations_[i], length(f_.parts[i])), f_.parts[i].calibration, costs);
      for (const auto& change : f_.parts[i].changes) {
        if (f_.progress) f_.progress(b * int(changes_) + int(done), int(outer_.spec.blocks.size() * changes_));
        const Block changed = change->changed({w, original, seen, dev_, host_});
        run_sequences(dev_, changed, f_.window, states_[++done]);
      }
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
  Model outer_;                       // without blocks
  std::vector<Tensor> calibrations_;  // hidden states of each part's sequences
  size_t changes_ = 0;
  std::vector<Tensor> states_;  // of the float model, and of each change
};

}  // namespace

std::vector<std::vector<WindowScore>> study(const StudyFlow& flow) { return StudyJob(flow).run(); }

}  // namespace awq
