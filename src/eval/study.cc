#include "eval/study.h"

#include <algorithm>

#include "eval/embedded.h"
#include "io/temporary_folder.h"
#include "model/stream.h"
#include "quantizer/weigh.h"

namespace awq {
namespace {

/// A part's tokens, weighed, and the folder in which that lies.
struct Weighed {
  Weighed(const ModelSpec& spec, const HiddenStates& hidden)
      : at_once(weighed_at_once(spec, hidden.tokens, hidden.length)),
        weights(folder.path(), spec, hidden.tokens, at_once) {}
  TemporaryFolder folder;
  int64_t at_once;
  TokenWeights weights;
};

class StudyJob {
 public:
  explicit StudyJob(const StudyFlow& f)
      : f_(f), dev_(*f.device.backend), host_{f.device.pool, f.device.kernels}, outer_(load_outer(dev_, f.source)) {}

  std::vector<std::vector<WindowScore>> run() {
    for (const StudyPart& p : f_.parts) {
      changes_ += p.changes.size();
      calibrations_.push_back(embedded(dev_, outer_, joined(p.sequences), length(p)));
    }
    weigh_tokens();
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
  bool weighs(const StudyPart& p) const {
    return can_weigh(f_.source.spec()) &&
           std::ranges::any_of(p.changes, [](const auto& c) { return c->weighs_tokens(); });
  }

  void weigh_tokens() {
    const ModelSpec& spec = f_.source.spec();
    for (size_t i = 0; i < f_.parts.size(); ++i) {
      const HiddenStates hidden = in_memory(calibrations_[i], length(f_.parts[i]));
      weighed_.push_back(weighs(f_.parts[i]) ? std::make_unique<Weighed>(spec, hidden) : nullptr);
      if (weighed_[i]) weighing_ += weigh_steps(spec, hidden.tokens, weighed_[i]->at_once);
    }
    int before = 0;
    for (size_t i = 0; i < f_.parts.size(); ++i) {
      if (!weighed_[i]) continue;
      const HiddenStates hidden = in_memory(calibrations_[i], length(f_.parts[i]));
      weigh({.source = f_.source,
             .dev = dev_,
             .host = host_,
             .hidden = hidden,
             .folder = weighed_[i]->folder.path(),
             .at_once = weighed_[i]->at_once,
             .progress = [&](int done, int) { progress(before + done); },
             .finished = {}},
            weighed_[i]->weights, 0);
      before += weigh_steps(spec, hidden.tokens, weighed_[i]->at_once);
    }
  }

  void progress(int done) const {
    if (f_.progress) f_.progress(done, weighing_ + int(outer_.spec.blocks.size() * changes_));
  }

  /// Of part `i` at a block, with tokens that count alike, and with others where a change wants them.
  struct Seen {
    BlockCalibration alike, weighed;
  };
  Seen seen(size_t i, int b, const Block& original) {
    const StudyPart& p = f_.parts[i];
    HiddenStates states = in_memory(calibrations_[i], length(p));
    BlockCosts costs;
    Seen all;
    if (weighed_[i]) {
      HiddenStates read{states.tokens, states.length, states.read, {}, weighed_[i]->weights.of(b)};
      all.weighed = calibrate(dev_, host_, original, b, read, p.calibration, costs);
    }
    all.alike = calibrate(dev_, host_, original, b, states, p.calibration, costs);
    return all;
  }

  void block(int b) {
    const BlockWeights w = load_float_block(f_.source, b, host_.pool);
    const Block original = upload(dev_, w, DType::f32);
    run_sequences(dev_, original, f_.window, states_[0]);
    size_t done = 0;
    for (size_t i = 0; i < f_.parts.size(); ++i) {
      const Seen all = seen(i, b, original);
      for (const auto& change : f_.parts[i].changes) {
        progress(weighing_ + b * int(changes_) + int(done));
        const bool by_weight = weighed_[i] && change->weighs_tokens();
        const Block changed = change->changed({w, original, by_weight ? all.weighed : all.alike, dev_, host_});
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
  Model outer_;                                    // without blocks
  std::vector<Tensor> calibrations_;               // hidden states of each part's sequences
  std::vector<std::unique_ptr<Weighed>> weighed_;  // null where all tokens count alike
  int weighing_ = 0;                               // steps of it, of all parts
  size_t changes_ = 0;
  std::vector<Tensor> states_;  // of the float model, and of each change
};

}  // namespace

std::vector<std::vector<WindowScore>> study(const StudyFlow& flow) { return StudyJob(flow).run(); }

}  // namespace awq
