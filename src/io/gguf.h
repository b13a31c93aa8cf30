#pragma once
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "io/ggml_types.h"
#include "tensor/tensor.h"

namespace awq {

/// Type of a metadata value, numbered as the file does.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufValue {
  GgufType type, element;           // element: of an array's items, else the same as type
  uint64_t count = 1;               // items of an array
  std::span<const std::byte> data;  // the value or the items, as the file holds them, sizes already checked
};

struct GgufTensor {
  std::string_view name;
  const GgmlType* type;
  Shape shape;                      // outermost first: [rows, cols]
  std::span<const std::byte> data;  // whole blocks; a row is a whole number of them
};

/// A GGUF file, version 2 or 3, little-endian. Opening it reads and checks metadata and tensor table only: every name,
/// count, size and offset lies inside the file. Strings and views point into the map, which lives as long as a copy of
/// this object. Safe to read from several threads. The getters throw Error naming the key, what was expected and what
/// was found; those with a `missing` value return it where the key is absent.
class Gguf {
 public:
  explicit Gguf(const std::filesystem::path& path) : Gguf(MappedFile(path)) {}
  explicit Gguf(const MappedFile& file);
  /// A file that is in memory already, aligned to 64 bytes; `path` is only used in messages.
  Gguf(std::filesystem::path path, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);
  const std::filesystem::path& path() const { return path_; }

  const std::map<std::string_view, GgufValue>& metadata() const { return metadata_; }
  bool has(std::string_view key) const { return metadata_.contains(key); }
  int64_t integer(std::string_view key) const;  // of any width
  int64_t integer(std::string_view key, int64_t missing) const { return has(key) ? integer(key) : missing; }
  double number(std::string_view key) const;  // F32 or F64
  double number(std::string_view key, double missing) const { return has(key) ? number(key) : missing; }
  bool flag(std::string_view key) const;
  bool flag(std::string_view key, bool missing) const { return has(key) ? flag(key) : missing; }
  std::string_view text(std::string_view key) const;
  std::string_view text(std::string_view key, std::string_view missing) const { return has(key) ? text(key) : missing; }
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<float> numbers(std::string_view key) const;     // of F32
  std::vector<int64_t> integers(std::string_view key) const;  // of any width, or of booleans

  std::span<const GgufTensor> tensors() const { return tensors_; }
  const GgufTensor* find(std::string_view name) const;  // null if absent
  const GgufTensor& at(std::string_view name) const;    // throws Error
  /// F32, F16 and BF16 share the map; block types are de-quantized to f32. Throws Error for types without
  /// `dequantize`.
  Tensor tensor(const GgufTensor& t) const;
  /// The same for a range of the outermost dimension, whose entries must be whole blocks, in memory of its own; see
  /// read_part.
  Tensor rows(const GgufTensor& t, int64_t begin, int64_t end) const;
  /// Their bytes as they are stored, u8.
  Tensor blocks(const GgufTensor& t, int64_t begin, int64_t end) const;
  Tensor tensor(std::string_view name) const { return tensor(at(name)); }

 private:
  const GgufValue& value(std::string_view key) const;
  void require_readable(const GgufTensor& t) const;
  std::span<const std::byte> row_bytes(const GgufTensor& t, int64_t begin, int64_t end) const;

  std::filesystem::path path_;
  std::shared_ptr<const void> owner_;
  std::map<std::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> index_;  // into tensors_
};

}  // namespace awq
