#include "hub/hub.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "hub/retry.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint64_t kMaxListing = uint64_t(64) << 20;
constexpr std::string_view kUsed[] = {".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken", ".md"};

bool is_part_of_name(std::string_view part) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !part.empty() && part[0] != '.' && std::ranges::all_of(part, allowed);
}

/// A name that stays inside the folder; hidden files, among them this program's own, are not the model's.
bool is_top_file(std::string_view name) {
  return !name.empty() && name[0] != '.' && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

bool is_used(std::string_view name) {
  return std::ranges::any_of(kUsed, [&](std::string_view end) { return name.ends_with(end); }) ||
         name.starts_with("LICENSE") || name.starts_with("NOTICE");
}

bool is_gguf(const HubFile& f) { return f.name.ends_with(".gguf"); }

std::string list_of(const std::vector<HubFile>& files) {
  std::string text;
  for (const HubFile& f : files) text += fmt::format("\n  {} ({:.1f} MB)", f.name, double(f.size) / 1e6);
  return text;
}

HubFile file_of(const Json& sibling) {
  HubFile f{sibling.at("rfilename").get<std::string>(), sibling.value("size", uint64_t(0)), ""};
  if (const Json lfs = sibling.value("lfs", Json()); lfs.is_object()) {
    f.sha256 = lfs.value("sha256", "");
    f.size = lfs.value("size", f.size);
  }
  return f;
}

HubModel read_listing(const std::string& body, const std::string& url, HubModel model) {
  try {
    const Json json = parse_json(body, url);
    model.commit = json.at("sha").get<std::string>();
    for (const Json& s : json.at("siblings")) model.files.push_back(file_of(s));
  } catch (const Json::exception& e) {
    fail("pull", "{}: this is no list of a model's files: {}", url, e.what());
  }
  if (!is_part_of_name(model.commit)) fail("pull", "{}: {} is no commit", url, shown(model.commit));
  return model;
}

}  // namespace

bool is_hub_name(std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == name.npos) return is_part_of_name(name);
  return is_part_of_name(name.substr(0, slash)) && is_part_of_name(name.substr(slash + 1));
}

fs::path hub_folder(const fs::path& cache, std::string_view name, std::string_view revision) {
  std::string folder(name);
  if (const size_t slash = folder.find('/'); slash != folder.npos) folder.replace(slash, 1, "--");
  if (revision != "main") folder += "@" + std::string(revision);
  return cache / "hub" / folder;
}

bool is_complete(const fs::path& hub_folder) {
  std::error_code ignored;
  return fs::exists(hub_folder / ".complete", ignored);
}

HubModel list_model(const std::string& endpoint, const std::string& name, const std::string& revision,
                    const HttpOptions& options) {
  if (!is_hub_name(name)) fail("pull", "{} is no model's name; one looks like owner/name", shown(name));
  if (!is_part_of_name(revision)) fail("pull", "{} is no revision; give a branch, a tag or a commit", shown(revision));
  const std::string url = fmt::format("{}/api/models/{}/revision/{}?blobs=true", endpoint, name, revision);
  HttpClient http(options);
  std::string body;
  const auto receive = [&](std::span<const std::byte> part, bool) {
    if (body.size() + part.size() > kMaxListing) return false;
    body.append(reinterpret_cast<const char*>(part.data()), part.size());
    return true;
  };
  with_retries(url, [&] {
    body.clear();
    return Attempt{http.get(url, 0, receive)};
  });
  return read_listing(body, url, {name, revision, "", {}});
}

std::vector<HubFile> choose_files(const HubModel& model, const std::vector<std::string>& wanted) {
  std::vector<HubFile> files, ggufs;
  for (const HubFile& f : model.files)
    if (is_top_file(f.name)) (is_gguf(f) ? ggufs : files).push_back(f);
  const auto named = [&](const HubFile& f) { return std::ranges::find(wanted, f.name) != wanted.end(); };
  for (const std::string& name : wanted)
    if (std::ranges::none_of(model.files, [&](const HubFile& f) { return is_top_file(name) && f.name == name; }))
      fail("pull", "{} has no file {}", model.name, shown(name));
  std::erase_if(files, [&](const HubFile& f) { return !is_used(f.name); });
  std::erase_if(ggufs, [&](const HubFile& f) { return !wanted.empty() && !named(f); });
  if (!wanted.empty())
    std::erase_if(files, [&](const HubFile& f) { return f.name.ends_with(".safetensors") && !named(f); });
  const bool safetensors =
      std::ranges::any_of(files, [](const HubFile& f) { return f.name.ends_with(".safetensors"); });
  if (safetensors && wanted.empty()) return files;
  if (ggufs.size() > 1 && wanted.empty())
    fail("pull", "{} has several GGUF files; choose with --file NAME:{}", model.name, list_of(ggufs));
  if (ggufs.empty() && !safetensors && wanted.empty())
    fail("pull", "{} has neither *.safetensors nor *.gguf, so there is nothing here that awq could read", model.name);
  files.insert(files.end(), ggufs.begin(), ggufs.end());
  return files;
}

}  // namespace awq
