#pragma once
#include "formats/folder.h"

namespace awq {

/// A folder some of whose matrices are small floats with a scale for each block of them, read as the floats they stand
/// for. A format derives from it, says which tensors these are and what they hold, and calls check_tensors().
class FloatBlocks : public FolderCheckpoint {
 public:
  Weight weight(int block, Param param) const final;
  Pieces pieces(int block, Param param) const final;

 protected:
  /// `type`: of the floats.
  FloatBlocks(const std::filesystem::path& folder, nlohmann::json config, DType type)
      : FolderCheckpoint(folder, std::move(config)), type_(type) {}
  /// Throws Error unless the files hold what the model needs and nothing else.
  void check_tensors() const;

 private:
  virtual bool in_blocks(const StoredTensor& t) const = 0;
  /// Requires the tensors of one that is.
  virtual void require_blocks(TensorCheck& check, const StoredTensor& t) const = 0;
  /// Rows of some of its outputs [begin, end), in `type`. Throws Error where a value is damaged.
  virtual Tensor values(const StoredTensor& t, int64_t begin, int64_t end) const = 0;
  Tensor values_of(int block, Param param, int64_t begin, int64_t end) const;

  DType type_;
};

}  // namespace awq
