#include "io/ggml_types.h"

#include <array>
#include <cstring>

#include "base/numeric.h"

namespace awq {
namespace {

// A block function turns one block into its floats. The order of the operations is the package's, since float
// arithmetic rounds: (d * q) + m, and (d * scale) * q where a block has scales of its own.

template <class T>
T load(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
float half(const uint8_t* p) { return f16_to_f32(load<uint16_t>(p)); }

constexpr int kShort = 32, kLong = 256;  // values of a plain block and of a K block

void f32(const uint8_t* b, float* y) { *y = load<float>(b); }
void f16(const uint8_t* b, float* y) { *y = half(b); }
void bf16(const uint8_t* b, float* y) { *y = bf16_to_f32(load<uint16_t>(b)); }

// Byte j of a plain block holds value j in its low nibble and value j + 16 in its high one.
int low(const uint8_t* q, int j) { return q[j] & 15; }
int high(const uint8_t* q, int j) { return q[j] >> 4; }

void q8_0(const uint8_t* b, float* y) {  // d, 32 codes
  const float d = half(b);
  for (int j = 0; j < kShort; ++j) y[j] = float(int8_t(b[2 + j])) * d;
}

void q4_0(const uint8_t* b, float* y) {  // d, 16 bytes
  const float d = half(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(low(b + 2, j) - 8);
    y[j + 16] = d * float(high(b + 2, j) - 8);
  }
}

void q4_1(const uint8_t* b, float* y) {  // d, m, 16 bytes
  const float d = half(b), m = half(b + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(low(b + 4, j)) + m;
    y[j + 16] = d * float(high(b + 4, j)) + m;
  }
}

// The fifth bit of value j is bit j of a 32-bit word.
int fifth(uint32_t bits, int j) { return int(bits >> j & 1) << 4; }

void q5_0(const uint8_t* b, float* y) {  // d, fifth bits, 16 bytes
  const float d = half(b);
  const auto bits = load<uint32_t>(b + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float((low(b + 6, j) | fifth(bits, j)) - 16);
    y[j + 16] = d * float((high(b + 6, j) | fifth(bits, j + 16)) - 16);
  }
}

void q5_1(const uint8_t* b, float* y) {  // d, m, fifth bits, 16 bytes
  const float d = half(b), m = half(b + 2);
  const auto bits = load<uint32_t>(b + 4);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(low(b + 8, j) | fifth(bits, j)) + m;
    y[j + 16] = d * float(high(b + 8, j) | fifth(bits, j + 16)) + m;
  }
}

struct ScaleMin {
  int scale, min;
};

/// Scale and minimum i of 8, six bits each, from 12 bytes: scales 0-3 lie in the low six bits of bytes 0-3 and minima
/// 0-3 in those of bytes 4-7; number i of 4-7 has its low four bits in the nibbles of byte 4 + i and its two high bits
/// above those of number i - 4.
ScaleMin scale_min(const uint8_t* s, int i) {
  if (i < 4) return {s[i] & 63, s[i + 4] & 63};
  return {(s[i + 4] & 15) | (s[i - 4] >> 6) << 4, s[i + 4] >> 4 | (s[i] >> 6) << 4};
}

/// Sub-block i of 32 values of Q4_K and Q5_K has its nibbles in bytes 32 * (i / 2) onward, low ones for even i.
int nibble(const uint8_t* q, int i, int j) { return q[i / 2 * 32 + j] >> i % 2 * 4 & 15; }

void q4_k(const uint8_t* b, float* y) {  // d, dmin, 12 bytes of scales, 128 bytes
  for (int i = 0; i < 8; ++i) {
    const auto [scale, min] = scale_min(b + 4, i);
    const float d = half(b) * float(scale), m = half(b + 2) * float(min);
    for (int j = 0; j < 32; ++j) *y++ = d * float(nibble(b + 16, i, j)) - m;
  }
}

void q5_k(const uint8_t* b, float* y) {  // d, dmin, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes
  for (int i = 0; i < 8; ++i) {
    const auto [scale, min] = scale_min(b + 4, i);
    const float d = half(b) * float(scale), m = half(b + 2) * float(min);
    for (int j = 0; j < 32; ++j) *y++ = d * float(nibble(b + 48, i, j) | (b[16 + j] >> i & 1) << 4) - m;
  }
}

/// Each half of 128 values: four runs of 32, whose low nibbles are those of bytes 0-31, those of bytes 32-63, then the
/// high ones of the same, and whose upper two bits are bit pairs 0-3 of 32 bytes.
void q6_k(const uint8_t* b, float* y) {  // 128 bytes of low bits, 64 of high bits, 16 scales, d
  const uint8_t *ql = b, *qh = b + 128, *scales = b + 192;
  const float d = half(b + 208);
  for (int i = 0; i < kLong; ++i) {
    const int part = i / 128, run = i / 32 % 4, j = i % 32;
    const int bits = ql[part * 64 + run % 2 * 32 + j] >> run / 2 * 4 & 15;
    const int top = qh[part * 32 + j] >> 2 * run & 3;
    y[i] = d * float(int8_t(scales[i / 16])) * float((bits | top << 4) - 32);
  }
}

template <void (*block)(const uint8_t*, float*), int length, int bytes>
void all(const std::byte* blocks, int64_t count, float* out) {
  const auto* b = reinterpret_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < count; ++i) block(b + i * bytes, out + i * length);
}

template <void (*block)(const uint8_t*, float*), int length, int bytes>
constexpr GgmlType readable(uint32_t id, std::string_view name) {
  return {id, name, length, bytes, all<block, length, bytes>};
}

constexpr GgmlType kTypes[] = {
    readable<f32, 1, 4>(0, "F32"),
    readable<f16, 1, 2>(1, "F16"),
    readable<q4_0, kShort, 18>(2, "Q4_0"),
    readable<q4_1, kShort, 20>(3, "Q4_1"),
    readable<q5_0, kShort, 22>(6, "Q5_0"),
    readable<q5_1, kShort, 24>(7, "Q5_1"),
    readable<q8_0, kShort, 34>(8, "Q8_0"),
    readable<q4_k, kLong, 144>(12, "Q4_K"),
    readable<q5_k, kLong, 176>(13, "Q5_K"),
    readable<q6_k, kLong, 210>(14, "Q6_K"),
    readable<bf16, 1, 2>(30, "BF16"),
    // Listed so that a message or `inspect` can name them.
    {10, "Q2_K", 256, 84, nullptr},
    {11, "Q3_K", 256, 110, nullptr},
    {16, "IQ2_XXS", 256, 66, nullptr},
    {17, "IQ2_XS", 256, 74, nullptr},
    {18, "IQ3_XXS", 256, 98, nullptr},
    {19, "IQ1_S", 256, 50, nullptr},
    {20, "IQ4_NL", 32, 18, nullptr},
    {21, "IQ3_S", 256, 110, nullptr},
    {22, "IQ2_S", 256, 82, nullptr},
    {23, "IQ4_XS", 256, 136, nullptr},
    {24, "I8", 1, 1, nullptr},
    {25, "I16", 1, 2, nullptr},
    {26, "I32", 1, 4, nullptr},
    {27, "I64", 1, 8, nullptr},
    {28, "F64", 1, 8, nullptr},
    {29, "IQ1_M", 256, 56, nullptr},
    {34, "TQ1_0", 256, 54, nullptr},
    {35, "TQ2_0", 256, 66, nullptr},
    {39, "MXFP4", 32, 17, nullptr},
    {40, "NVFP4", 64, 36, nullptr},
    {41, "Q1_0", 128, 18, nullptr},
};

}  // namespace

const GgmlType* find_ggml_type(uint32_t id) {
  for (const GgmlType& t : kTypes)
    if (t.id == id) return &t;
  return nullptr;
}

std::string readable_ggml_types() {
  std::string names;
  for (const GgmlType& t : kTypes)
    if (t.dequantize) names += (names.empty() ? "" : ", ") + std::string(t.name);
  return names;
}

}  // namespace awq
