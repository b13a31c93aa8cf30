#include "quant/published.h"

#include <algorithm>
#include <cmath>

#include "base/numeric.h"

namespace awq {

float rounded_to(double v, Arithmetic type) {
  const auto f = float(v);
  if (type == Arithmetic::half) return f16_to_f32(f32_to_f16(f));
  return type == Arithmetic::bfloat ? bf16_to_f32(f32_to_bf16(f)) : f;
}

namespace {

// Half arithmetic by float and one rounding is exact for + - * / since 24 >= 2 * 11 + 2 bits; so is bfloat16's.
struct Rounding {
  Arithmetic arithmetic;
  float operator()(float v) const { return rounded_to(double(v), arithmetic); }
  float epsilon() const {
    return arithmetic == Arithmetic::half ? 0x1p-10f : arithmetic == Arithmetic::bfloat ? 0x1p-7f : 0x1p-23f;
  }
};

PublishedGroup asymmetric(std::span<const float> w, int bits, Rounding r) {
  const float levels = float((1 << bits) - 1);
  const auto [low, high] = std::minmax_element(w.begin(), w.end());
  PublishedGroup g;
  g.scale = r(std::max(r(*high - *low), r(1e-5f)) / levels);
  g.zero = int(std::clamp(-std::nearbyint(r(*low / g.scale)), 0.f, levels));
  for (float v : w) {
    const float q = std::clamp(r(std::nearbyint(r(v / g.scale)) + float(g.zero)), 0.f, levels);
    g.codes.push_back(int(q));
    g.dequantized.push_back(r(r(q - float(g.zero)) * g.scale));
  }
  return g;
}

PublishedGroup symmetric_group(std::span<const float> w, int bits, Rounding r) {
  const float top = float((1 << (bits - 1)) - 1), bottom = -top - 1;
  float largest = 0;
  for (float v : w) largest = std::max(largest, std::abs(v));
  PublishedGroup g;
  g.scale = r(std::max(largest, r(1e-5f)) / top);
  for (float v : w) {
    const float q = std::clamp(std::nearbyint(r(v / g.scale)), bottom, top);
    g.codes.push_back(int(q));
    g.dequantized.push_back(r(q * g.scale));
  }
  return g;
}

PublishedGroup extended(std::span<const float> w, int bits, bool symmetric, Rounding r) {
  const float bottom = -float(1 << (bits - 1)), top = -bottom - 1;
  float low = 0, high = 0;
  for (float v : w) low = std::min(low, v), high = std::max(high, v);
  PublishedGroup g;
  g.scale = symmetric ? r(std::max(-low, high) / (top + 0.5f)) : r(r(high - low) / (top - bottom));
  if (g.scale == 0) g.scale = r.epsilon();
  if (!symmetric) g.zero = int(std::nearbyint(std::clamp(r(bottom - r(low / g.scale)), bottom, top)));
  for (float v : w) {
    const float q = std::nearbyint(std::clamp(r(r(v / g.scale) + float(g.zero)), bottom, top));
    g.codes.push_back(int(q));
    g.dequantized.push_back(r(r(q - float(g.zero)) * g.scale));
  }
  return g;
}

}  // namespace

PublishedGroup quantize_compressed_tensors(std::span<const float> w, int bits, bool symmetric, Arithmetic arithmetic) {
  return extended(w, bits, symmetric, {arithmetic});
}

PublishedGroup quantize_published(std::span<const float> w, int bits, bool symmetric, Arithmetic arithmetic) {
  return symmetric ? symmetric_group(w, bits, {arithmetic}) : asymmetric(w, bits, {arithmetic});
}

}  // namespace awq
