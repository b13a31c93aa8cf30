#pragma once
#include <functional>
#include <string>

#include "hub/http.h"

namespace awq {

struct Attempt {
  HttpResult result;
  bool progress = false;  // it brought something: the next one is the first again
};

/// Asks until the answer is good. Waits and asks again after answers that may be better later: none, 429, 5xx; as long
/// as Retry-After says, or 1, 2, 4 and 8 s. Throws Error naming the URL's problem and what to do after five attempts
/// that brought nothing, or at once where the answer is final (401, 403, 404, ...). `pause` waits and may throw.
void with_retries(const std::string& url, const std::function<Attempt()>& ask,
                  const std::function<void(std::chrono::seconds)>& pause = {});

}  // namespace awq
