#include "io/scratch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"
#include "io/file.h"

namespace awq {

namespace fs = std::filesystem;

ScratchFile::ScratchFile(const fs::path& path, int64_t cols)
    : path_(path), file_(path, O_RDWR | O_CREAT), row_bytes_(cols * int64_t(sizeof(float))) {
  if (file_.get() < 0) fail_system("write", path_, errno);
}

int64_t ScratchFile::rows() const {
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0) fail_system("read", path_, errno);
  return info.st_size / row_bytes_;
}

Tensor ScratchFile::read(int64_t begin, int64_t end) const {
  Tensor x = Tensor::empty({end - begin, row_bytes_ / int64_t(sizeof(float))}, DType::f32);
  for (size_t done = 0; done < x.bytes();) {
    const ssize_t n = ::pread(file_.get(), x.data() + done, x.bytes() - done, begin * row_bytes_ + off_t(done));
    if (n < 0 && errno != EINTR) fail_system("read", path_, errno);
    if (n == 0) fail("read", "{}: ends before row {}; was it changed by another program?", path_.string(), end);
    if (n > 0) done += size_t(n);
  }
  return x;
}

void ScratchFile::write(int64_t row, const Tensor& x) {
  for (size_t done = 0; done < x.bytes();) {
    const ssize_t n = ::pwrite(file_.get(), x.data() + done, x.bytes() - done, row * row_bytes_ + off_t(done));
    if (n < 0 && errno != EINTR) fail_system("write", path_, errno);
    if (n > 0) done += size_t(n);
  }
}

void ScratchFile::sync() { sync_file(file_.get(), path_); }

FileLock::FileLock(const fs::path& path, std::string_view what) : file_(path, O_RDWR | O_CREAT) {
  if (file_.get() < 0) fail_system("lock", path, errno);
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) fail_system("lock", path, errno);
    std::string owner = read_text(path, 64);
    fail("lock", "{}: process {} is at work on it; wait for it or choose another output", what,
         owner.empty() ? "of another program" : owner);
  }
  struct stat held {
  }, there{};
  if (::fstat(file_.get(), &held) != 0 || ::stat(path.c_str(), &there) != 0 || held.st_ino != there.st_ino)
    fail("lock", "{}: another process has just ended it; look at what it left and start again", what);
  const std::string me = std::to_string(::getpid());
  if (::ftruncate(file_.get(), 0) != 0 || ::pwrite(file_.get(), me.data(), me.size(), 0) != ssize_t(me.size()))
    fail_system("lock", path, errno);
}

}  // namespace awq
