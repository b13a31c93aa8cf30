#pragma once
// What the files of this folder share: an open descriptor, and errors of the system in words.
#include <filesystem>
#include <string_view>

namespace awq {

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags);
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }  // negative where it could not be opened, with errno

 private:
  int fd_;
};

/// Throws Error with the system's sentence and, where there is something to say, what to do about it.
[[noreturn]] void fail_system(std::string_view operation, const std::filesystem::path& path, int error);
void sync_file(int fd, const std::filesystem::path& path);  // throws Error

}  // namespace awq
