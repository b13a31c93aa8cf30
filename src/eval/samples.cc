#include "eval/samples.h"

#include <algorithm>

#include "base/check.h"

namespace awq {

using Json = nlohmann::ordered_json;

namespace {

// Before anything of it is cut off as what a killed job has left.
void require_samples(std::string_view text, const std::filesystem::path& path) {
  constexpr std::string_view kBegin = R"({"run":)";
  const size_t n = std::min(text.size(), kBegin.size());
  if (text.substr(0, n) != kBegin.substr(0, n))
    fail("eval", "{}: it does not begin as --save-samples writes it; name another file", path.string());
}

bool are_numbers(const Json& list) {
  return list.is_array() && std::ranges::all_of(list, [](const Json& v) { return v.is_number(); });
}

}  // namespace

SampleFile::SampleFile(const std::filesystem::path& path, bool resume) : path_(path) {
  uint64_t keep = 0;
  const bool there = std::filesystem::exists(path);
  if (there && !resume) fail("eval", "{}: the file exists; go on with it by --resume, or name another", path.string());
  if (there && std::filesystem::file_size(path)) {
    const std::string text = read_text(path, uint64_t(4) << 30);
    require_samples(text, path);
    for (size_t end = 0; (end = text.find('\n', keep)) != std::string::npos; keep = end + 1) {
      Json j = Json::parse(text.begin() + long(keep), text.begin() + long(end), nullptr, false);
      if (!j.is_object())
        fail("eval", "{} line {}: no JSON object, so the file was not written by --save-samples; name another",
             path.string(), old_.size() + 1);
      old_.push_back(std::move(j));
    }
  }
  out_ = std::make_unique<OutputFile>(path, keep);
}

std::map<size_t, std::vector<double>> SampleFile::begin(const Json& run, size_t metrics) {
  std::map<size_t, std::vector<double>> scores;
  bool mine = false;
  for (const Json& j : old_) {
    if (j.contains("run")) mine = j["run"] == run;
    if (!mine || !j.contains("item")) continue;
    if (!j["item"].is_number_unsigned() || !are_numbers(j.value("scores", Json())))
      fail("eval",
           "{}: an entry without its \"item\" and \"scores\", so it was not written by --save-samples; name another "
           "file",
           path_.string());
    if (j["scores"].size() == metrics) scores[j["item"].get<size_t>()] = j["scores"].get<std::vector<double>>();
  }
  put({{"run", run}});
  return scores;
}

void SampleFile::put(const Json& item) {
  out_->write(item.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace awq
