// Files of a hub into a folder.
#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <mutex>
#include <thread>
#include <utility>

#include "awq/awq.h"
#include "base/check.h"
#include "base/sha256.h"
#include "hub/hub.h"
#include "hub/retry.h"
#include "io/descriptor.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

uint64_t size_of(const fs::path& file) {
  std::error_code error;
  const auto size = fs::file_size(file, error);
  return error ? 0 : size;
}

std::string sha256_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::vector<char> part(1 << 20);
  Sha256 hash;
  while (in.read(part.data(), std::streamsize(part.size())) || in.gcount())
    hash.add(std::string_view(part.data(), size_t(in.gcount())));
  return hash.hex();
}

/// A file that grows at its end.
class PartFile {
 public:
  explicit PartFile(const fs::path& path) : path_(path), file_(std::fopen(path.c_str(), "ab")) {
    if (!file_) fail_system("pull", path_, errno);
  }
  ~PartFile() { std::fclose(file_); }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  void restart() {
    if (std::fflush(file_) != 0) fail_system("pull", path_, errno);
    fs::resize_file(path_, 0);
  }
  void add(std::span<const std::byte> bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail_system("pull", path_, errno);
  }
  void flush() {
    if (std::fflush(file_) != 0) fail_system("pull", path_, errno);
  }

 private:
  fs::path path_;
  std::FILE* file_;
};

/// What the threads share.
struct Work {
  const HubModel& model;
  const fs::path& folder;
  const FetchOptions& options;
  std::vector<HubFile> files;
  std::atomic<size_t> next = 0;
  std::atomic<uint64_t> done = 0;  // bytes
  std::atomic<bool> stop = false;
  std::atomic<int> running = 0;
  std::mutex lock{};
  std::exception_ptr error{};  // the first
};

/// One file by one thread.
class Fetch {
 public:
  Fetch(Work& work, HttpClient& http, const HubFile& file)
      : work_(work),
        http_(http),
        file_(file),
        final_(work.folder / file.name),
        part_(work.folder / (file.name + ".part")),
        url_(fmt::format("{}/{}/resolve/{}/{}", work.options.endpoint, work.model.name, work.model.commit,
                         escaped(file.name))) {}

  void run() {
    if (size_of(final_) == file_.size && is_right(final_)) {
      work_.done += file_.size;
      return;
    }
    for (int attempt = 0; !fetched(); ++attempt)
      if (attempt == 1)
        fail("pull", "{}: its SHA-256 is not {}, twice; the hub or something on the way changes the file", url_,
             file_.sha256);
  }

 private:
  static std::string escaped(std::string_view name) {
    std::string out;
    for (const unsigned char c : name)
      out += std::isalnum(c) || std::strchr("-._~", c) ? std::string(1, char(c)) : fmt::format("%{:02X}", int(c));
    return out;
  }

  bool is_right(const fs::path& file) const { return file_.sha256.empty() || sha256_of(file) == file_.sha256; }

  /// false where the bytes are not those that they should be; they are then gone.
  bool fetched() {
    if (size_of(part_) > file_.size) fs::resize_file(part_, 0);
    have_ = size_of(part_);
    work_.done += have_;
    if (have_ < file_.size || file_.size == 0)
      with_retries(
          url_, [this] { return attempt(); }, [this](std::chrono::seconds s) { pause(s); });
    if (have_ != file_.size)
      fail("pull", "{}: {} bytes came, but the hub's list says {}; run the same command again", url_, have_,
           file_.size);
    if (!is_right(part_)) {
      fs::remove(part_);
      work_.done -= have_;
      return false;
    }
    fs::rename(part_, final_);
    return true;
  }

  Attempt attempt() {
    PartFile out(part_);
    const uint64_t before = have_;
    bool first = true;
    const HttpResult result = http_.get(url_, have_, [&](std::span<const std::byte> bytes, bool whole) {
      if (work_.stop) return false;
      if (std::exchange(first, false) && whole && have_) restart(out);
      out.add(bytes);
      have_ += bytes.size();
      work_.done += bytes.size();
      return have_ <= file_.size;  // more than it should be: not this file
    });
    out.flush();
    if (work_.stop) throw Cancelled();
    if (result.status == 416) {  // what we have is no beginning of the file
      restart(out);
      return {{.problem = "the hub has no more of it than we have"}, before > 0};
    }
    const bool cut = (result.status == 200 || result.status == 206) && have_ < file_.size;
    return {cut ? HttpResult{.problem = "the connection ended early"} : result, have_ > before};
  }

  void restart(PartFile& out) {
    out.restart();
    work_.done -= have_;
    have_ = 0;
  }

  void pause(std::chrono::seconds wait) const {
    const auto end = std::chrono::steady_clock::now() + wait;
    while (!work_.stop && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (work_.stop) throw Cancelled();
  }

  Work& work_;
  HttpClient& http_;
  const HubFile& file_;
  fs::path final_, part_;
  std::string url_;
  uint64_t have_ = 0;
};

void fetch_some(Work& work) {
  try {
    HttpClient http(work.options.http);
    for (size_t i; !work.stop && (i = work.next++) < work.files.size();) Fetch(work, http, work.files[i]).run();
  } catch (...) {
    const std::lock_guard guard(work.lock);
    if (!work.error) work.error = std::current_exception();
    work.stop = true;
  }
  --work.running;
}

void require_space(const fs::path& folder, uint64_t bytes) {
  std::error_code error;
  const auto space = fs::space(folder, error);
  if (!error && space.available < bytes)
    fail("pull",
         "{}: {:.1f} MB are to be fetched, but the disk has {:.1f} MB left; free some space or set XDG_CACHE_HOME",
         folder.string(), double(bytes) / 1e6, double(space.available) / 1e6);
}

}  // namespace

void fetch_files(const HubModel& model, const std::vector<HubFile>& files, const fs::path& folder,
                 const FetchOptions& options) {
  fs::create_directories(folder);
  fs::remove(folder / ".complete");
  uint64_t total = 0, missing = 0;
  for (const HubFile& f : files) {
    total += f.size;
    if (!fs::exists(folder / f.name)) missing += f.size - std::min(f.size, size_of(folder / (f.name + ".part")));
  }
  require_space(folder, missing);
  Work work{.model = model, .folder = folder, .options = options, .files = files};
  std::ranges::sort(work.files, std::greater(), &HubFile::size);  // the largest first, so that no thread ends alone
  std::vector<std::jthread> threads;
  work.running = options.connections;
  for (int i = 0; i < options.connections; ++i) threads.emplace_back([&] { fetch_some(work); });
  while (work.running) {
    if (options.on_progress && !options.on_progress(work.done, total)) work.stop = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  threads.clear();
  if (work.error) std::rethrow_exception(work.error);
  if (work.stop) throw Cancelled();
  std::ofstream(folder / ".complete") << model.commit << "\n";
}

}  // namespace awq
