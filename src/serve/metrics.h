#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "serve/batcher.h"

namespace awq {

/// What /metrics says, in Prometheus' text form, under vLLM's names where the meaning is the same. Not thread-safe.
class Metrics {
 public:
  class Histogram {
   public:
    void add(double seconds);
    std::string text(std::string_view name, std::string_view help) const;

   private:
    static constexpr std::array kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                           0.5,   1.,     2.5,   5.,   10.,   30.,  60., 120.};
    std::array<int64_t, kBounds.size() + 1> counts_{};
    double sum_ = 0;
  };

  Histogram first_token, between_tokens, whole;  // seconds, of generations
  void count_end(const std::string& reason) { ++ends_[reason]; }
  void count_status(int status) { ++statuses_[status]; }
  std::string text(const Batcher::Counts& counts, int connections) const;

 private:
  std::map<std::string, int64_t> ends_;
  std::map<int, int64_t> statuses_;
};

}  // namespace awq
