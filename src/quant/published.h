#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace awq {

/// One group as the published AWQ code rounds it (pseudo_quantize of llm-awq, the same in AutoAWQ): the range is not
/// extended to zero, a floor of 1e-5 holds for it, and every elementary operation is rounded to `half` or to float.
/// Kept to reproduce other tools' files; the product's own rule is grid_of in qmatrix.h.
struct PublishedGroup {
  float scale = 0;
  int zero = 0;            // 0 where symmetric
  std::vector<int> codes;  // signed where symmetric
  std::vector<float> dequantized;
};
enum class Arithmetic : uint8_t { half, single };
PublishedGroup quantize_published(std::span<const float> w, int bits, bool symmetric, Arithmetic arithmetic);

}  // namespace awq
