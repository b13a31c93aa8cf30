#include "engine/greedy.h"

#include <algorithm>

namespace awq {

int32_t likeliest(std::span<const float> logits) { return int32_t(std::ranges::max_element(logits) - logits.begin()); }

// An answer that has ended is decoded on and cut off afterwards: the others' arithmetic does not depend on it.
std::vector<std::vector<int32_t>> greedy_answers(Device& device, const Model& model, const TextSide& text,
                                                 std::span<const std::vector<int32_t>> prompts, int tokens,
                                                 const std::function<void(int)>& progress) {
  Backend& dev = *device.backend;
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Sequence> batch;
  std::vector<std::vector<int32_t>> answers;
  for (const auto& p : prompts) {
    caches.push_back(dev.kv_cache(model.spec.blocks, kCacheType));
    batch.push_back({caches.back().get(), int(p.size()), 1});
    answers.push_back({likeliest(prefill(dev, model, *caches.back(), 0, p).as<float>())});
  }
  for (int step = 1; step < tokens; ++step) {
    if (progress) progress(step);
    std::vector<int32_t> last;
    for (const auto& a : answers) last.push_back(a.back());
    const Tensor logits = head_logits(dev, model, hidden_forward(dev, model, last, batch));
    const auto vocab = size_t(logits.shape()[1]);
    for (size_t i = 0; i < answers.size(); ++i) {
      answers[i].push_back(likeliest(logits.as<float>().subspan(i * vocab, vocab)));
      ++batch[i].first;
    }
  }
  for (auto& a : answers) a.erase(std::ranges::find_if(a, [&](int32_t t) { return text.ends(t); }), a.end());
  return answers;
}

}  // namespace awq
