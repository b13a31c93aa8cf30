#pragma once
// Folders whose matrices are packed codes, whatever their layout.
#include <optional>

#include "formats/folder.h"

namespace awq {

/// A matrix that a folder holds in codes.
struct PackedPlace {
  std::string base;  // "model.layers.3.mlp.up_proj"
  Shape shape;       // [rows, cols] of all parts, where projections are fused
  QuantSpec spec;
};

/// A format derives from it, calls `check_tensors` last in its constructor and says how one matrix is stored.
class PackedFolder : public FolderCheckpoint {
 public:
  /// The embedding, which is read by row, is de-quantized to f32; `pieces` has it as stored.
  Weight weight(int block, Param param) const final;
  Pieces pieces(int block, Param param) const final;

 protected:
  PackedFolder(const std::filesystem::path& folder, nlohmann::json config)
      : FolderCheckpoint(folder, std::move(config), Experts::apart) {}
  /// Throws Error unless the files hold what the model needs and nothing else.
  void check_tensors() const;

  /// Nothing where the matrix is a plain tensor. May be called before any shape has been checked.
  /// `param`: the first that is in the tensor.
  virtual std::optional<QuantSpec> quant_of(Param param, const std::string& base, const Shape& shape) const = 0;
  virtual void require(TensorCheck& check, const PackedPlace& at) const = 0;
  /// Rows [begin, end), or columns: whole groups of them or a part of one. Begins at a multiple of Pieces::kRows or
  /// kColumns, or of a group.
  virtual QMatrix read(const PackedPlace& at, int64_t begin, int64_t end) const = 0;
  /// Which of the two suits the files.
  virtual bool by_columns() const { return false; }
  /// QMatrix::order, or an empty tensor.
  virtual Tensor order(const PackedPlace&) const { return {}; }
  /// QMatrix::inputs, or an empty tensor.
  virtual Tensor inputs(const PackedPlace&) const { return {}; }

  const SafetensorsEntry& entry(const std::string& tensor) const;
  DType type_of(const std::string& tensor) const;  // f32 where it is missing or of no known type: `require` says so
  /// Throws Error unless `unit` divides `value`, which is the number of `what` of the matrix.
  void require_multiple(const PackedPlace& at, std::string_view what, int64_t value, int64_t unit) const;
  [[noreturn]] void bad_config(std::string_view key, std::string_view expected, const nlohmann::json& got) const;
  /// The order that sorts columns by group; empty where they are sorted. Throws Error unless every group has its number
  /// of columns.
  Tensor order_of(const PackedPlace& at, const std::string& g_idx) const;
  Tensor scales(const std::string& tensor, int64_t begin, int64_t end) const;  // rows of a tensor, f32

 private:
  std::optional<PackedPlace> place(const StoredTensor& t) const;
  void check_packed(TensorCheck& check, const PackedPlace& at) const;
  /// A parameter's rows [begin, end), or columns, of the tensor that holds it.
  QMatrix part(const PackedPlace& at, const RowPattern& rows, int64_t begin, int64_t end) const;
  QMatrix checked(const PackedPlace& at, int64_t begin, int64_t end) const;
};

/// "quant_method" of config.json's quantization_config; empty where there is none or no folder.
std::string quant_method(const std::filesystem::path& folder);
/// "version" of AutoAWQ's, in lower case; empty where the method is another.
std::string awq_version(const std::filesystem::path& folder);

}  // namespace awq
