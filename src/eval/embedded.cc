#include "eval/embedded.h"

#include "model/stream.h"

namespace awq {

Tensor embedded(Backend& dev, const Model& m, std::span<const int32_t> tokens, int length) {
  const std::vector<Sequence> batch(tokens.size() / size_t(length), Sequence{nullptr, 0, length});
  return stream_of(m.spec, embed_forward(dev, m.spec, m.embed, tokens, batch), tokens);
}

std::vector<int32_t> joined(std::span<const std::vector<int32_t>> sequences) {
  std::vector<int32_t> tokens;
  for (const auto& s : sequences) tokens.insert(tokens.end(), s.begin(), s.end());
  return tokens;
}

}  // namespace awq
