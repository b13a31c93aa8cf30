#pragma once
// What folders with packed matrices have in common when they are written.
#include <string_view>

#include "formats/folder.h"

namespace awq {

/// What a layout can hold of a QMatrix.
struct Capacity {
  std::vector<int> bits;
  std::vector<int> groups = {};  // empty: any; -1 among them: whole rows
  bool offsets = false;          // groups have offsets in place of zero points
  bool symmetric = false;        // every zero point is the middle
  bool zero_zero = true;         // zero points may be 0
  bool order = false;            // columns of a group may be anywhere
  bool inputs = false;           // activations may be multiplied by a number a column
  int part = 0;                  // groups are parts of so many columns, with scales in F16; 0: as they are
  bool widens = false;           // codes of fewer bits are moved to the middle of 8
  bool outer = false;            // embedding and head too
  int rows = 1, cols = 1;        // of a matrix, a multiple of these
  // Of a model that is quantized to it; a conversion keeps what the source has:
  bool whole_rows = true;  // a group may be a row
  // Of both again:
  bool bf16 = false;  // scales may be in it
};

/// Losses that a conversion may be allowed, each under the name that --allow takes.
struct Losses {
  bool rounded_offsets = false;  // zero * scale is rounded to the type of the scales, or was
  bool borrowed_zeros = false;   // a zero point of 0 is stored so that some programs read another one
};
Losses losses_of(const std::vector<std::string>& names);  // throws Error, listing the names

/// What scales of such a type are stored in: BF16 becomes F16, if every value is exact there, where the layout has
/// none.
DType stored_type(const Capacity& capacity, DType scales);

/// The matrix as the layout holds it: the same codes and scales. Throws Error where it cannot, or not without a loss
/// that is not allowed.
QMatrix fitted(const QMatrix& q, const Capacity& capacity, const Losses& allowed, const std::string& name);

/// A format derives from it and says how a matrix is packed.
class PackedSink : public FolderSink {
 public:
  PackedSink(const OutputPlace& place, const nlohmann::json& config, const ModelSpec& spec, const QuantSpec& quant)
      : FolderSink(place, config, spec, kShardBytes, Experts::apart), quant_(quant) {}

 protected:
  struct Part {
    std::string_view suffix;
    Tensor tensor;
  };
  virtual std::vector<Part> pack(const QMatrix& q) const = 0;
  const QuantSpec& quant() const { return quant_; }
  const std::vector<std::string>& left_float() const { return left_float_; }  // matrices of blocks
  /// These, and parts of the model that are not its language.
  std::vector<std::string> in_floats() const;

 private:
  void write(const StoredTensor& t, const Weight& w) final;
  void write_bias(const std::string& name, const Tensor& b) final;
  nlohmann::json seen() const final { return left_float_; }
  void see_again(const nlohmann::json& seen) final { left_float_ = seen.get<std::vector<std::string>>(); }

  QuantSpec quant_;  // group_size -1: whole rows
  std::vector<std::string> left_float_;
};

/// In f16, bf16 or f32: the first that holds every value.
Tensor narrowed(const Tensor& t);

}  // namespace awq
