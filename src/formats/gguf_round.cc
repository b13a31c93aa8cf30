#include "formats/gguf_round.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/numeric.h"

namespace awq {
namespace {

constexpr int kLength = 32;
using Values = std::span<const float>;

float in_f16(float v) { return f16_to_f32(f32_to_f16(v)); }
float inverse(float d) { return d == 0 ? 0 : 1 / d; }

// Codes are of the scale before it is rounded to F16, as the reference's are.

void round_q4_0(Values w, uint8_t* codes, float& scale, float*) {
  const float extreme =
      *std::ranges::max_element(w, {}, [](float v) { return std::abs(v); });  // the first of those, with its sign
  const float d = extreme / -8, id = inverse(d);
  for (size_t i = 0; i < w.size(); ++i) codes[i] = uint8_t(std::min(15, int(w[i] * id + 8.5f)));
  scale = in_f16(d);
}

void round_q4_1(Values w, uint8_t* codes, float& scale, float* offset) {
  const auto [low, high] = std::ranges::minmax(w);
  const float d = (high - low) / 15, id = inverse(d);
  for (size_t i = 0; i < w.size(); ++i) codes[i] = uint8_t(std::min(15, int((w[i] - low) * id + 0.5f)));
  scale = in_f16(d);
  *offset = in_f16(low);
}

void round_q8_0(Values w, uint8_t* codes, float& scale, float*) {
  float largest = 0;
  for (float v : w) largest = std::max(largest, std::abs(v));
  const float d = largest / 127, id = inverse(d);
  for (size_t i = 0; i < w.size(); ++i) codes[i] = uint8_t(int(std::round(w[i] * id)) + 128);
  scale = in_f16(d);
}

struct Rounding {
  std::string_view type;
  int bits;
  bool offsets;
  void (*block)(Values w, uint8_t* codes, float& scale, float* offset);
};
constexpr Rounding kRoundings[] = {
    {"Q4_0", 4, false, round_q4_0}, {"Q4_1", 4, true, round_q4_1}, {"Q8_0", 8, false, round_q8_0}};

}  // namespace

QMatrix ggml_rounded(const Tensor& matrix, std::string_view type, const std::string& name) {
  const Rounding& r = *std::ranges::find(kRoundings, type, &Rounding::type);
  const Tensor w = matrix.to(DType::f32);
  if (!std::ranges::all_of(w.as<float>(), [](float v) { return std::isfinite(v); }))
    fail("convert", "{}: a weight is not finite; the source model is damaged", name);
  QMatrix q =
      QMatrix::empty(w.shape(), {.bits = r.bits, .group_size = kLength, .offsets = r.offsets, .symmetric = !r.offsets});
  for (size_t g = 0; g < q.scales.as<float>().size(); ++g)
    r.block(w.as<float>().subspan(g * kLength, kLength), q.codes.as<uint8_t>().data() + g * kLength,
            q.scales.as<float>()[g], r.offsets ? &q.offsets.as<float>()[g] : nullptr);
  if (q.zeros) std::ranges::fill(q.zeros.as<uint8_t>(), uint8_t(1 << (r.bits - 1)));
  if (const auto g = first_bad_grid(q))
    fail("convert", "{}: row {}: its weights need a scale beyond the range of F16", name, *g / q.groups());
  return q;
}

}  // namespace awq
