#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "serve/batcher.h"

namespace awq {

/// What /metrics says, in Prometheus' text form, under vLLM's names where the meaning is the same. Not thread-safe.
class Metrics {
 public:
  using Clock = std::chrono::steady_clock;
  /// Of one answer.
  struct Times {
    Clock::time_point begun{}, first{}, last{};  // it waits no longer; tokens
  };
  class Histogram {
   public:
    explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
    void add(double value);
    std::string text(std::string_view name, std::string_view labels, std::string_view help) const;

   private:
    const std::vector<double> bounds_;
    std::vector<int64_t> counts_;
    double sum_ = 0;
  };
  static std::vector<double> seconds() {
    return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
  }
  static std::vector<double> tokens() {
    return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
  }

  explicit Metrics(const std::string& model);
  Histogram first_token{seconds()}, between_tokens{seconds()}, whole{seconds()};
  void count_end(const std::string& reason) { ++ends_[reason]; }
  void count_status(int status) { ++statuses_[status]; }
  /// Of an answer that has ended; `asked`: when its request came.
  void count_answer(size_t prompt, int generated, Clock::time_point asked, const Times& times);
  std::string text(const Batcher::Counts& counts, int connections) const;

 private:
  const std::string labels_;  // of every name of vLLM's, whose users select by the model
  Histogram waiting_{seconds()}, reading_{seconds()}, answering_{seconds()}, prompts_{tokens()}, answers_{tokens()};
  std::map<std::string, int64_t> ends_;
  std::map<int, int64_t> statuses_;
};

}  // namespace awq
