#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"
#include "io/descriptor.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

void sync_path(const fs::path& path) {
  const Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail_system("write", path, errno);
  sync_file(file.get(), path);
}

bool taken(const fs::path& path) {
  std::error_code ignored;  // what cannot be looked at cannot be written either, and that is reported then
  return fs::exists(fs::symlink_status(path, ignored));
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos && name.find('\0') == name.npos;
}

fs::path without_trailing_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

/// Fills as much of `buffer` as the file still has.
size_t read_some(int fd, std::span<char> buffer, const fs::path& path) {
  while (true) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n >= 0) return size_t(n);
    if (errno != EINTR) fail_system("read", path, errno);
  }
}

/// What a mapping's owner ends with, and how read_part knows the file.
struct Unmap {
  std::shared_ptr<const Descriptor> file;
  fs::path path;
  size_t size;
  void operator()(const void* p) const { ::munmap(const_cast<void*>(p), size); }
};

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const auto file = std::make_shared<const Descriptor>(path, O_RDONLY | O_NONBLOCK);  // a named pipe must not hang us
  struct stat info {};
  if (file->get() < 0 || ::fstat(file->get(), &info) != 0) fail_system("open", path, errno);
  if (S_ISDIR(info.st_mode)) fail_system("open", path, EISDIR);
  if (!S_ISREG(info.st_mode)) fail("open", "{}: not a regular file; only those can be mapped", path.string());
  if (info.st_size == 0)
    fail("open", "{}: the file is empty; perhaps a download was cut off: fetch it again", path.string());
  const auto size = size_t(info.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file->get(), 0);
  if (address == MAP_FAILED) fail_system("open", path, errno);
  owner_ = std::shared_ptr<const void>(address, Unmap{file, path, size});
  bytes_ = {static_cast<const std::byte*>(address), size};
}

void read_part(std::span<const std::byte> part, const std::shared_ptr<const void>& owner, std::byte* to) {
  const auto* mapping = std::get_deleter<Unmap>(owner);
  if (!mapping) {
    std::copy(part.begin(), part.end(), to);
    return;
  }
  auto offset = off_t(part.data() - static_cast<const std::byte*>(owner.get()));
  for (size_t left = part.size(); left;) {
    const ssize_t n = ::pread(mapping->file->get(), to, left, offset);
    if (n < 0 && errno != EINTR) fail_system("read", mapping->path, errno);
    if (n == 0) fail("read", "{}: the file has become shorter since it was opened", mapping->path.string());
    if (n < 0) continue;
    to += n;
    offset += n;
    left -= size_t(n);
  }
}

void drop_pages(std::span<const std::byte> part, const std::shared_ptr<const void>& owner) {
  if (!std::get_deleter<Unmap>(owner)) return;
  const auto page = size_t(::sysconf(_SC_PAGESIZE)), from = reinterpret_cast<size_t>(part.data()),
             begin = (from + page - 1) / page * page, end = (from + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);  // it is only advice
}

std::string read_text(const fs::path& path, uint64_t limit) {
  const Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail_system("open", path, errno);
  std::string text;
  std::array<char, 65536> buffer;
  while (const size_t n = read_some(file.get(), buffer, path)) {
    if (n > limit - text.size())
      fail("read", "{}: more than the {} bytes allowed for this kind of file", path.string(), limit);
    text.append(buffer.data(), n);
  }
  return text;
}

AtomicDir::AtomicDir(const OutputPlace& place)
    : final_(without_trailing_slash(place.final)), temporary_(place.work), kept_(!place.work.empty()) {
  if (final_.empty()) fail("write", "the output folder has no name");
  if (taken(final_)) fail("write", "{}: exists already; remove it or choose another output", final_.string());
  if (!kept_) temporary_ = final_, temporary_ += fmt::format(".partial-{}", ::getpid());
  const bool made = ::mkdir(temporary_.c_str(), 0777) == 0;
  if (!made && !(kept_ && errno == EEXIST)) fail_system("write", temporary_, errno);
}

AtomicDir::~AtomicDir() {
  std::error_code ignored;
  if (!committed_ && !kept_) fs::remove_all(temporary_, ignored);
}

fs::path AtomicDir::path(std::string_view name) const {
  if (!is_plain_name(name)) fail("write", "\"{}\" is no file name: a name without directories is needed", name);
  return temporary_ / name;
}

void AtomicDir::write(std::string_view name, std::string_view bytes) {
  OutputFile file(path(name));
  file.write(bytes);
  file.close();
}

void AtomicDir::copy(std::string_view name, const fs::path& from) {
  const Descriptor source(from, O_RDONLY);
  if (source.get() < 0) fail_system("open", from, errno);
  OutputFile target(path(name));
  std::vector<char> buffer(1 << 20);
  while (const size_t n = read_some(source.get(), buffer, from)) target.write(std::string_view(buffer.data(), n));
  target.close();
}

void AtomicDir::commit() {
  for (const auto& entry : fs::directory_iterator(temporary_)) sync_path(entry.path());
  sync_path(temporary_);
  // rename(2) replaces an empty folder silently and refuses everything else.
  if (taken(final_))
    fail("write", "{}: was created by another program meanwhile; remove it or choose another output", final_.string());
  if (::rename(temporary_.c_str(), final_.c_str()) != 0) fail_system("write", final_, errno);
  committed_ = true;
  sync_path(final_.has_parent_path() ? final_.parent_path() : ".");
}

OutputFile::OutputFile(const fs::path& path, uint64_t keep)
    : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | (keep ? 0 : O_TRUNC) | O_CLOEXEC, 0666)) {
  if (fd_ < 0) fail_system("write", path_, errno);
  if (!keep) return;
  const off_t size = ::lseek(fd_, 0, SEEK_END);
  if (size < off_t(keep))
    fail("write", "{}: {} bytes were written before, but it has {}; the job cannot go on", path_.string(), keep, size);
  if (::ftruncate(fd_, off_t(keep)) != 0 || ::lseek(fd_, 0, SEEK_END) < 0) fail_system("write", path_, errno);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) fail_system("write", path_, errno);
    if (n > 0) bytes = bytes.subspan(size_t(n));
  }
}

void OutputFile::overwrite(uint64_t offset, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::pwrite(fd_, text.data(), text.size(), off_t(offset));
    if (n < 0 && errno != EINTR) fail_system("write", path_, errno);
    if (n <= 0) continue;
    text.remove_prefix(size_t(n));
    offset += uint64_t(n);
  }
}

void OutputFile::sync() { sync_file(fd_, path_); }

void OutputFile::close() {
  sync();
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) fail_system("write", path_, errno);
}

void replace_file(const fs::path& path, std::string_view text) {
  fs::path next = path;
  next += ".next";
  OutputFile file(next);
  file.write(text);
  file.close();
  if (::rename(next.c_str(), path.c_str()) != 0) fail_system("write", path, errno);
}

}  // namespace awq
