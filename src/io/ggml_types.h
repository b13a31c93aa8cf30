#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace awq {

/// How the blocks of a type hold codes: `bits` a value, groups of `group` values with a scale and, where `zero` is
/// negative, an offset:  value = (code - zero) * scale  or  code * scale + offset.
struct GgmlCodes {
  int bits = 0, group = 0, zero = 0;
  bool half_scales = false;  // scales, and the offsets beside them, are exact in f16
  /// Writes count * length codes, and a scale and (where the type has any) an offset a group.
  void (*split)(const std::byte* blocks, int64_t count, uint8_t* codes, float* scales, float* offsets) = nullptr;
  /// The reverse, of scales and offsets that float16 holds exactly. Null where this version does not write the type.
  void (*join)(const uint8_t* codes, const float* scales, const float* offsets, int64_t count,
               std::byte* blocks) = nullptr;
};

/// A storage type of ggml: `length` values share a block of `bytes` bytes.
struct GgmlType {
  uint32_t id;            // as a GGUF tensor table spells it
  std::string_view name;  // "Q4_K"
  int64_t length, bytes;
  /// Writes count * length floats, each the same as the Python package `gguf` (0.19) computes. Null where this version
  /// cannot read the type.
  void (*dequantize)(const std::byte* blocks, int64_t count, float* out);
  GgmlCodes codes = {};  // of a block type that has a `dequantize`
};

/// Null if ggml has no such type, or had it once and dropped it.
const GgmlType* find_ggml_type(uint32_t id);
/// By name: one of the table, "Q4_0".
const GgmlType& ggml_type(std::string_view name);
/// "F32, F16, Q4_0, ...": the types that have a `dequantize`.
std::string readable_ggml_types();

}  // namespace awq
