#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace awq {

/// A storage type of ggml: `length` values share a block of `bytes` bytes.
struct GgmlType {
  uint32_t id;            // as a GGUF tensor table spells it
  std::string_view name;  // "Q4_K"
  int64_t length, bytes;
  /// Writes count * length floats, each the same as the Python package `gguf` (0.19) computes. Null where this version
  /// cannot read the type.
  void (*dequantize)(const std::byte* blocks, int64_t count, float* out);
};

/// Null if ggml has no such type, or had it once and dropped it.
const GgmlType* find_ggml_type(uint32_t id);
/// "F32, F16, Q4_0, ...": the types that have a `dequantize`.
std::string readable_ggml_types();

}  // namespace awq
