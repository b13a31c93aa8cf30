#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace awq {

/// One group as the published AWQ code rounds it (pseudo_quantize of llm-awq, the same in AutoAWQ): the range is not
/// extended to zero, a floor of 1e-5 holds for it, and every elementary operation is rounded to the type of Arithmetic.
/// Kept to reproduce other tools' files; the product's own rule is grid_of in qmatrix.h.
struct PublishedGroup {
  float scale = 0;
  int zero = 0;            // 0 where symmetric
  std::vector<int> codes;  // signed where symmetric
  std::vector<float> dequantized;
};
enum class Arithmetic : uint8_t { half, bfloat, single };
float rounded_to(double v, Arithmetic type);
PublishedGroup quantize_published(std::span<const float> w, int bits, bool symmetric, Arithmetic arithmetic);

/// As compressed-tensors rounds it, which llm-compressor uses: the range is extended to zero, and a code is clamped
/// before it is rounded. Codes and zero point are signed, in -2^(bits - 1) .. 2^(bits - 1) - 1.
PublishedGroup quantize_compressed_tensors(std::span<const float> w, int bits, bool symmetric, Arithmetic arithmetic);

}  // namespace awq
