#include "io/ggml_types.h"

#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/numeric.h"

namespace awq {
namespace {

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

// A block function takes one block apart: its codes, and of each group the scale and the offset. Products of a float16
// and a scale of 6 or 8 bits have at most 19 significant bits: exact in float, and so is what dequantize computes with.

// Byte j of a plain block holds value j in its low nibble and value j + 16 in its high one.
void nibbles(const uint8_t* q, uint8_t* codes) {
  for (int j = 0; j < 16; ++j) {
    codes[j] = q[j] & 15;
    codes[j + 16] = q[j] >> 4;
  }
}

// The fifth bit of value j is bit j of a 32-bit word.
void fifth_bits(uint32_t bits, uint8_t* codes) {
  for (int j = 0; j < kShort; ++j) codes[j] = uint8_t(codes[j] | (bits >> j & 1) << 4);
}

void q8_0(const uint8_t* b, uint8_t* codes, float* scale, float*) {  // d, 32 signed codes
  *scale = half(b);
  for (int j = 0; j < kShort; ++j) codes[j] = b[2 + j] ^ 128;
}

void q4_0(const uint8_t* b, uint8_t* codes, float* scale, float*) {  // d, 16 bytes
  *scale = half(b);
  nibbles(b + 2, codes);
}

void q4_1(const uint8_t* b, uint8_t* codes, float* scale, float* offset) {  // d, m, 16 bytes
  *scale = half(b);
  *offset = half(b + 2);
  nibbles(b + 4, codes);
}

void q5_0(const uint8_t* b, uint8_t* codes, float* scale, float*) {  // d, fifth bits, 16 bytes
  *scale = half(b);
  nibbles(b + 6, codes);
  fifth_bits(load<uint32_t>(b + 2), codes);
}

void q5_1(const uint8_t* b, uint8_t* codes, float* scale, float* offset) {  // d, m, fifth bits, 16 bytes
  *scale = half(b);
  *offset = half(b + 2);
  nibbles(b + 8, codes);
  fifth_bits(load<uint32_t>(b + 4), codes);
}

/// Value i of a block of pairs of bits: run i / 32 % 4 of each half of 128 values lies in bit pairs of 32 bytes.
int bit_pair(const uint8_t* q, int i) { return q[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3; }

void q2_k(const uint8_t* b, uint8_t* codes, float* scales, float* offsets) {  // 16 scales, 64 bytes, d, dmin
  for (int g = 0; g < 16; ++g) {
    scales[g] = half(b + 80) * float(b[g] & 15);
    offsets[g] = -(half(b + 82) * float(b[g] >> 4));
  }
  for (int i = 0; i < kLong; ++i) codes[i] = uint8_t(bit_pair(b + 16, i));
}

/// Scale g of 16, six bits: low four in nibbles of bytes 0-7, high two in bit pairs of bytes 8-11.
int scale_of_q3(const uint8_t* s, int g) { return (s[g % 8] >> g / 8 * 4 & 15) | (s[8 + g % 4] >> g / 4 * 2 & 3) << 4; }

void q3_k(const uint8_t* b, uint8_t* codes, float* scales, float*) {  // 32 bytes of third bits, 64, 12 of scales, d
  for (int g = 0; g < 16; ++g) scales[g] = half(b + 108) * float(scale_of_q3(b + 96, g) - 32);
  for (int i = 0; i < kLong; ++i) codes[i] = uint8_t(bit_pair(b + 32, i) | (b[i % 32] >> i / 32 & 1) << 2);
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

/// Of Q4_K and Q5_K: d, dmin, 12 bytes of scales.
void long_grids(const uint8_t* b, float* scales, float* offsets) {
  for (int g = 0; g < 8; ++g) {
    const auto [scale, min] = scale_min(b + 4, g);
    scales[g] = half(b) * float(scale);
    offsets[g] = -(half(b + 2) * float(min));
  }
}

/// Run g of 32 values of Q4_K and Q5_K has its nibbles in bytes 32 * (g / 2) onward, low ones for even g.
int nibble(const uint8_t* q, int i) { return q[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15; }

void q4_k(const uint8_t* b, uint8_t* codes, float* scales, float* offsets) {  // grids, 128 bytes
  long_grids(b, scales, offsets);
  for (int i = 0; i < kLong; ++i) codes[i] = uint8_t(nibble(b + 16, i));
}

void q5_k(const uint8_t* b, uint8_t* codes, float* scales,
          float* offsets) {  // grids, 32 bytes of fifth bits, 128 bytes
  long_grids(b, scales, offsets);
  for (int i = 0; i < kLong; ++i) codes[i] = uint8_t(nibble(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4);
}

/// Each half of 128 values: four runs of 32, whose low nibbles are those of bytes 0-31, those of bytes 32-63, then the
/// high ones of the same, and whose upper two bits are bit pairs 0-3 of 32 bytes.
void q6_k(const uint8_t* b, uint8_t* codes, float* scales, float*) {  // 128 bytes of low bits, 64 of high, 16 scales, d
  for (int g = 0; g < 16; ++g) scales[g] = half(b + 208) * float(int8_t(b[192 + g]));
  for (int i = 0; i < kLong; ++i) {
    const int run = i / 32 % 4;
    const int low = b[i / 128 * 64 + run % 2 * 32 + i % 32] >> run / 2 * 4 & 15;
    codes[i] = uint8_t(low | bit_pair(b + 128, i) << 4);
  }
}

/// 2^(e - 128), half of what the format's exponent says: the values below are doubled.
float half_power(uint8_t e) { return std::bit_cast<float>(e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23); }

// Floats of 4 bits (OCP Microscaling Formats 1.0): an exponent for 32 of them, 16 bytes. Every value is exact.
void mxfp4(const std::byte* blocks, int64_t count, float* out) {
  constexpr float kDoubled[] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const auto* b = reinterpret_cast<const uint8_t*>(blocks);
  uint8_t codes[kShort];
  for (int64_t i = 0; i < count; ++i, b += 17) {
    nibbles(b + 1, codes);
    for (int j = 0; j < kShort; ++j) *out++ = half_power(*b) * kDoubled[codes[j]];
  }
}

// The blocks that are written too.

void put_half(uint8_t* b, float v) {
  const uint16_t h = f32_to_f16(v);
  std::memcpy(b, &h, sizeof h);
}

void put_nibbles(const uint8_t* codes, uint8_t* q) {
  for (int j = 0; j < 16; ++j) q[j] = uint8_t(codes[j] | codes[j + 16] << 4);
}

void to_q8_0(const uint8_t* codes, float scale, float, uint8_t* b) {
  put_half(b, scale);
  for (int j = 0; j < kShort; ++j) b[2 + j] = codes[j] ^ 128;
}

void to_q4_0(const uint8_t* codes, float scale, float, uint8_t* b) {
  put_half(b, scale);
  put_nibbles(codes, b + 2);
}

void to_q4_1(const uint8_t* codes, float scale, float offset, uint8_t* b) {
  put_half(b, scale);
  put_half(b + 2, offset);
  put_nibbles(codes, b + 4);
}

using FloatBlock = void (*)(const uint8_t*, float*);
using CodeBlock = void (*)(const uint8_t*, uint8_t*, float*, float*);

template <FloatBlock block, int bytes>
void floats(const std::byte* blocks, int64_t count, float* out) {
  const auto* b = reinterpret_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < count; ++i) block(b + i * bytes, out + i);
}

template <CodeBlock block, int length, int group, int bytes>
void split(const std::byte* blocks, int64_t count, uint8_t* codes, float* scales, float* offsets) {
  const auto* b = reinterpret_cast<const uint8_t*>(blocks);
  for (int64_t i = 0, groups = length / group; i < count; ++i, b += bytes, codes += length, scales += groups) {
    float own[length / group];  // of types without offsets
    block(b, codes, scales, offsets ? offsets + i * groups : own);
  }
}

using JoinBlock = void (*)(const uint8_t*, float, float, uint8_t*);

template <JoinBlock block, int bytes>
void join(const uint8_t* codes, const float* scales, const float* offsets, int64_t count, std::byte* blocks) {
  auto* b = reinterpret_cast<uint8_t*>(blocks);
  for (int64_t i = 0; i < count; ++i) block(codes + i * kShort, scales[i], offsets ? offsets[i] : 0, b + i * bytes);
}

// The order of the operations is the package's, since float arithmetic rounds.
template <CodeBlock block, int length, int group, int zero, int bytes>
void dequantize(const std::byte* blocks, int64_t count, float* out) {
  const auto* b = reinterpret_cast<const uint8_t*>(blocks);
  uint8_t codes[length];
  float scales[length / group], offsets[length / group];
  for (int64_t i = 0; i < count; ++i, b += bytes) {
    block(b, codes, scales, offsets);
    for (int j = 0; j < length; ++j, ++out)
      *out = zero < 0 ? scales[j / group] * float(codes[j]) + offsets[j / group]
                      : scales[j / group] * float(codes[j] - zero);
  }
}

template <FloatBlock block, int bytes>
constexpr GgmlType of_floats(uint32_t id, std::string_view name) {
  return {id, name, 1, bytes, floats<block, bytes>};
}

constexpr int kOffsets = -1;

template <CodeBlock block, int bits, int length, int group, int zero, int bytes>
constexpr GgmlType of_codes(uint32_t id, std::string_view name) {
  return {id,
          name,
          length,
          bytes,
          dequantize<block, length, group, zero, bytes>,
          {bits, group, zero, length == kShort, split<block, length, group, bytes>}};
}

template <JoinBlock block, CodeBlock split_block, int bits, int zero, int bytes>
constexpr GgmlType of_plain(uint32_t id, std::string_view name) {
  GgmlType t = of_codes<split_block, bits, kShort, kShort, zero, bytes>(id, name);
  t.codes.join = join<block, bytes>;
  return t;
}

constexpr GgmlType kTypes[] = {
    of_floats<f32, 4>(0, "F32"),
    of_floats<f16, 2>(1, "F16"),
    of_plain<to_q4_0, q4_0, 4, 8, 18>(2, "Q4_0"),
    of_plain<to_q4_1, q4_1, 4, kOffsets, 20>(3, "Q4_1"),
    of_codes<q5_0, 5, kShort, 32, 16, 22>(6, "Q5_0"),
    of_codes<q5_1, 5, kShort, 32, kOffsets, 24>(7, "Q5_1"),
    of_plain<to_q8_0, q8_0, 8, 128, 34>(8, "Q8_0"),
    of_codes<q2_k, 2, kLong, 16, kOffsets, 84>(10, "Q2_K"),
    of_codes<q3_k, 3, kLong, 16, 4, 110>(11, "Q3_K"),
    of_codes<q4_k, 4, kLong, 32, kOffsets, 144>(12, "Q4_K"),
    of_codes<q5_k, 5, kLong, 32, kOffsets, 176>(13, "Q5_K"),
    of_codes<q6_k, 6, kLong, 16, 32, 210>(14, "Q6_K"),
    of_floats<bf16, 2>(30, "BF16"),
    {39, "MXFP4", kShort, 17, mxfp4},
    // Listed so that a message or `inspect` can name them.
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
    {40, "NVFP4", 64, 36, nullptr},
    {41, "Q1_0", 128, 18, nullptr},
};

}  // namespace

const GgmlType* find_ggml_type(uint32_t id) {
  for (const GgmlType& t : kTypes)
    if (t.id == id) return &t;
  return nullptr;
}

const GgmlType& ggml_type(std::string_view name) {
  for (const GgmlType& t : kTypes)
    if (t.name == name) return t;
  fail("gguf", "there is no type {}", name);
}

std::string readable_ggml_types() {
  std::string names;
  for (const GgmlType& t : kTypes)
    if (t.dequantize) names += (names.empty() ? "" : ", ") + std::string(t.name);
  return names;
}

}  // namespace awq
