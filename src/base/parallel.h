#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace awq {

/// A thread that runs tasks in the order they come, beside everything else; it ends when all have run. Tasks do not
/// throw.
class TaskThread {
 public:
  TaskThread();
  ~TaskThread();
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;
  void add(std::function<void()> task);  // from any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A fixed team of threads, the caller included. One `run` at a time; calls from several threads take turns.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // 0: one per physical core
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int size() const;

  /// Calls work(begin, end) on disjoint ranges that cover [0, n), at most one range a thread, each a multiple of
  /// `grain` long but the last. An exception of any range is rethrown here once all have ended.
  void run(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& work);
  /// Calls work(i) for each i in [0, n), taken one by one: for pieces of very different cost whose results do not
  /// depend on the order.
  void each(int64_t n, const std::function<void(int64_t i)>& work);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace awq
