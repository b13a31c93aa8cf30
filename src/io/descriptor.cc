#include "io/descriptor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/check.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

std::string free_space(const fs::path& path) {
  std::error_code error;
  auto space = fs::space(path, error);
  if (error) space = fs::space(path.parent_path(), error);  // the file could not even be created
  return error ? "nothing" : fmt::format("{:.1f} MB", double(space.available) / 1e6);
}

/// What to do about an error number; empty where the system's own sentence has to do.
std::string advice(int error, const fs::path& path) {
  switch (error) {
    case ENOENT:
      return "; check the path";
    case EACCES:
      return fmt::format("; check the permissions with: ls -ld '{}'", path.string());
    case EISDIR:
      return "; give a file";
    case EDQUOT:
      return "; free some of your quota or write elsewhere";
    case EFBIG:
      return "; a limit of this file system, or of the shell: see ulimit -f";
    case ENOSPC:
      return fmt::format("; the disk is full, it has {} left: free some space or write to another disk",
                         free_space(path));
    default:
      return "";
  }
}

}  // namespace

void fail_system(std::string_view operation, const fs::path& path, int error) {
  fail(operation, "{}: {}{}", path.string(), std::generic_category().message(error), advice(error, path));
}

Descriptor::Descriptor(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

void sync_file(int fd, const fs::path& path) {
  // EINVAL: a device or pipe, which has nothing to sync.
  if (::fsync(fd) != 0 && errno != EINVAL) fail_system("write", path, errno);
}

}  // namespace awq
