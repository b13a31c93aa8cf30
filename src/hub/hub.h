#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "hub/http.h"

namespace awq {

/// A file of a model as a hub lists it.
struct HubFile {
  std::string name;
  uint64_t size = 0;
  std::string sha256;  // of files that the hub keeps apart from the repository; else empty
};

struct HubModel {
  std::string name, revision;  // "owner/name", "main"
  std::string commit;
  std::vector<HubFile> files;
};

/// Whether `name` can be a model's: "owner/name" or "name" of letters, digits and . _ -, none beginning with a dot.
bool is_hub_name(std::string_view name);
/// <cache>/hub/owner--name, or owner--name@revision for another than "main".
std::filesystem::path hub_folder(const std::filesystem::path& cache, std::string_view name, std::string_view revision);
/// Whether everything of it has been fetched.
bool is_complete(const std::filesystem::path& hub_folder);

/// What a model of the hub consists of. Throws Error: no such model, no permission, no answer, an answer that is none.
HubModel list_model(const std::string& endpoint, const std::string& name, const std::string& revision,
                    const HttpOptions& options);
/// Those that this program can use: safetensors or else one GGUF, JSON, text and tokenizers of the topmost folder, or
/// the `wanted` ones. Throws Error where a choice has to be made or one is not there.
std::vector<HubFile> choose_files(const HubModel& model, const std::vector<std::string>& wanted);

struct FetchOptions {
  std::string endpoint;
  HttpOptions http;
  int connections = 4;
  std::function<bool(uint64_t done, uint64_t total)> on_progress;  // bytes; from the calling thread; false stops
};
/// Fetches the files into the folder, several at once. What is there already, whole or in part (".part"), is not
/// fetched again; each file gets its name when its size and hash are right. Throws Error, or Cancelled.
void fetch_files(const HubModel& model, const std::vector<HubFile>& files, const std::filesystem::path& folder,
                 const FetchOptions& options);

}  // namespace awq
