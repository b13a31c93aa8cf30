#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace awq {

/// A whole file, read-only in memory. The mapping, and the open file, live as long as a copy of the owner does.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // throws Error: missing, unreadable, a directory, empty
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
};

/// Copies `part` of what `owner` keeps, read from the file where a MappedFile has mapped it: a mapped page would stay
/// in the process' memory, with up to 2 MB around it. Throws Error where the file cannot be read any more.
void read_part(std::span<const std::byte> part, const std::shared_ptr<const void>& owner, std::byte* to);
/// Where `owner` is a MappedFile's, the pages of `part` no longer count as the program's memory; they are read from the
/// file again when they are used. Other memory stays as it is.
void drop_pages(std::span<const std::byte> part, const std::shared_ptr<const void>& owner);

/// A text file of at most `limit` bytes.
std::string read_text(const std::filesystem::path& path, uint64_t limit = uint64_t(256) << 20);

/// Where a folder is to appear, and where it is written meanwhile: `work`, which may exist and stays until it is
/// complete, or where that is empty "<final>.partial-<pid>".
struct OutputPlace {
  std::filesystem::path final, work{};
  template <class Path>
  requires std::convertible_to<Path, std::filesystem::path> OutputPlace(const Path& f)
      : final(f) {}  // NOLINT(google-explicit-constructor)
  OutputPlace(std::filesystem::path f, std::filesystem::path w) : final(std::move(f)), work(std::move(w)) {}
};

/// A folder that appears at once or not at all: `commit` fsyncs what was written elsewhere and renames. Destroyed
/// uncommitted, it removes what it wrote, unless it was given a place to keep it. Throws Error if `final` exists.
class AtomicDir {
 public:
  explicit AtomicDir(const OutputPlace& place);
  ~AtomicDir();
  AtomicDir(const AtomicDir&) = delete;
  AtomicDir& operator=(const AtomicDir&) = delete;
  std::filesystem::path path(std::string_view name) const;  // inside the temporary folder
  void write(std::string_view name, std::string_view bytes);
  void copy(std::string_view name, const std::filesystem::path& from);
  void commit();

 private:
  std::filesystem::path final_, temporary_;
  bool kept_, committed_ = false;
};

/// A file written front to back. Every error of the system, disk full above all, throws Error with the path.
class OutputFile {
 public:
  /// `keep`: the first bytes of a file that an earlier process has begun; what follows them is cut off. Throws Error
  /// where there are fewer.
  explicit OutputFile(const std::filesystem::path& path, uint64_t keep = 0);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  void overwrite(uint64_t offset, std::string_view text);  // bytes that were written before
  void sync();                                             // what was written is on the disk
  void close();  // flushes, fsyncs and reports what failed; the destructor does not

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

/// Replaces the file's content at once: after a crash it is the old or the new, and the new once this returns.
void replace_file(const std::filesystem::path& path, std::string_view text);

}  // namespace awq
