#include "hub/retry.h"

#include <algorithm>
#include <thread>

#include "base/check.h"

namespace awq {
namespace {

constexpr int kAttempts = 5;
constexpr std::chrono::seconds kLongestWait{300};  // a hub that asks for more is told to the user instead

bool may_pass(const HttpResult& r) { return (r.status == 0 && !r.final) || r.status == 429 || r.status >= 500; }

std::string_view advice(long status) {
  switch (status) {
    case 401:
      return "the model is private or needs your consent, or there is none of that name; set HF_TOKEN to a token of an "
             "account that may read it";
    case 403:
      return "the account of HF_TOKEN may not read it; ask for access on the model's page";
    case 404:
      return "there is no such model, revision or file; check the spelling";
    case 429:
      return "too many requests; try again later, or set HF_TOKEN, which raises the limit";
    default:
      return "try again later";
  }
}

[[noreturn]] void give_up(const std::string& url, const HttpResult& r) {
  if (r.status) fail("pull", "{}: HTTP status {}; {}", url, r.status, advice(r.status));
  fail("pull", "{}: {}; check the connection and run the same command again, which goes on where this one ended", url,
       r.problem.empty() ? "the answer is too long" : r.problem);
}

}  // namespace

void with_retries(const std::string& url, const std::function<Attempt()>& ask,
                  const std::function<void(std::chrono::seconds)>& pause) {
  for (int attempt = 1;; ++attempt) {
    const auto [result, progress] = ask();
    if (result.status == 200 || result.status == 206) return;
    const bool stopped = result.status == 0 && result.problem.empty();
    if (stopped || !may_pass(result)) give_up(url, result);
    if (progress) attempt = 1;
    const auto wait = result.retry_after.value_or(std::chrono::seconds(1 << (attempt - 1)));
    if (attempt == kAttempts || wait > kLongestWait) give_up(url, result);
    if (pause)
      pause(wait);
    else
      std::this_thread::sleep_for(wait);
  }
}

}  // namespace awq
