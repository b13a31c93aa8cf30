#include "formats/gguf_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "model/arch/gguf.h"

namespace awq {
namespace {

using nlohmann::json;

void refuse_unknown_keys(const GgufKeys& k, const GgufFamily& family) {
  const std::string prefix = k.key("");
  for (const auto& [key, value] : k.file().metadata()) {
    if (!key.starts_with(prefix)) continue;
    const std::string_view name = key.substr(prefix.size());
    if (!std::ranges::count(gguf_common_keys(), name) && !std::ranges::count(family.keys, name))
      fail("gguf",
           "{}: the metadata \"{}\" is not understood, and may change what the model computes; this version cannot "
           "read the file",
           k.file().path().string(), key);
  }
}

}  // namespace

json gguf_config(const Gguf& file) {
  const GgufKeys k(file);
  const GgufFamily* family = find_gguf_family(k.arch());
  std::string known;
  for (const GgufFamily& f : gguf_families()) known += (known.empty() ? "" : ", ") + std::string(f.name);
  if (!family)
    fail("gguf", "{}: the architecture \"{}\" is not known; this version reads {}", file.path().string(), k.arch(),
         known);
  refuse_unknown_keys(k, *family);
  json c = family->config(k);
  c.update(gguf_token_ids(file));
  return c;
}

json gguf_token_ids(const Gguf& file) {
  const auto id_of = [&](std::string_view kind) -> json {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", kind);
    if (!file.has(key)) return nullptr;
    const int64_t id = file.integer(key), rows = file.at("token_embd.weight").shape[0];
    if (id < 0 || id >= rows)
      fail("gguf", "{}: the metadata \"{}\" is {}, but there are {} tokens", file.path().string(), key, id, rows);
    return id;
  };
  json ids = json::object(), ends = json::array();
  if (const json bos = id_of("bos"); !bos.is_null()) ids["bos_token_id"] = bos;
  if (const json pad = id_of("padding"); !pad.is_null()) ids["pad_token_id"] = pad;
  for (const std::string_view kind : {"eos", "eot", "eom"})
    if (const json id = id_of(kind); !id.is_null() && std::ranges::count(ends, id) == 0) ends.push_back(id);
  if (!ends.empty()) ids["eos_token_id"] = ends.size() == 1 ? ends[0] : ends;
  return ids;
}

}  // namespace awq
