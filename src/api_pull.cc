// awq::pull and awq::pulled.
#include "awq/awq.h"
#include "base/check.h"
#include "hub/hub.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

/// The folder, or the file in it where it is no folder that other programs would read.
fs::path model_in(const fs::path& folder) {
  fs::path gguf;
  int ggufs = 0;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".gguf")
      gguf = entry.path(), ++ggufs;
    else if (entry.path().extension() == ".safetensors")
      return folder;
  return ggufs == 1 ? gguf : folder;
}

void require_endpoint(const std::string& endpoint) {
  if (!endpoint.starts_with("http://") && !endpoint.starts_with("https://"))
    fail("pull", "\"{}\" is no address of a hub; HF_ENDPOINT should begin with https://", endpoint);
}

std::string without_slash(std::string text) {
  while (text.ends_with('/')) text.pop_back();
  return text;
}

}  // namespace

PullReport pull(const std::string& name, const PullOptions& o, const OnProgress& on_progress) {
  require_endpoint(o.endpoint);
  if (o.connections < 1 || o.connections > 64) fail("pull", "{} connections; 1 to 64 are possible", o.connections);
  if (o.silence < 1) fail("pull", "{} seconds of silence; at least 1 is needed", o.silence);
  const HttpOptions http{o.token, std::chrono::seconds(o.silence)};
  const std::string endpoint = without_slash(o.endpoint);
  const HubModel model = list_model(endpoint, name, o.revision, http);
  const std::vector<HubFile> files = choose_files(model, o.files);
  const fs::path folder = hub_folder(o.cache, name, o.revision);
  const auto progress = [&](uint64_t done, uint64_t total) {
    return !on_progress || on_progress({"fetch", int(done / 1000000), int((total + 999999) / 1000000)});
  };
  fetch_files(model, files, folder, {endpoint, http, o.connections, progress});
  PullReport report{model_in(folder), model.commit, int(files.size()), 0};
  for (const HubFile& f : files) report.bytes += f.size;
  return report;
}

fs::path pulled(std::string_view name, const fs::path& cache, std::string_view revision) {
  if (!is_hub_name(name)) return {};
  const fs::path folder = hub_folder(cache, name, revision);
  return is_complete(folder) ? model_in(folder) : fs::path();
}

}  // namespace awq
