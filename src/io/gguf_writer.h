#pragma once
// Writing GGUF files, version 3.
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "io/gguf.h"

namespace awq {

/// Keys and values as a file has them, in the order of the calls. No key twice.
class GgufMetadata {
 public:
  GgufMetadata& u32(std::string_view key, uint32_t v) { return value(key, GgufType::u32, raw(v)); }
  GgufMetadata& f32(std::string_view key, float v) { return value(key, GgufType::f32, raw(v)); }
  GgufMetadata& flag(std::string_view key, bool v) { return value(key, GgufType::boolean, raw(uint8_t(v))); }
  GgufMetadata& text(std::string_view key, std::string_view v);
  GgufMetadata& texts(std::string_view key, std::span<const std::string> v);
  GgufMetadata& numbers(std::string_view key, std::span<const float> v);
  GgufMetadata& integers(std::string_view key, std::span<const int32_t> v);
  GgufMetadata& flags(std::string_view key, std::span<const uint8_t> v);
  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class T>
  static std::string_view raw(const T& v) {
    return {reinterpret_cast<const char*>(&v), sizeof v};
  }
  GgufMetadata& value(std::string_view key, GgufType type, std::string_view bytes);
  template <class T>
  GgufMetadata& array(std::string_view key, GgufType type, std::span<const T> v);

  std::string bytes_;
  uint64_t count_ = 0;
};

/// A tensor as the table describes it.
struct GgufPlace {
  std::string name;
  Shape shape;
  uint32_t type = 0;    // GgmlType::id
  uint64_t offset = 0;  // from the first byte of data
};

constexpr uint64_t kGgufAlignment = 32;  // of data, where a file does not say
/// All that comes before the data.
std::string gguf_header(const GgufMetadata& metadata, std::span<const GgufPlace> table);

/// Writes a file tensor by tensor and keeps none of them: room for the header, whose length is known, is left at the
/// front and filled by `close`. `tensors` are all that will come, in any order; their types and offsets do not matter.
class GgufWriter {
 public:
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<GgufPlace> tensors);
  /// Goes on with a file that an earlier process has begun with the same metadata and tensors, from the `state` that it
  /// had then.
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<GgufPlace> tensors,
             const nlohmann::json& state);
  /// Whole blocks of the type. Throws Error if the name or the shape was not announced, or came before.
  void put(const std::string& name, const GgmlType& type, const Shape& shape, std::span<const std::byte> bytes);
  nlohmann::json state() const;
  void sync() { file_.sync(); }
  void close();  // throws Error if a tensor is missing

 private:
  GgufMetadata metadata_;
  std::vector<GgufPlace> expected_, table_;
  uint64_t header_bytes_, data_bytes_ = 0;
  OutputFile file_;
};

}  // namespace awq
