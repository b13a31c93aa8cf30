#include "engine/self_calibration.h"

#include "engine/sampler.h"

namespace awq {
namespace {

/// One sequence being written. Position i is fed to the model in step i, whether it came from an opening or a sample.
struct Writer {
  std::vector<int32_t> tokens;
  size_t next_opening, step;
  Sampler sampler;

  void append(std::span<const std::vector<int32_t>> openings) {
    const auto& o = openings[next_opening % openings.size()];
    tokens.insert(tokens.end(), o.begin(), o.end());
    next_opening += step;
  }
};

std::vector<Writer> writers(std::span<const std::vector<int32_t>> openings, int first, int count,
                            const SelfCalibrationOptions& o) {
  std::vector<Writer> w;
  for (int i = first; i < first + count; ++i) {
    w.push_back({{},
                 size_t(i),
                 size_t(o.sequences),
                 Sampler({.temperature = o.temperature, .seed = o.seed * 1000003 + uint64_t(i)})});
    w.back().append(openings);
  }
  return w;
}

class Batcher {
 public:
  Batcher(Device& device, const Model& model, std::vector<Writer>& writers)
      : device_(device), model_(model), writers_(writers) {
    for (size_t i = 0; i < writers.size(); ++i) {
      caches_.push_back(device.backend->kv_cache(model.spec.blocks, DType::f16));
      batch_.push_back({caches_.back().get(), 0, 1});
    }
  }

  /// Feeds position `at` of every sequence and lets those sample that know no further token.
  void step(int at, std::span<const std::vector<int32_t>> openings, const TextSide& text) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < writers_.size(); ++i) {
      tokens.push_back(writers_[i].tokens[size_t(at)]);
      batch_[i].first = at;
    }
    Tensor logits = head_logits(*device_.backend, model_, hidden_forward(*device_.backend, model_, tokens, batch_));
    const int64_t vocab = logits.shape()[1];
    device_.pool.each(int64_t(writers_.size()), [&](int64_t i) {
      Writer& w = writers_[size_t(i)];
      if (w.tokens.size() > size_t(at) + 1) return;
      w.tokens.push_back(w.sampler.sample(logits.as<float>().subspan(size_t(i * vocab), size_t(vocab)), w.tokens, 0));
      if (text.ends(w.tokens.back())) w.append(openings);
    });
  }

 private:
  Device& device_;
  const Model& model_;
  std::vector<Writer>& writers_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  std::vector<Sequence> batch_;
};

}  // namespace

std::vector<std::vector<int32_t>> write_calibration(Device& device, const Model& model, const TextSide& text,
                                                    std::span<const std::vector<int32_t>> openings,
                                                    const SelfCalibrationOptions& options,
                                                    const std::function<void(int64_t, int64_t)>& progress) {
  std::vector<std::vector<int32_t>> result;
  for (int first = 0; first < options.sequences; first += options.batch) {
    std::vector<Writer> group = writers(openings, first, std::min(options.batch, options.sequences - first), options);
    Batcher batcher(device, model, group);
    for (int at = 0; at + 1 < options.length; ++at) {
      batcher.step(at, openings, text);
      if (progress)
        progress(int64_t(first) * options.length + int64_t(group.size()) * (at + 1),
                 int64_t(options.sequences) * options.length);
    }
    for (Writer& w : group) {
      w.tokens.resize(size_t(options.length));
      result.push_back(std::move(w.tokens));
    }
  }
  return result;
}

}  // namespace awq
