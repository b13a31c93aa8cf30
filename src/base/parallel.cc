#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/cpu.h"

namespace awq {
namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");  // yield is a no-op on most cores
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

// A pause is 40 to 140 cycles: some tens of microseconds, longer than the serial code between two layers and too short
// to be seen in an idle process. Waking a sleeping thread costs about 50 microseconds.
constexpr int kSpins = 1000;

// Returns once a != old, spinning first.
template <class T>
T wait_change(const std::atomic<T>& a, T old, int spins) {
  for (int i = 0; i < spins; ++i, pause())
    if (const T now = a.load(std::memory_order_acquire); now != old) return now;
  a.wait(old, std::memory_order_acquire);
  return a.load(std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::Impl {
  using Job = std::function<void(int thread)>;

  explicit Impl(int threads) : size(threads), spins(threads > int(std::thread::hardware_concurrency()) ? 0 : kSpins) {}
  ~Impl() {
    publish(nullptr);
    for (std::thread& t : workers) t.join();
  }
  void start() {
    for (int i = 1; i < size; ++i) workers.emplace_back([this, i] { serve(i); });
  }

  /// job(i) for each thread i < size; the caller is thread 0. The job must not throw.
  void fork(const Job& j) {
    pending.store(int(workers.size()), std::memory_order_relaxed);
    publish(&j);
    j(0);
    for (int left = pending.load(std::memory_order_acquire); left != 0;) left = wait_change(pending, left, spins);
  }

  void publish(const Job* j) {
    job = j;
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
  }

  void serve(int thread) {
    stay_on(cpus);
    for (uint32_t seen = 0;;) {
      // Not the value read: a second job cannot be published before this thread has finished the first.
      wait_change(generation, seen++, spins);
      if (!job) return;
      (*job)(thread);
      if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) pending.notify_one();
    }
  }

  /// Whether the calling thread is already at work for this pool.
  bool inside() const {
    const auto me = std::this_thread::get_id();
    return me == caller.load(std::memory_order_relaxed) ||
           std::any_of(workers.begin(), workers.end(), [&](const std::thread& t) { return t.get_id() == me; });
  }

  /// Keeps other callers out and marks this thread as the caller.
  class Turn {
   public:
    explicit Turn(Impl& p) : lock_(p.callers), p_(p) {
      p_.caller.store(std::this_thread::get_id(), std::memory_order_relaxed);
    }
    ~Turn() { p_.caller.store({}, std::memory_order_relaxed); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    std::lock_guard<std::mutex> lock_;
    Impl& p_;
  };

  const int size, spins;
  const std::vector<int> cpus = one_cpu_per_core(size);
  std::vector<std::thread> workers;
  std::mutex callers;
  std::atomic<std::thread::id> caller{};
  const Job* job = nullptr;  // published by generation
  alignas(64) std::atomic<uint32_t> generation{0};
  alignas(64) std::atomic<int> pending{0};
};

namespace {

/// The exception of the lowest index among those that threads report.
class FirstError {
 public:
  void set(int64_t index) {
    const std::lock_guard lock(mutex_);
    if (index < index_) index_ = index, error_ = std::current_exception();
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  int64_t index_ = std::numeric_limits<int64_t>::max();
  std::exception_ptr error_;
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  if (threads < 0 || threads > 4096)
    fail("threads", "{} is not a number of threads; give 1 to 4096, or 0 for one per core", threads);
  impl_ = std::make_unique<Impl>(threads ? threads : physical_cores());
  impl_->start();
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::size() const { return impl_->size; }

void ThreadPool::run(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t units = (n - 1) / grain + 1, pieces = std::min<int64_t>(units, size());
  if (pieces == 1 || impl_->inside()) return work(0, n);
  // unit * grain can pass n only at the last unit, and n bounds it there.
  const auto start = [&](int64_t piece) {
    return piece == pieces ? n : (units / pieces * piece + std::min(piece, units % pieces)) * grain;
  };
  FirstError error;
  const Impl::Turn turn(*impl_);
  impl_->fork([&](int thread) {
    if (thread >= pieces) return;
    try {
      work(start(thread), start(thread + 1));
    } catch (...) {
      error.set(thread);
    }
  });
  error.rethrow();
}

void ThreadPool::each(int64_t n, const std::function<void(int64_t)>& work) {
  if (n <= 1 || size() == 1 || impl_->inside()) {
    for (int64_t i = 0; i < n; ++i) work(i);
    return;
  }
  std::atomic<int64_t> next{0};
  FirstError error;
  const Impl::Turn turn(*impl_);
  impl_->fork([&](int) {
    int64_t i = 0;
    try {
      while ((i = next.fetch_add(1, std::memory_order_relaxed)) < n) work(i);
    } catch (...) {
      // Every index below i has been taken already, so the lowest that throws is always found.
      error.set(i);
      next.store(n, std::memory_order_relaxed);
    }
  });
  error.rethrow();
}

struct TaskThread::Impl {
  void serve() {
    while (true) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [this] { return !waiting.empty(); });
      const std::function<void()> task = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      if (!task) return;
      task();
    }
  }
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> waiting;  // an empty one ends it
  std::thread thread{[this] { serve(); }};    // the last: it uses the others
};

TaskThread::TaskThread() : impl_(std::make_unique<Impl>()) {}

TaskThread::~TaskThread() {
  add({});
  impl_->thread.join();
}

void TaskThread::add(std::function<void()> task) {
  const std::lock_guard lock(impl_->mutex);
  impl_->waiting.push_back(std::move(task));
  impl_->changed.notify_one();
}

}  // namespace awq
