// Speed of a version of a model, as `awq bench` measures it, without the shares of what the machine can do.
#include "api_speed.h"

#include <algorithm>
#include <numeric>

#include "bench/speed.h"

namespace awq {
namespace {

constexpr int kSpeedPrompt = 512, kSpeedSteps = 64, kSpeedRepeats = 3;

Spread spread_over(std::vector<double> v) {
  std::ranges::sort(v);
  return {v[v.size() / 2], v.front(), v.back()};
}

class SpeedJob {
 public:
  SpeedJob(Device& device, const Model& model, std::string_view kv, const OnProgress& progress)
      : dev_(*device.backend), model_(model), kv_(kv_type(kv, kCacheType)), progress_(progress) {}

  // A quarter of a short context is left for what is decoded.
  SpeedReport run() {
    SpeedReport r{.prefill_tokens = std::min(kSpeedPrompt, model_.spec.max_context / 2),
                  .decode_tokens = std::min(kSpeedSteps, model_.spec.max_context / 4)};
    std::vector<double> prefills, decodes;
    for (int i = 0; i <= kSpeedRepeats; ++i) {
      report(i);
      const double prefill = r.prefill_tokens / prefill_time(r.prefill_tokens);
      const double decode = r.decode_tokens / decode_time(r.prefill_tokens, r.decode_tokens);
      if (i == 0) continue;  // what it reads comes into memory here
      prefills.push_back(prefill), decodes.push_back(decode);
    }
    r.prefill = spread_over(prefills), r.decode = spread_over(decodes);
    return r;
  }

 private:
  void report(int done) const {
    if (progress_ && !progress_({"speed", done, kSpeedRepeats + 1})) throw Cancelled();
  }
  double prefill_time(int tokens) {
    caches_.clear();
    caches_.push_back(dev_.kv_cache(model_.spec.blocks, kv_));
    return prefill_seconds(dev_, model_, *caches_.front(), random_tokens(model_.spec.vocab, size_t(tokens), 0), {});
  }
  double decode_time(int first, int steps) {
    const auto each = decode_seconds(dev_, model_, caches_, first, steps, 0, [](int) {});
    return std::accumulate(each.begin(), each.end(), 0.0);
  }

  Backend& dev_;
  const Model& model_;
  DType kv_;
  const OnProgress& progress_;
  Caches caches_;
};

}  // namespace

SpeedReport measure_speed(Device& device, const Checkpoint& checkpoint, const Model& model, std::string_view kv,
                          const OnProgress& progress) {
  SpeedReport r = SpeedJob(device, model, kv, progress).run();
  r.weight_memory = loaded_bytes(*device.backend, checkpoint);
  return r;
}

}  // namespace awq
