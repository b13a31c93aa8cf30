#pragma once
#include "io/descriptor.h"
#include "tensor/tensor.h"

namespace awq {

/// A file that rows of a f32 matrix [*, cols] are read from and written to, in any order and from several threads. It
/// is never mapped, so that what it holds is no part of the process' memory.
class ScratchFile {
 public:
  ScratchFile(const std::filesystem::path& path, int64_t cols);  // made if it is not there
  Tensor read(int64_t begin, int64_t end) const;                 // throws Error where they were not written
  void write(int64_t row, const Tensor& x);                      // whole rows
  void sync();
  int64_t rows() const;  // up to the last that was written

 private:
  std::filesystem::path path_;
  Descriptor file_;
  int64_t row_bytes_;
};

/// A lock that ends with the process that holds it, however that ends.
class FileLock {
 public:
  /// `file` is made if it is not there, and holds the owner's process id. Throws Error, naming `what` and the other
  /// process, if another holds it.
  FileLock(const std::filesystem::path& file, std::string_view what);
  ~FileLock() = default;

 private:
  Descriptor file_;
};

}  // namespace awq
