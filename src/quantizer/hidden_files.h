#pragma once
#include <filesystem>
#include <span>

#include "io/scratch.h"
#include "quantizer/calibration.h"

namespace awq {

/// The hidden states of all calibration tokens in two files, f32 and exact: a block reads one and writes the other, so
/// that what went into a block stays until the next one is done.
class HiddenFiles {
 public:
  HiddenFiles(const std::filesystem::path& folder, int64_t tokens, int length, int64_t dim);
  int64_t tokens() const { return tokens_; }
  int length() const { return length_; }
  ScratchFile& input(int block) { return files_[block % 2]; }
  /// What block `block` reads and, unless it is the last, writes.
  HiddenStates around(int block, bool last);
  bool complete(int block) const { return files_[block % 2].rows() == tokens_; }
  static int64_t bytes_for(int64_t tokens, int64_t dim) { return 2 * tokens * dim * int64_t(sizeof(float)); }

 private:
  int64_t tokens_;
  int length_;
  ScratchFile files_[2];
};

}  // namespace awq
