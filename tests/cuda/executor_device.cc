#include "cuda/executor_device.h"

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <stdexcept>

#include "cuda/executor_set.h"

namespace awq::cuda {
namespace {

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

/// The kernels, with the device's memory open while they run.
template <auto Member, class Args>
void with_memory(void* on, const Args& a) {
  const Opened opened(*static_cast<Arena*>(on));
  (executor_kernels().*Member)(nullptr, a);
}

constexpr Kernels kOpening = {.linear = with_memory<&Kernels::linear, LinearArgs>,
                              .prepare = with_memory<&Kernels::prepare, PrepareArgs>,
                              .pack_codes = with_memory<&Kernels::pack_codes, PackCodesArgs>,
                              .pack_floats = with_memory<&Kernels::pack_floats, PackFloatsArgs>,
                              .norm = with_memory<&Kernels::norm, NormArgs>,
                              .rope = with_memory<&Kernels::rope, RopeArgs>,
                              .join = with_memory<&Kernels::join, JoinArgs>,
                              .map = with_memory<&Kernels::map, MapArgs>,
                              .rows = with_memory<&Kernels::rows, RowsArgs>,
                              .greedy = with_memory<&Kernels::greedy, GreedyArgs>,
                              .kv_store = with_memory<&Kernels::kv_store, KvStoreArgs>,
                              .attention = with_memory<&Kernels::attention, AttentionArgs>};

class ExecutorDevice final : public Device {
 public:
  ExecutorDevice(size_t bytes, int multiprocessors) : arena_(bytes), multiprocessors_(multiprocessors) {}
  const Kernels& kernels() const override { return kOpening; }
  void* stream() override { return &arena_; }
  int multiprocessors() const override { return multiprocessors_; }
  std::string name() const override { return "executor"; }
  // New memory holds NaNs, in every type of float.
  void* allocate(size_t bytes) override {
    void* p = arena_.allocate(bytes);
    if (!p) return nullptr;
    const Opened opened(arena_);
    return std::memset(p, 0xff, bytes);
  }
  void release(void* p) noexcept override { arena_.release(p); }
  int64_t free_bytes() override { return int64_t(arena_.free_bytes()); }
  void upload(void* to, const void* from, size_t bytes) override { move(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { move(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { move(to, from, bytes); }
  void zero(void* to, size_t bytes) override {
    const Opened opened(arena_);
    std::memset(to, 0, bytes);
  }
  void wait() override {}

 private:
  void move(void* to, const void* from, size_t bytes) {
    const Opened opened(arena_);
    std::memcpy(to, from, bytes);
  }
  Arena arena_;
  int multiprocessors_;
};

}  // namespace

std::unique_ptr<Device> executor_device(size_t bytes, int multiprocessors) {
  return std::make_unique<ExecutorDevice>(bytes, multiprocessors);
}

}  // namespace awq::cuda
