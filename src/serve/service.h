#pragma once
#include <condition_variable>
#include <mutex>
#include <thread>

#include "serve/batcher.h"

namespace awq {

/// A Batcher on a thread of its own. Thread-safe; events come on that thread.
class Service {
 public:
  /// At most `queue` requests wait for their turn.
  Service(Device& device, const Model& model, const Batcher::Limits& limits, int queue);
  /// Requests that are still there hear nothing more.
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  int longest() const { return longest_; }
  /// The id to cancel it by; none where the queue is full or drain() was called. Throws Error as Batcher::add does.
  std::optional<uint64_t> submit(ServeRequest request);
  /// It is not computed any more from the next step on; what was on its way is still told.
  void cancel(uint64_t id);
  /// Refuses whatever comes from now on; what is there goes on.
  void drain();
  bool idle() const;
  Batcher::Counts counts() const;

 private:
  void run();
  /// Waits for work and takes what came meanwhile; false: it is over.
  bool take();

  int longest_, queue_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<uint64_t, ServeRequest>> coming_;
  std::set<uint64_t> cancelled_;
  Batcher::Counts counts_;
  uint64_t last_id_ = 0;
  bool draining_ = false, over_ = false, idle_ = true;
  Batcher batcher_;
  std::thread thread_;
};

}  // namespace awq
