#include "formats/gguf_vocabulary.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.h"
#include "formats/gguf_metadata.h"
#include "formats/gguf_tokenizer.h"
#include "io/json.h"
#include "model/splitting.h"

namespace awq {
namespace {

using Json = nlohmann::json;
using Files = std::map<std::string, std::string>;

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  fail("write", "tokenizer.json: {}, which GGUF cannot hold; without the file the weights are written alone",
       fmt::format(format, std::forward<Args>(args)...));
}

Json parsed_file(const Files& files, const char* name) {
  const auto it = files.find(name);
  return it == files.end() ? Json() : parse_json(it->second, name);
}

/// A member of an object; null where either is missing.
Json member_of(const Json& object, const char* key) { return object.is_object() ? object.value(key, Json()) : Json(); }

struct Tokens {
  std::vector<std::string> tokens;  // by id
  std::vector<int32_t> types;
  std::map<std::string, int32_t> ids;
};

void add_token(Tokens& v, const std::string& text, const Json& id, int32_t type) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= v.tokens.size())
    refuse("token \"{}\" has the id {}, but the embedding has {} rows", text, id.dump(), v.tokens.size());
  const auto i = id.get<size_t>();
  v.tokens[i] = text;
  v.types[i] = type;
  v.ids[text] = int32_t(i);
}

bool is_byte(std::string_view t) { return t.size() == 6 && t.starts_with("<0x") && t.ends_with(">"); }

Tokens tokens_of(const Json& t, const Json& tokenizer_config, int rows) {
  Tokens v{std::vector<std::string>(size_t(rows)), std::vector<int32_t>(size_t(rows), kUnused), {}};
  for (int i = 0; i < rows; ++i) v.tokens[size_t(i)] = fmt::format("[PAD{}]", i);
  const Json& model = t.at("model");
  const bool bytes = model.value("byte_fallback", false);
  for (const auto& [text, id] : model.at("vocab").items())
    add_token(v, text, id, bytes && is_byte(text) ? kByte : kNormal);
  const Json unknown = member_of(model, "unk_token");
  const auto add = [&](const Json& token, const Json& id) {
    const auto text = token.at("content").get<std::string>();
    if (token.value("lstrip", false) || token.value("rstrip", false) || token.value("single_word", false))
      refuse("the token \"{}\" takes spaces beside it, or needs them", text);
    add_token(v, text, id, text == unknown ? kUnknown : token.value("special", false) ? kControl : kUserDefined);
  };
  for (const Json& token : t.value("added_tokens", Json::array())) add(token, token.at("id"));
  const Json more = member_of(tokenizer_config, "added_tokens_decoder");  // items() refers to it
  for (const auto& [id, token] : more.items())
    if (!v.ids.contains(token.at("content").get<std::string>())) add(token, Json(std::stoull(id)));
  return v;
}

std::vector<std::string> merges_of(const Json& model) {
  std::vector<std::string> merges;
  for (const Json& m : model.value("merges", Json::array()))
    merges.push_back(m.is_string() ? m.get<std::string>()
                                   : m.at(0).get<std::string>() + " " + m.at(1).get<std::string>());
  return merges;
}

/// Without what changes no id.
Json splitting_part(const Json& t, const char* key) {
  Json part = member_of(t, key);
  const auto clean = [](Json& p, const auto& self) -> void {
    if (p.is_object()) p.erase("trim_offsets");
    if (p.is_structured())
      for (Json& inner : p) self(inner, self);
  };
  clean(part, clean);
  return part;
}

bool splits_alike(const Json& a, const Json& b) {
  return splitting_part(a, "normalizer") == splitting_part(b, "normalizer") &&
         splitting_part(a, "pre_tokenizer") == splitting_part(b, "pre_tokenizer");
}

const PublishedSplitting& published_splitting_of(const Json& t) {
  for (const PublishedSplitting& s : published_splittings()) {
    const Json fields = Json::parse(s.fields);
    const auto ignores = [](const Json& j) { return member_of(member_of(j, "model"), "ignore_merges") == true; };
    if (splits_alike(t, fields) && ignores(t) == ignores(fields)) return s;
  }
  refuse("its way of splitting text is none of {}", splitting_names());
}

/// A piece's score: the earlier it is made, the higher.
std::vector<float> scores_of(const Tokens& v, const std::vector<std::string>& merges) {
  std::vector<float> scores(v.tokens.size(), -1000);
  std::map<int32_t, float> made;
  for (const std::string& m : merges) {
    std::string piece = m;
    const size_t space = piece.find(' ');
    if (const auto it = v.ids.find(piece.erase(space, 1)); it != v.ids.end())
      made.emplace(it->second, -float(made.size() + 1));
  }
  for (const auto& [id, score] : made)
    if (v.types[size_t(id)] != kUserDefined) scores[size_t(id)] = score;
  float last = -float(made.size());
  for (size_t id = 0; id < scores.size(); ++id)
    if (v.types[id] == kNormal && !made.contains(int32_t(id))) scores[id] = --last;
  return scores;
}

/// Programs look for pieces of the user's in the text as it is, before its spaces are marked.
std::vector<std::string> texts_of(const Tokens& v, bool pieces) {
  std::vector<std::string> tokens = v.tokens;
  constexpr std::string_view kMark = "\u2581";
  for (size_t i = 0; pieces && i < tokens.size(); ++i)
    if (v.types[i] == kUserDefined)
      for (size_t at; (at = tokens[i].find(kMark)) != std::string::npos;) tokens[i].replace(at, kMark.size(), " ");
  return tokens;
}

struct Around {
  bool bos = false, eos = false;
};

/// What the post-processor puts around a text.
Around around(const Json& processor) {
  if (processor.is_null() || processor.at("type") == "ByteLevel") return {};
  if (processor.at("type") == "Sequence") {
    Around all;
    for (const Json& p : processor.at("processors")) {
      const Around e = around(p);
      all = {all.bos || e.bos, all.eos || e.eos};
    }
    return all;
  }
  if (processor.at("type") != "TemplateProcessing") refuse("its post-processor is {}", processor.at("type").dump());
  const Json& single = processor.at("single");
  const auto is_text = [](const Json& part) { return part.contains("Sequence"); };
  const auto text = std::ranges::find_if(single, is_text) - single.begin();
  if (text > 1 || int64_t(single.size()) - text > 2) refuse("it adds more than one token before or after a text");
  return {text == 1, int64_t(single.size()) - text == 2};
}

std::optional<int32_t> id_in(const Tokens& v, const Json& token) {
  const Json text = token.is_object() ? member_of(token, "content") : token;
  const auto it = text.is_string() ? v.ids.find(text.get<std::string>()) : v.ids.end();
  return it == v.ids.end() ? std::nullopt : std::optional(it->second);
}

void add_id(GgufMetadata& m, const char* kind, std::optional<int32_t> id) {
  if (id) m.u32(fmt::format("tokenizer.ggml.{}_token_id", kind), uint32_t(*id));
}

/// The tokenizer's own end first; a model may stop at up to three.
void add_ends(GgufMetadata& m, const Tokens& v, const Files& files, const Json& config) {
  std::vector<int32_t> ends;
  if (const auto id = id_in(v, member_of(parsed_file(files, "tokenizer_config.json"), "eos_token")))
    ends.push_back(*id);
  Json more = member_of(parsed_file(files, "generation_config.json"), "eos_token_id");
  if (more.is_null()) more = member_of(config, "eos_token_id");
  for (const Json& id : more.is_array() ? more : Json::array({more}))
    if (id.is_number_integer() && std::ranges::find(ends, id.get<int32_t>()) == ends.end())
      ends.push_back(id.get<int32_t>());
  constexpr const char* kKinds[] = {"eos", "eot", "eom"};
  if (ends.size() > std::size(kKinds)) refuse("there are {} tokens that end an answer", ends.size());
  for (size_t i = 0; i < ends.size(); ++i) add_id(m, kKinds[i], ends[i]);
}

void add_ids(GgufMetadata& m, const Tokens& v, const Json& t, const Files& files, const Json& config) {
  const Json tokenizer_config = parsed_file(files, "tokenizer_config.json");
  std::optional<int32_t> bos = id_in(v, member_of(tokenizer_config, "bos_token"));
  if (const Json id = member_of(config, "bos_token_id"); !bos && id.is_number_integer()) bos = id.get<int32_t>();
  add_id(m, "bos", bos);
  add_ends(m, v, files, config);
  const auto unknown = id_in(v, member_of(t.at("model"), "unk_token"));
  add_id(m, "unknown", unknown ? unknown : id_in(v, member_of(tokenizer_config, "unk_token")));
  add_id(m, "padding", id_in(v, member_of(tokenizer_config, "pad_token")));
  const Around ends = around(member_of(t, "post_processor"));
  m.flag("tokenizer.ggml.add_bos_token", ends.bos).flag("tokenizer.ggml.add_eos_token", ends.eos);
}

void add_chat_template(GgufMetadata& m, const Files& files) {
  const std::string key = "tokenizer.chat_template";
  if (const auto it = files.find("chat_template.jinja"); it != files.end()) return void(m.text(key, it->second));
  const Json given = member_of(parsed_file(files, "tokenizer_config.json"), "chat_template");
  if (given.is_string()) return void(m.text(key, given.get<std::string>()));
  std::vector<std::string> names;
  for (const Json& named : given) {
    const auto name = named.at("name").get<std::string>();
    m.text(name == "default" ? key : key + "." + name, named.at("template").get<std::string>());
    if (name != "default") names.push_back(name);
  }
  if (!names.empty()) m.texts("tokenizer.chat_templates", names);
}

/// What a reader makes of it must be what it was made of.
void check_tokenizer(const GgufMetadata& m, const ModelSpec& spec, const Json& t, const Tokens& v) {
  Json back;
  for (const SideFile& f : gguf_side_files(gguf_outline(m, spec)))
    if (f.name == "tokenizer.json") back = Json::parse(f.bytes);
  if (!splits_alike(t, back)) refuse("its way of splitting text is not read back as it was");
  const Tokens again = tokens_of(back, {}, spec.vocab);
  for (size_t i = 0; i < v.tokens.size(); ++i)
    if (v.tokens[i] != again.tokens[i] || v.types[i] != again.types[i])
      refuse("token {} is \"{}\" and is read back as \"{}\"", i, v.tokens[i], again.tokens[i]);
  if (merges_of(t.at("model")) != merges_of(back.at("model"))) refuse("its merges do not follow from scores of pieces");
}

}  // namespace

void add_gguf_tokenizer(GgufMetadata& m, const Files& files, const Json& config, const ModelSpec& spec) try {
  const Json t = parsed_file(files, "tokenizer.json");
  if (t.is_null()) return void(m.text("tokenizer.ggml.model", "no_vocab"));
  if (const Json type = member_of(t.at("model"), "type"); !type.is_null() && type != "BPE")
    refuse("its model is {}", type.dump());
  const Tokens v = tokens_of(t, parsed_file(files, "tokenizer_config.json"), spec.vocab);
  const std::vector<std::string> merges = merges_of(t.at("model"));
  const bool pieces = t.at("model").value("byte_fallback", false);
  m.text("tokenizer.ggml.model", pieces ? "llama" : "gpt2");
  m.text("tokenizer.ggml.pre", pieces ? "default" : published_splitting_of(t).name);
  m.texts("tokenizer.ggml.tokens", texts_of(v, pieces)).integers("tokenizer.ggml.token_type", v.types);
  if (pieces)
    m.numbers("tokenizer.ggml.scores", scores_of(v, merges));
  else
    m.texts("tokenizer.ggml.merges", merges);
  if (pieces) m.flag("tokenizer.ggml.add_space_prefix", splitting_part(t, "normalizer")["type"] != "Replace");
  add_ids(m, v, t, files, config);
  add_chat_template(m, files);
  check_tokenizer(m, spec, t, v);
} catch (const Json::exception& e) {
  fail("write", "tokenizer.json or what lies beside it: a value is missing or of the wrong kind: {}", e.what());
}

}  // namespace awq
