#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace awq {
namespace {

std::string head(std::string_view name, std::string_view kind, std::string_view help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, kind);
}

double between(Metrics::Clock::time_point a, Metrics::Clock::time_point b) {
  return std::max(0., std::chrono::duration<double>(b - a).count());
}

/// Prometheus escapes what JSON does, of what a name may have.
std::string quoted(const std::string& s) {
  return nlohmann::json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void Metrics::Histogram::add(double value) {
  ++counts_[size_t(std::ranges::lower_bound(bounds_, value) - bounds_.begin())];
  sum_ += value;
}

std::string Metrics::Histogram::text(std::string_view name, std::string_view labels, std::string_view help) const {
  std::string s = head(name, "histogram", help);
  int64_t n = 0;
  for (size_t i = 0; i < bounds_.size(); ++i)
    s += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bounds_[i], n += counts_[i]);
  n += counts_.back();
  return s + fmt::format("{0}_bucket{{{1},le=\"+Inf\"}} {2}\n{0}_sum{{{1}}} {3}\n{0}_count{{{1}}} {2}\n", name, labels,
                         n, sum_);
}

Metrics::Metrics(const std::string& model) : labels_(fmt::format("model_name={},engine=\"0\"", quoted(model))) {}

void Metrics::count_answer(size_t prompt, int generated, Clock::time_point asked, const Times& times) {
  prompts_.add(double(prompt));
  answers_.add(generated);
  if (times.begun == Clock::time_point()) return;
  waiting_.add(between(asked, times.begun));
  if (!generated) return;
  reading_.add(between(times.begun, times.first));
  answering_.add(between(times.first, times.last));
}

std::string Metrics::text(const Batcher::Counts& c, int connections) const {
  const auto one = [&](std::string_view name, std::string_view kind, std::string_view help, auto value) {
    return head(name, kind, help) + fmt::format("{}{{{}}} {}\n", name, labels_, value);
  };
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
    s += fmt::format("vllm:request_success_total{{{},finished_reason=\"{}\"}} {}\n", labels_, reason, n);
  s += head("awq:replies_total", "counter", "Replies by HTTP status");
  for (const auto& [status, n] : statuses_) s += fmt::format("awq:replies_total{{status=\"{}\"}} {}\n", status, n);
  const auto histogram = [&](const Histogram& h, std::string_view name, std::string_view help) {
    s += h.text(name, labels_, help);
  };
  histogram(first_token, "vllm:time_to_first_token_seconds", "From the request to its first token");
  histogram(between_tokens, "vllm:inter_token_latency_seconds", "From a token to the next of the same answer");
  histogram(whole, "vllm:e2e_request_latency_seconds", "From the request to the end of its answers");
  histogram(waiting_, "vllm:request_queue_time_seconds", "From the request to the first step with it");
  histogram(reading_, "vllm:request_prefill_time_seconds", "From that step to the first token");
  histogram(answering_, "vllm:request_decode_time_seconds", "From the first token to the last");
  histogram(prompts_, "vllm:request_prompt_tokens", "Tokens of a prompt");
  histogram(answers_, "vllm:request_generation_tokens", "Tokens of an answer");
  return s;
}

}  // namespace awq
