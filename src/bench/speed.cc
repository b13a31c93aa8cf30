#include "bench/speed.h"

#include <chrono>
#include <random>

namespace awq {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::vector<int32_t> random_tokens(int vocab, size_t n, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& t : tokens) t = int32_t(rng() % uint64_t(vocab));
  return tokens;
}

double prefill_seconds(Backend& dev, const Model& m, KvCache& kv, std::span<const int32_t> prompt,
                       const std::function<void(int)>& on_chunk) {
  return seconds_of([&] { prefill(dev, m, kv, 0, prompt, on_chunk); });
}

std::vector<double> decode_seconds(Backend& dev, const Model& m, const Caches& caches, int first, int steps,
                                   uint64_t seed, const std::function<void(int)>& on_step) {
  const std::vector<int32_t> tokens = random_tokens(m.spec.vocab, size_t(steps) * caches.size(), seed);
  std::vector<double> seconds;
  for (int i = 0; i < steps; ++i) {
    std::vector<Sequence> batch;
    for (const auto& kv : caches) batch.push_back({kv.get(), first + i, 1});
    const std::span row(tokens.data() + size_t(i) * caches.size(), caches.size());
    seconds.push_back(seconds_of([&] {
      if (dev.most_top())
        step_top(dev, m, row, batch, 1);
      else
        step_logits(dev, m, row, batch);
    }));
    on_step(i + 1);
  }
  return seconds;
}

}  // namespace awq
