#include "quantizer/job_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/memory.h"

namespace awq {

JobLog::JobLog(const std::filesystem::path& file) : path_(file), file_(file, O_WRONLY | O_CREAT | O_APPEND) {
  if (file_.get() < 0) fail_system("log", path_, errno);
}

void JobLog::write(std::string_view event, const nlohmann::ordered_json& more) {
  using namespace std::chrono;
  nlohmann::ordered_json j = {{"event", event},
                              {"time", duration<double>(system_clock::now().time_since_epoch()).count()},
                              {"elapsed", duration<double>(steady_clock::now() - begin_).count()},
                              {"rss", resident_memory()}};
  j.update(more);
  const std::string line = j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  const ssize_t n = ::write(file_.get(), line.data(), line.size());
  if (n != ssize_t(line.size())) fail_system("log", path_, n < 0 ? errno : ENOSPC);
}

}  // namespace awq
