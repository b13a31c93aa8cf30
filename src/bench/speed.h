#pragma once
#include <functional>

#include "engine/runtime.h"

namespace awq {

/// Token ids of a text that nobody wrote; the same for the same seed.
std::vector<int32_t> random_tokens(int vocab, size_t n, uint64_t seed);

/// Wall-clock seconds of a prompt as the engine runs it, in chunks, with its last logits. `kv` is new, and holds the
/// prompt afterwards. `on_chunk` is called with how many tokens are done.
double prefill_seconds(Backend& dev, const Model& m, KvCache& kv, std::span<const int32_t> prompt,
                       const std::function<void(int done)>& on_chunk);

using Caches = std::vector<std::unique_ptr<KvCache>>;
/// Wall-clock seconds of each of `steps` steps from position `first` on: one token of every sequence, with its logits.
/// `on_step` is called after each, and its time is not counted.
std::vector<double> decode_seconds(Backend& dev, const Model& m, const Caches& caches, int first, int steps,
                                   uint64_t seed, const std::function<void(int done)>& on_step);

}  // namespace awq
