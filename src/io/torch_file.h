#pragma once
// Files of torch.save: a zip archive of a pickle, ARCHIVE/data.pkl, and of one file for each storage of numbers.
#include "io/pickle.h"
#include "io/safetensors.h"
#include "io/zip.h"

namespace awq {

/// One file, of which nothing is run. The constructor reads archive and pickle and throws Error on what is not plain
/// data; see ZipFile and Pickle.
class TorchFile {
 public:
  explicit TorchFile(const MappedFile& file) : TorchFile(file.bytes(), file.owner(), file.path().string()) {}
  /// From memory; `owner` keeps it alive and `name` stands for the path in errors.
  TorchFile(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string name);
  const std::string& name() const { return zip_.name(); }
  const PickleValue& root() const { return pickle_.root(); }
  /// Where in the file a tensor's values are. Throws Error unless they lie within its storage, row by row. `where`
  /// stands for the tensor in errors.
  SafetensorsEntry entry(const PickleValue& tensor, const std::string& where) const;
  /// A tensor's values as f32, in memory of their own. Throws Error too where they are no floats.
  Tensor floats(const PickleValue& tensor, const std::string& where) const;
  /// The tensors of a state dict, a dict of names and tensors. Throws Error where the file holds anything else.
  SafetensorsFile state_dict() const;

 private:
  std::string find_folder() const;
  std::span<const std::byte> content(const std::string& file) const;

  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  ZipFile zip_;
  std::string folder_;
  Pickle pickle_;
};

/// Whether a file begins as torch.save's do.
bool is_torch_file(const std::filesystem::path& file);

}  // namespace awq
