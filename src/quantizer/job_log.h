#pragma once
#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "io/descriptor.h"

namespace awq {

/// Events, a line of JSON each, appended by one write so that a kill leaves whole lines. From several threads.
class JobLog {
 public:
  explicit JobLog(const std::filesystem::path& file);  // appended to
  /// {"event": ..., "time": seconds since 1970, "elapsed": seconds of this process' job, "rss": bytes, ...}
  void write(std::string_view event, const nlohmann::ordered_json& more);

 private:
  std::filesystem::path path_;
  Descriptor file_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace awq
