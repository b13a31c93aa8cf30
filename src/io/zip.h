#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace awq {

/// A zip archive of uncompressed files, as PyTorch writes them; zip64 where it is large. The constructor checks the
/// whole directory against the archive's length and throws Error on anything else: compression, encryption, several
/// disks, a name twice. Checksums are not compared.
class ZipFile {
 public:
  /// `bytes` must outlive it; `name` stands for the path in errors.
  ZipFile(std::span<const std::byte> bytes, std::string name);
  const std::string& name() const { return name_; }
  const std::map<std::string, std::span<const std::byte>, std::less<>>& files() const { return files_; }

 private:
  struct Directory;
  Directory directory() const;
  uint64_t add_entry(uint64_t at, uint64_t end);
  std::span<const std::byte> content(uint64_t header, uint64_t size) const;
  std::span<const std::byte> part(uint64_t begin, uint64_t size) const;
  template <class T>
  T at(uint64_t offset) const;

  std::span<const std::byte> bytes_;
  std::string name_;
  std::map<std::string, std::span<const std::byte>, std::less<>> files_;
};

}  // namespace awq
