#include "cuda/executor_device.h"

#include <sys/mman.h>

#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/executor_set.h"

namespace awq::cuda {

namespace executor {
Counts counts;
}

namespace {

using executor::counts;

constexpr size_t kPage = 4096;

/// Memory of the device, first fit.
class Arena {
 public:
  explicit Arena(size_t bytes) : bytes_(bytes) {
    void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::runtime_error("mmap");
    base_ = static_cast<uint8_t*>(p);
    free_[0] = bytes;
  }
  ~Arena() { munmap(base_, bytes_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void* allocate(size_t bytes) {
    bytes = (bytes + kPage - 1) / kPage * kPage;
    for (auto [at, room] : free_) {
      if (room < bytes) continue;
      free_.erase(at);
      if (room > bytes) free_[at + bytes] = room - bytes;
      used_[at] = bytes;
      top_ = std::max(top_, at + bytes);
      left_ -= bytes;
      return base_ + at;
    }
    return nullptr;
  }
  void release(void* p) {
    const auto at = size_t(static_cast<uint8_t*>(p) - base_);
    left_ += used_.at(at);
    free_[at] = used_.at(at);
    used_.erase(at);
  }
  size_t free_bytes() const { return bytes_ + left_; }
  void open(bool yes) { mprotect(base_, top_, yes ? PROT_READ | PROT_WRITE : PROT_NONE); }

 private:
  uint8_t* base_ = nullptr;
  size_t bytes_, top_ = 0, left_ = 0;
  std::map<size_t, size_t> free_, used_;
};

class Opened {
 public:
  explicit Opened(Arena& a) : arena_(a) { a.open(true); }
  ~Opened() { arena_.open(false); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

 private:
  Arena& arena_;
};

/// What is put on it is done at once, or recorded.
class Stream {
 public:
  explicit Stream(size_t bytes) : arena(bytes) {}
  template <class F>
  void put(const F& work) {
    if (recorded_) return recorded_->push_back(work);
    ++counts.started;
    const Opened opened(arena);
    work();
  }
  void refuse_recording(const char* what) const {
    if (recorded_) throw std::runtime_error(std::string(what) + " while a step is recorded");
  }
  void begin() { recorded_.emplace(); }
  std::vector<std::function<void()>> end() {
    auto all = std::move(*recorded_);
    recorded_.reset();
    return all;
  }
  Arena arena;

 private:
  std::optional<std::vector<std::function<void()>>> recorded_;
};

class RecordedWork final : public Recording {
 public:
  RecordedWork(Stream& stream, std::vector<std::function<void()>> work) : stream_(stream), work_(std::move(work)) {}
  void replay() override {
    ++counts.replays;
    const Opened opened(stream_.arena);
    for (const auto& w : work_) w();
  }

 private:
  Stream& stream_;
  std::vector<std::function<void()>> work_;
};

/// The kernels, with the device's memory open while they run.
template <auto Member, class Args>
void with_memory(void* on, const Args& a) {
  static_cast<Stream*>(on)->put([a] { (executor_kernels().*Member)(nullptr, a); });
}

constexpr Kernels kOpening = {.linear = with_memory<&Kernels::linear, LinearsArgs>,
                              .prepare = with_memory<&Kernels::prepare, PrepareArgs>,
                              .pack_codes = with_memory<&Kernels::pack_codes, PackCodesArgs>,
                              .pack_floats = with_memory<&Kernels::pack_floats, PackFloatsArgs>,
                              .norm = with_memory<&Kernels::norm, NormArgs>,
                              .rope = with_memory<&Kernels::rope, RopeArgs>,
                              .join = with_memory<&Kernels::join, JoinArgs>,
                              .map = with_memory<&Kernels::map, MapArgs>,
                              .rows = with_memory<&Kernels::rows, RowsArgs>,
                              .top = with_memory<&Kernels::top, TopArgs>,
                              .kv_store = with_memory<&Kernels::kv_store, KvStoreArgs>,
                              .heads = with_memory<&Kernels::heads, HeadsArgs>,
                              .attention = with_memory<&Kernels::attention, AttentionArgs>};

class ExecutorDevice final : public Device {
 public:
  ExecutorDevice(size_t bytes, int multiprocessors, bool groups)
      : stream_(bytes), multiprocessors_(multiprocessors), groups_(groups) {}
  const Kernels& kernels() const override { return kOpening; }
  void* stream() override { return &stream_; }
  int multiprocessors() const override { return multiprocessors_; }
  bool multiplies_by_groups() const override { return groups_; }
  std::string name() const override { return "executor"; }
  // New memory holds NaNs, in every type of float.
  void* allocate(size_t bytes) override {
    void* p = stream_.arena.allocate(bytes);
    if (!p) return nullptr;
    const Opened opened(stream_.arena);
    return std::memset(p, 0xff, bytes);
  }
  void release(void* p) noexcept override { stream_.arena.release(p); }
  int64_t free_bytes() override { return int64_t(stream_.arena.free_bytes()); }
  void upload(void* to, const void* from, size_t bytes) override {
    stream_.refuse_recording("an upload");
    ++counts.uploads;
    move(to, from, bytes);
  }
  void download(void* to, const void* from, size_t bytes) override {
    stream_.refuse_recording("a download");
    counts.downloaded += int64_t(bytes);
    move(to, from, bytes);
  }
  void copy(void* to, const void* from, size_t bytes) override {
    stream_.put([=] { std::memcpy(to, from, bytes); });
  }
  void zero(void* to, size_t bytes) override {
    stream_.put([=] { std::memset(to, 0, bytes); });
  }
  void wait() override { stream_.refuse_recording("a wait"); }
  void begin_recording() override { stream_.begin(); }
  std::unique_ptr<Recording> end_recording(bool keep) override {
    auto work = stream_.end();
    if (!keep) return nullptr;
    counts.recorded = int(work.size());
    return std::make_unique<RecordedWork>(stream_, std::move(work));
  }

 private:
  void move(void* to, const void* from, size_t bytes) {
    const Opened opened(stream_.arena);
    std::memcpy(to, from, bytes);
  }
  Stream stream_;
  int multiprocessors_;
  bool groups_;
};

}  // namespace

std::unique_ptr<Device> executor_device(size_t bytes, int multiprocessors, bool groups) {
  return std::make_unique<ExecutorDevice>(bytes, multiprocessors, groups);
}

}  // namespace awq::cuda
