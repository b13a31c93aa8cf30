#include "engine/continuation.h"

#include <algorithm>

#include "engine/sampler.h"

namespace awq {
namespace {

/// A text at work. `history` is its prompt and what came after, past its end too.
struct Writing {
  std::unique_ptr<KvCache> kv;
  Sampler sampler;
  std::vector<int32_t> history;
  size_t prompt = 0;
  Continuation result{};
};

class WritingJob {
 public:
  WritingJob(Device& device, const Model& model, const TextSide& text, const ContinuationOptions& o)
      : dev_(*device.backend), model_(model), text_(text), o_(o) {}

  void begin(const std::vector<int32_t>& prompt, DType kv) {
    const SamplerOptions sampling{.temperature = o_.temperature, .seed = o_.seed + all_.size()};
    all_.push_back({dev_.kv_cache(model_.spec.blocks, kv), Sampler(sampling), prompt, prompt.size()});
    const Tensor logits = prefill(dev_, model_, *all_.back().kv, 0, prompt);
    append(all_.back(), logits.as<float>());
  }

  bool going() const {
    return std::ranges::any_of(all_, [&](const Writing& w) { return !finished(w); });
  }

  void step() {
    std::vector<Sequence> batch;
    std::vector<int32_t> last;
    for (Writing& w : all_) {
      batch.push_back({w.kv.get(), int(w.history.size()) - 1, 1});
      last.push_back(w.history.back());
    }
    const Tensor logits = step_logits(dev_, model_, last, batch);
    const auto vocab = size_t(logits.shape()[1]);
    for (size_t i = 0; i < all_.size(); ++i) append(all_[i], logits.as<float>().subspan(i * vocab, vocab));
  }

  std::vector<Continuation> results() {
    std::vector<Continuation> r;
    for (Writing& w : all_) r.push_back(std::move(w.result));
    return r;
  }

 private:
  bool finished(const Writing& w) const { return w.result.ended || int(w.result.tokens.size()) >= o_.tokens; }

  void append(Writing& w, std::span<const float> row) {
    std::vector<float> logits(row.begin(), row.end());
    const int32_t token = w.sampler.sample(logits, w.history, w.prompt);
    w.history.push_back(token);
    if (finished(w)) return;
    w.result.tokens.push_back(token);
    w.result.ended = text_.ends(token);
  }

  Backend& dev_;
  const Model& model_;
  const TextSide& text_;
  const ContinuationOptions& o_;
  std::vector<Writing> all_;
};

}  // namespace

std::vector<Continuation> continuations(Device& device, const Model& model, const TextSide& text,
                                        std::span<const std::vector<int32_t>> prompts, const ContinuationOptions& o,
                                        DType kv, const std::function<void(int)>& progress) {
  WritingJob job(device, model, text, o);
  for (const auto& p : prompts) job.begin(p, kv);
  for (int done = 1; job.going(); ++done) {
    if (progress) progress(done);
    job.step();
  }
  return job.results();
}

}  // namespace awq
