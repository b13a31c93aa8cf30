#include "formats/gguf_tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <tuple>
#include <unordered_map>

#include "base/check.h"
#include "formats/gguf_config.h"
#include "model/splitting.h"

namespace awq {
namespace {

using nlohmann::json;

constexpr size_t kMaxToken = 1024;             // bytes; the longest in published vocabularies are runs of 256 spaces
constexpr std::string_view kSpace = "\u2581";  // SentencePiece's mark for a space

template <class... Args>
[[noreturn]] void stop(const Gguf& file, fmt::format_string<Args...> format, Args&&... args) {
  fail("gguf", "{}: {}", file.path().string(), fmt::format(format, std::forward<Args>(args)...));
}

/// Characters of a text, or nothing if it is no valid UTF-8.
std::optional<size_t> utf8_length(std::string_view text) {
  size_t characters = 0;
  while (!text.empty()) {
    utf8proc_int32_t character = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                    utf8proc_ssize_t(text.size()), &character);
    if (n <= 0) return {};
    text.remove_prefix(size_t(n));
    ++characters;
  }
  return characters;
}

/// A text that can go into JSON.
std::string_view valid(const Gguf& file, std::string_view key, std::string_view text) {
  if (!utf8_length(text)) stop(file, "the metadata \"{}\" is no valid UTF-8", key);
  return text;
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  std::unordered_map<std::string_view, size_t> ids;  // of what tokenizer.json lists
  bool is_filler(size_t id) const { return types[id] == kUnused && tokens[id] == fmt::format("[PAD{}]", id); }
};

void read_tokens(const Gguf& file, bool sentencepiece, Vocabulary& v) {
  const std::string_view key = "tokenizer.ggml.tokens";
  const auto texts = file.texts(key);
  const auto rows = file.at("token_embd.weight").shape[0];
  if (int64_t(texts.size()) > rows)
    stop(file, "\"{}\" has {} entries, but the embedding has {} rows", key, texts.size(), rows);
  for (size_t id = 0; id < texts.size(); ++id) {
    std::string token(texts[id]);
    if (token.size() > kMaxToken || !utf8_length(token))
      stop(file, "\"{}\": token {} is longer than {} bytes or no valid UTF-8", key, id, kMaxToken);
    if (sentencepiece) replace_all(token, " ", kSpace);  // converters write the spaces of user-defined pieces plainly
    v.tokens.push_back(std::move(token));
  }
}

Vocabulary read_vocabulary(const Gguf& file, bool sentencepiece) {
  Vocabulary v;
  read_tokens(file, sentencepiece, v);
  const std::string_view key = "tokenizer.ggml.token_type";
  v.types = file.has(key) ? file.integers(key) : std::vector<int64_t>(v.tokens.size(), kNormal);
  if (v.types.size() != v.tokens.size())
    stop(file, "\"{}\" has {} entries for {} tokens", key, v.types.size(), v.tokens.size());
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.types[id] < kNormal || v.types[id] > kByte)
      stop(file, "\"{}\": token {} has the unknown type {}", key, id, v.types[id]);
    if (v.is_filler(id)) continue;
    const auto [old, added] = v.ids.emplace(v.tokens[id], id);
    if (!added) stop(file, "tokens {} and {} are both \"{}\"", old->second, id, v.tokens[id]);
  }
  return v;
}

json added_tokens(const Vocabulary& v) {
  json list = json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.types[id] < kUnknown || v.types[id] > kUserDefined) continue;
    list.push_back({{"id", id},
                    {"content", v.tokens[id]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", v.types[id] != kUserDefined}});
  }
  return list;
}

/// The text of a special token such as "bos"; null where the file has none.
json special_token(const Gguf& file, const Vocabulary& v, std::string_view kind) {
  const std::string key = fmt::format("tokenizer.ggml.{}_token_id", kind);
  if (!file.has(key)) return nullptr;
  const int64_t id = file.integer(key);
  if (id < 0 || id >= int64_t(v.tokens.size()) || v.is_filler(size_t(id)))
    stop(file, "\"{}\" is {}, which is none of the {} tokens", key, id, v.ids.size());
  return v.tokens[size_t(id)];
}

struct Ends {
  bool bos, eos;  // added around every text
};

Ends added_ends(const Gguf& file, bool bos) {
  return {file.flag("tokenizer.ggml.add_bos_token", bos), file.flag("tokenizer.ggml.add_eos_token", false)};
}

/// TemplateProcessing that puts the wanted special tokens around a text or around each of a pair.
json template_processor(const Gguf& file, const Vocabulary& v, Ends ends) {
  json special = json::object();
  const auto token = [&](std::string_view kind, int sequence) -> json {
    const json text = special_token(file, v, kind);
    if (text.is_null())
      stop(file, "add_{0}_token asks for a token that \"tokenizer.ggml.{0}_token_id\" does not name", kind);
    const auto& name = text.get_ref<const std::string&>();
    special[name] = {{"id", name}, {"ids", {v.ids.at(name)}}, {"tokens", {name}}};
    return {{"SpecialToken", {{"id", name}, {"type_id", sequence}}}};
  };
  const auto around = [&](std::string_view name, int sequence) {
    json parts = json::array();
    if (ends.bos) parts.push_back(token("bos", sequence));
    parts.push_back({{"Sequence", {{"id", name}, {"type_id", sequence}}}});
    if (ends.eos) parts.push_back(token("eos", sequence));
    return parts;
  };
  json single = around("A", 0), pair = single;
  for (const json& part : around("B", 1)) pair.push_back(part);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

json post_processor(const Gguf& file, const Vocabulary& v, Ends ends, const json& first) {
  if (!ends.bos && !ends.eos) return first;
  json last = template_processor(file, v, ends);
  if (first.is_null()) return last;
  return {{"type", "Sequence"}, {"processors", {first, last}}};
}

/// A tokenizer.json whose parts are still empty.
json blank(const Vocabulary& v, json merges) {
  json vocab = json::object();
  for (const auto& [token, id] : v.ids) vocab[std::string(token)] = id;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(v)},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", std::move(vocab)},
            {"merges", std::move(merges)}}}};
}

const PublishedSplitting& splitting_of(const Gguf& file) {
  const std::string_view name = file.text("tokenizer.ggml.pre", "default");
  if (const PublishedSplitting* found = find_splitting(name)) return *found;
  if (name == "default")
    stop(file,
         "the file does not say how its tokenizer splits text (tokenizer.ggml.pre is absent or \"default\"); convert "
         "the model again "
         "with a newer tool");
  stop(file, "the pre-tokenizer \"{}\" (tokenizer.ggml.pre) is not known; this version has {}", name,
       splitting_names());
}

/// "a b" for every merge of a and b, all three in the vocabulary.
json listed_merges(const Gguf& file, const Vocabulary& v) {
  json list = json::array();
  for (const std::string_view merge : file.texts("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ');
    const std::string_view left = merge.substr(0, space), right = space == merge.npos ? "" : merge.substr(space + 1);
    if (!v.ids.contains(left) || !v.ids.contains(right) || !v.ids.contains(std::string(left) + std::string(right)))
      stop(file, "tokenizer.ggml.merges: entry {} is not two tokens of the vocabulary that make a third", list.size());
    list.push_back(merge);
  }
  return list;
}

struct GgufTokenizer {
  nlohmann::json json;
  Ends ends;
};

GgufTokenizer byte_level_bpe(const Gguf& file, const Vocabulary& v) {
  const PublishedSplitting& pre = splitting_of(file);
  const Ends ends = added_ends(file, pre.bos);
  json t = blank(v, listed_merges(file, v));
  t.merge_patch(json::parse(pre.fields));
  t["post_processor"] = post_processor(file, v, ends, t["post_processor"]);
  return {std::move(t), ends};
}

struct Merge {
  float score;
  size_t left, right;  // ids
  size_t left_length, right_length;
};

/// SentencePiece keeps a score per piece and tries every pair of neighbours that make a piece; BPE keeps an ordered
/// list of pairs. The list is that of Hugging Face's converter: every split of every piece into two, pieces by falling
/// score, then longer left and right parts first, then by ids. User-defined pieces have the best score, 0, which
/// converters to GGUF replace by -1000.
json scored_merges(const Gguf& file, const Vocabulary& v) {
  const auto scores = file.numbers("tokenizer.ggml.scores");
  if (scores.size() != v.tokens.size())
    stop(file, "tokenizer.ggml.scores has {} entries for {} tokens", scores.size(), v.tokens.size());
  std::vector<Merge> merges;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (!std::isfinite(scores[id])) stop(file, "tokenizer.ggml.scores: entry {} is {}", id, scores[id]);
    if (v.is_filler(id)) continue;
    const std::string_view piece = v.tokens[id];
    const auto begin = std::ptrdiff_t(merges.size());
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = v.ids.find(piece.substr(0, cut)), right = v.ids.find(piece.substr(cut));
      if (left == v.ids.end() || right == v.ids.end()) continue;
      merges.push_back({v.types[id] == kUserDefined ? 0 : scores[id], left->second, right->second,
                        *utf8_length(left->first), *utf8_length(right->first)});
    }
    std::ranges::sort(merges.begin() + begin, merges.end(), {},
                      [](const Merge& m) { return std::pair(m.left, m.right); });
  }
  std::ranges::stable_sort(merges, std::greater(),
                           [](const Merge& m) { return std::tuple(m.score, m.left_length, m.right_length); });
  json list = json::array();
  for (const Merge& m : merges) list.push_back(v.tokens[m.left] + " " + v.tokens[m.right]);
  return list;
}

// A space becomes the mark in all three; they differ in whether one is put before a text. Files with
// add_space_prefix = false (Gemma) have none.
constexpr std::string_view kNoPrefix = R"({
  "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
  "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}})";

// Llama 2: before the text and after each special token in it.
constexpr std::string_view kPrefixEverywhere = R"({
  "normalizer": {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}})";

// Mistral's vocabularies with [INST] as a control token: before the text only.
constexpr std::string_view kPrefixFirst = R"({
  "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": false},
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}})";

std::string_view sentencepiece_fields(const Gguf& file, const Vocabulary& v) {
  if (!file.flag("tokenizer.ggml.add_space_prefix", true)) return kNoPrefix;
  const auto inst = v.ids.find("[INST]");
  return inst != v.ids.end() && v.types[inst->second] == kControl ? kPrefixFirst : kPrefixEverywhere;
}

GgufTokenizer sentencepiece_bpe(const Gguf& file, const Vocabulary& v) {
  if (const auto pre = file.text("tokenizer.ggml.pre", "default"); pre != "default")
    stop(file, "the pre-tokenizer \"{}\" (tokenizer.ggml.pre) is not known for SentencePiece models", pre);
  const Ends ends = added_ends(file, true);
  json t = blank(v, scored_merges(file, v));
  t.merge_patch(json::parse(sentencepiece_fields(file, v)));
  t["model"]["unk_token"] = special_token(file, v, "unknown");
  t["model"]["fuse_unk"] = true;
  t["model"]["byte_fallback"] = std::ranges::count(v.types, int64_t(kByte)) > 0;
  t["post_processor"] = post_processor(file, v, ends, nullptr);
  return {std::move(t), ends};
}

/// The template, or a list of named ones where the file has more than the default.
json chat_template(const Gguf& file) {
  const auto text = [&](const std::string& key) { return valid(file, key, file.text(key)); };
  const std::string key = "tokenizer.chat_template", names = "tokenizer.chat_templates";
  if (!file.has(names)) return text(key);
  json list = json::array();
  if (file.has(key)) list.push_back({{"name", "default"}, {"template", text(key)}});
  for (const std::string_view name : file.texts(names))
    list.push_back({{"name", valid(file, names, name)}, {"template", text(fmt::format("{}.{}", key, name))}});
  return list;
}

json tokenizer_config(const Gguf& file, const Vocabulary& v, Ends ends) {
  json c = {{"tokenizer_class", "PreTrainedTokenizerFast"},
            {"clean_up_tokenization_spaces", false},
            {"model_max_length", file.integer(fmt::format("{}.context_length", file.text("general.architecture")))},
            {"add_bos_token", ends.bos},
            {"add_eos_token", ends.eos},
            {"bos_token", special_token(file, v, "bos")},
            {"eos_token", special_token(file, v, "eos")},
            {"unk_token", special_token(file, v, "unknown")},
            {"pad_token", special_token(file, v, "padding")}};
  if (file.has("tokenizer.chat_template") || file.has("tokenizer.chat_templates"))
    c["chat_template"] = chat_template(file);
  return c;
}

}  // namespace

std::vector<SideFile> gguf_side_files(const Gguf& file) {
  const std::string_view model = file.text("tokenizer.ggml.model", "no_vocab");
  if (model == "no_vocab") return {};
  if (model != "gpt2" && model != "llama")
    stop(file, "the tokenizer \"{}\" (tokenizer.ggml.model) is not known; this version has gpt2 and llama", model);
  const bool sentencepiece = model == "llama";
  const Vocabulary v = read_vocabulary(file, sentencepiece);
  const GgufTokenizer t = sentencepiece ? sentencepiece_bpe(file, v) : byte_level_bpe(file, v);
  return {{"tokenizer.json", t.json.dump(), {}},
          {"tokenizer_config.json", tokenizer_config(file, v, t.ends).dump(2), {}},
          {"generation_config.json", gguf_token_ids(file).dump(2), {}}};
}

}  // namespace awq
