#include "quantizer/job_folder.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "base/sha256.h"
#include "io/file.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kState = "state.json", kCalibration = "calibration.json", kChoice = "kept.json",
                           kWeighed = "weigh.json", kJob = "job.json";

fs::path without_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

fs::path job_folder_of(const fs::path& output) {
  fs::path folder = output;
  folder += ".awq-job";
  return folder;
}

bool is_present(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

/// Two outputs of one name in different places may share a scratch folder.
fs::path scratch_in(const fs::path& scratch, const fs::path& output) {
  const std::string full = fs::absolute(output).lexically_normal().string();
  return scratch / fmt::format("{}.awq-{}", output.filename().string(), sha256_of(full).substr(0, 8));
}

void remove_tree(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

}  // namespace

JobFolder::JobFolder(const fs::path& output, const fs::path& scratch, JobStart start)
    : output_(without_slash(output)),
      folder_(job_folder_of(output_)),
      scratch_(scratch.empty() ? folder_ : scratch_in(scratch, output_)),
      own_scratch_(!scratch.empty()) {
  if (output_.empty()) fail("write", "the output folder has no name");
  const bool unfinished = is_present(folder_);
  if (is_present(output_) && !(start == JobStart::resume && unfinished))
    fail("write", "{}: exists already; remove it or choose another output", output_.string());
  make();
  lock_.emplace(path("lock"), folder_.string());
  remove_tree(finished_folder());
  if (start == JobStart::fresh && worth_resuming())
    fail("quantize",
         "{}: an unfinished job is there. Go on with it by --resume, or throw it away and begin anew by --restart",
         folder_.string());
  if (start == JobStart::restart || !worth_resuming()) clear();
  if (is_present(output_) && !stands(output_))
    fail("write", "{}: exists already; remove it or choose another output", output_.string());
  std::error_code error;
  if (own_scratch_ && (fs::create_directories(scratch_, error), error))
    fail("write", "--scratch {}: {}", scratch_.string(), error.message());
}

JobFolder::~JobFolder() {
  if (!lock_) return;
  if (!worth_resuming()) remove();
}

void JobFolder::make() {
  if (::mkdir(folder_.c_str(), 0777) != 0 && errno != EEXIST) fail_system("write", folder_, errno);
}

// The lock stays: it is what keeps others out.
void JobFolder::clear() {
  remove_tree(path(kState));  // first, so that a half removed job is none
  for (const auto& entry : fs::directory_iterator(folder_))
    if (entry.path().filename() != "lock") remove_tree(entry.path());
  if (own_scratch_) remove_tree(scratch_);
}

bool JobFolder::worth_resuming() const {
  return is_present(path(kState)) || is_present(path(kCalibration)) || is_present(path(kChoice)) ||
         is_present(path(kWeighed));
}

bool JobFolder::is_whole() const { return is_present(whole()) && is_present(path(kState)); }

fs::path JobFolder::rejected() const {
  fs::path name = output_;
  return name += ".rejected";
}

bool JobFolder::stands(const fs::path& name) const {
  return is_present(name) && is_present(path(kState)) && !is_present(path("output")) && !is_present(whole());
}

void JobFolder::identify(const Fingerprint& fingerprint) {
  Json now;
  for (const auto& [name, value] : fingerprint) now[name] = value;
  // Names of files need not be UTF-8.
  const std::string text = now.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (const auto before = read(kJob); before && worth_resuming()) require_same(*before, nlohmann::json::parse(text));
  replace_file(path(kJob), text);
}

void JobFolder::require_same(const nlohmann::json& before, const nlohmann::json& now) const {
  std::set<std::string> names;
  for (const auto* side : {&before, &now})
    for (const auto& [name, value] : side->items()) names.insert(name);
  for (const std::string& name : names) {
    const std::string old = before.value(name, "nothing"), value = now.value(name, "nothing");
    if (old != value)
      fail("resume",
           "{}: {} was {} and is {}. A job goes on only with what it began with; --restart begins anew and throws away "
           "what is done",
           folder_.string(), name, old, value);
  }
}

std::optional<nlohmann::json> JobFolder::read(std::string_view name) const {
  if (!is_present(path(name))) return {};
  return parse_json(read_text(path(name)), path(name).string());
}

void JobFolder::save(std::string_view name, const nlohmann::json& value) {
  replace_file(path(name), value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

// Gone at once under its name: a process that is killed here has finished its job.
void JobFolder::remove() {
  if (own_scratch_) remove_tree(scratch_);
  std::error_code error;
  fs::rename(folder_, finished_folder(), error);
  remove_tree(error ? folder_ : finished_folder());
}

fs::path JobFolder::finished_folder() const {
  fs::path folder = folder_;
  return folder += "-done";
}

}  // namespace awq
