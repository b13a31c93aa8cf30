#include "serve/service.h"

namespace awq {

Service::Service(Device& device, const Model& model, const Batcher::Limits& limits, int queue)
    : queue_(queue), batcher_(device, model, limits) {
  longest_ = batcher_.longest();
  thread_ = std::thread([this] { run(); });
}

Service::~Service() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

std::optional<uint64_t> Service::submit(ServeRequest request) {
  batcher_.check(request);
  const std::lock_guard lock(mutex_);
  if (draining_ || counts_.waiting + int(coming_.size()) >= queue_) return {};
  coming_.emplace_back(++last_id_, std::move(request));
  idle_ = false;
  changed_.notify_one();
  return last_id_;
}

void Service::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  cancelled_.insert(id);
  changed_.notify_one();
}

void Service::drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

bool Service::idle() const {
  const std::lock_guard lock(mutex_);
  return idle_;
}

Batcher::Counts Service::counts() const {
  const std::lock_guard lock(mutex_);
  Batcher::Counts c = counts_;
  c.waiting += int(coming_.size());
  return c;
}

void Service::run() {
  while (take()) try {
      batcher_.step();
    } catch (const std::exception& e) {
      batcher_.fail_all(e.what());
    }
}

bool Service::take() {
  std::unique_lock lock(mutex_);
  counts_ = batcher_.counts();
  idle_ = batcher_.idle() && coming_.empty();
  changed_.wait(lock, [this] { return over_ || !batcher_.idle() || !coming_.empty() || !cancelled_.empty(); });
  for (auto& [id, request] : coming_) batcher_.add(id, std::move(request));
  for (uint64_t id : cancelled_) batcher_.cancel(id);
  coming_.clear();
  cancelled_.clear();
  counts_ = batcher_.counts();
  return !over_;
}

}  // namespace awq
