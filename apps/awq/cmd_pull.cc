#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name, const std::string& otherwise = "") {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

fs::path cache() {
  const std::string home = variable("HOME", ".");
  return fs::path(variable("XDG_CACHE_HOME", home + "/.cache")) / "awq";
}

/// A path wins over a fetched model of the same name.
std::string located(std::string model) {
  std::error_code ignored;
  if (fs::exists(model, ignored)) return model;
  const fs::path there = pulled(model, cache());
  return there.empty() ? model : there.string();
}

void print(const PullReport& r, bool json) {
  if (json)
    fmt::print("{}\n",
               nlohmann::ordered_json{
                   {"model", r.model.string()}, {"commit", r.commit}, {"files", r.files}, {"bytes", r.bytes}}
                   .dump(1));
  else
    fmt::print("{}\n", r.model.string());
}

}  // namespace

CLI::Option* add_model(CLI::App& app, const std::string& option, std::string& model, const std::string& text) {
  return app.add_option(option, model, text)->transform(located);
}

void add_pull(CLI::App& app) {
  struct Options {
    std::string name;
    PullOptions pull;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("pull", "Fetch a model from a hub; the other verbs then know its name");
  c->add_option("NAME", o->name, "owner/name")->required();
  c->add_option("--revision", o->pull.revision, "Branch, tag or commit")->capture_default_str();
  c->add_option("--file", o->pull.files, "Weights to fetch, by name; default: all safetensors, or the only GGUF file");
  c->add_option("--connections", o->pull.connections, "Files at once")->capture_default_str();
  c->add_option("--silence", o->pull.silence, "Seconds without a byte after which a connection is made again")
      ->capture_default_str();
  c->add_flag("--json", o->json, "Print the result as JSON");
  c->footer(
      "HF_ENDPOINT is the hub's address, HF_TOKEN a token for models that are not public. Files go to "
      "XDG_CACHE_HOME/awq/hub.\n"
      "Example:\n  awq pull owner/name && awq chat owner/name");
  c->callback([o] {
    o->pull.endpoint = variable("HF_ENDPOINT", "https://huggingface.co");
    o->pull.token = variable("HF_TOKEN");
    o->pull.cache = cache();
    ProgressLine line;
    print(pull(o->name, o->pull, std::ref(line)), o->json);
  });
}

}  // namespace awq::cli
