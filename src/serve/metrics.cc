#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace awq {
namespace {

std::string head(std::string_view name, std::string_view kind, std::string_view help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, kind);
}
template <class T>
std::string one(std::string_view name, std::string_view kind, std::string_view help, T value) {
  return head(name, kind, help) + fmt::format("{} {}\n", name, value);
}

}  // namespace

void Metrics::Histogram::add(double seconds) {
  ++counts_[size_t(std::ranges::lower_bound(kBounds, seconds) - kBounds.begin())];
  sum_ += seconds;
}

std::string Metrics::Histogram::text(std::string_view name, std::string_view help) const {
  std::string s = head(name, "histogram", help);
  int64_t n = 0;
  for (size_t i = 0; i < kBounds.size(); ++i)
    s += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, kBounds[i], n += counts_[i]);
  n += counts_.back();
  return s + fmt::format("{}_bucket{{le=\"+Inf\"}} {}\n{}_sum {}\n{}_count {}\n", name, n, name, sum_, name, n);
}

std::string Metrics::text(const Batcher::Counts& c, int connections) const {
  std::string s =
      one("vllm:num_requests_running", "gauge", "Requests at work", c.running) +
      one("vllm:num_requests_waiting", "gauge", "Requests that wait for their turn", c.waiting) +
      one("vllm:kv_cache_usage_perc", "gauge", "Share of the memory for keys and values in use, 1 is all", c.kv_used) +
      one("vllm:num_preemptions_total", "counter", "Requests put back for want of that memory", c.preemptions) +
      one("vllm:prompt_tokens_total", "counter", "Tokens of prompts that were computed", c.prompt_tokens) +
      one("vllm:generation_tokens_total", "counter", "Tokens that were generated", c.generated_tokens) +
      one("vllm:prefix_cache_hits_total", "counter", "Tokens of prompts that were there already", c.cached_tokens) +
      one("vllm:prefix_cache_queries_total", "counter", "Tokens of prompts", c.cached_tokens + c.prompt_tokens) +
      one("awq:steps_total", "counter", "Forward passes", c.steps) +
      one("awq:connections", "gauge", "Open connections", connections);
  s += head("vllm:request_success_total", "counter", "Answers by how they ended");
  for (const auto& [reason, n] : ends_)
    s += fmt::format("vllm:request_success_total{{finished_reason=\"{}\"}} {}\n", reason, n);
  s += head("awq:replies_total", "counter", "Replies by HTTP status");
  for (const auto& [status, n] : statuses_) s += fmt::format("awq:replies_total{{status=\"{}\"}} {}\n", status, n);
  return s + first_token.text("vllm:time_to_first_token_seconds", "From the request to its first token") +
         between_tokens.text("vllm:inter_token_latency_seconds", "From a token to the next of the same answer") +
         whole.text("vllm:e2e_request_latency_seconds", "From the request to the end of its answers");
}

}  // namespace awq
