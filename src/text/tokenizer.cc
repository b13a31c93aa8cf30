#include "text/tokenizer.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <ranges>
#include <utility>

#include "text/byte_alphabet.h"
#include "text/hash.h"
#include "text/json_fields.h"
#include "text/tokenizer_file.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

namespace awq {

namespace {

namespace fields = json_fields;

const nlohmann::json& part(const nlohmann::json& tokenizer, std::string_view key) {
  static const nlohmann::json null;
  const nlohmann::json* found = fields::find(tokenizer, key);
  return found ? *found : null;
}

AddedToken read_added_token(const nlohmann::json& t, int32_t id) {
  constexpr std::string_view where = "an added token";
  AddedToken token{.id = id, .content = fields::text(t, where, "content")};
  token.special = fields::flag(t, where, "special", false);
  token.single_word = fields::flag(t, where, "single_word", false);
  token.lstrip = fields::flag(t, where, "lstrip", false);
  token.rstrip = fields::flag(t, where, "rstrip", false);
  token.normalized = fields::flag(t, where, "normalized", !token.special);
  return token;
}

void read_added_tokens(const nlohmann::json& tokenizer, TokenizerParts& parts) {
  for (const nlohmann::json& t : part(tokenizer, "added_tokens")) {
    const nlohmann::json* value = fields::find(t, "id");
    if (!value) fields::bad("an added token", "id", "a whole number");
    const int32_t id = fields::index(*value, "an added token", "id", Vocabulary::limit);
    AddedToken token = read_added_token(t, id);
    const auto [it, fresh] = parts.added.emplace(id, token);
    if (!fresh && it->second.content != token.content)
      fail("tokenizer", "tokenizer.json: added tokens \"{}\" and \"{}\" share the id {}", it->second.content,
           token.content, id);
  }
}

/// An added token may also be in the model's vocabulary, but then under the same id.
void check_against_model(const AddedToken& token, const Vocabulary& vocabulary) {
  const std::optional<int32_t> id = vocabulary.id_of(token.content);
  const std::string* text = vocabulary.text_of(token.id);
  if (id && *id != token.id)
    fail("tokenizer", "added token \"{}\" has the id {}, but the vocabulary gives it {}; do the files belong together?",
         token.content, token.id, *id);
  if (text && *text != token.content)
    fail("tokenizer",
         "added token \"{}\" has the id {}, which the vocabulary gives \"{}\"; do the files belong together?",
         token.content, token.id, *text);
}

/// The words of one call and where their ids are. Of words that share a slot the last stays.
class WordCache {
 public:
  explicit WordCache(size_t text) : slots_(std::bit_ceil(std::clamp<size_t>(text / 8, 16, 1 << 15))) {}

  struct Slot {
    std::string_view word;
    size_t begin = 0, count = 0;  // in the ids of the call
  };
  Slot& slot(std::string_view word) { return slots_[hash_of(word) & (slots_.size() - 1)]; }

 private:
  std::vector<Slot> slots_;
};

/// The part of `marks` in [begin, end), counted from begin.
std::vector<ByteRange> marks_within(std::span<const ByteRange> marks, size_t begin, size_t end) {
  std::vector<ByteRange> out;
  auto m = std::ranges::upper_bound(marks, begin, {}, &ByteRange::end);
  for (; m != marks.end() && m->begin < end; ++m)
    out.push_back({std::max(m->begin, begin) - begin, std::min(m->end, end) - begin});
  return out;
}

/// Where marked stretches of a raw text end up in `text`, its normalization. A normalizer does not say which bytes
/// became which, so a stretch is all that what stands before and behind it does not make by itself.
std::vector<ByteRange> normalized_marks(const Normalizer& normalizer, std::string_view raw, std::string_view text,
                                        std::span<const ByteRange> marks) {
  constexpr size_t most = size_t(1) << 30;  // bytes to normalize; some seconds
  if (marks.size() > most / std::max<size_t>(raw.size(), 1))
    fail("chat", "{} stretches of messages in {} bytes are too many for a tokenizer that normalizes special tokens",
         marks.size(), raw.size());
  std::vector<ByteRange> out;
  for (const ByteRange& m : marks) {
    const std::string before = normalizer.apply(std::string(raw.substr(0, m.begin)));
    const std::string behind = normalizer.apply(std::string(raw.substr(m.end)));
    auto begin = size_t(std::ranges::mismatch(text, before).in1 - text.begin());
    size_t end = text.size() - size_t(std::mismatch(text.rbegin(), text.rend(), behind.rbegin(), behind.rend()).first -
                                      text.rbegin());
    for (; !out.empty() && begin <= out.back().end; out.pop_back()) {
      begin = std::min(begin, out.back().begin);
      end = std::max(end, out.back().end);
    }
    if (begin < end) out.push_back({begin, end});
  }
  return out;
}

/// One call of encode(). Special tokens count if they touch none of `plain`.
class Encoder {
 public:
  Encoder(const TokenizerParts& parts, bool parse_special, size_t text, std::span<const ByteRange> plain = {})
      : parts_(parts), parse_special_(parse_special), plain_(plain), cache_(text) {}

  std::vector<int32_t> run(std::string_view text) {
    for (const auto& span : parts_.raw.split(text, parse_special_, plain_)) {
      if (span.id >= 0)
        ids_.push_back(span.id);
      else
        normalized(text.substr(span.begin, span.end - span.begin), span.begin);
    }
    return std::move(ids_);
  }

 private:
  std::vector<ByteRange> plain_in(std::string_view raw, size_t begin, std::string_view text) const {
    if (!parts_.normalized.has_special()) return {};
    return normalized_marks(*parts_.normalizer, raw, text, marks_within(plain_, begin, begin + raw.size()));
  }

  void normalized(std::string_view raw, size_t begin) {
    const bool first = begin == 0;
    const std::string_view text = arena_.keep(parts_.normalizer->apply(std::string(raw)));
    for (const auto& span : parts_.normalized.split(text, parse_special_, plain_in(raw, begin, text))) {
      if (span.id >= 0)
        ids_.push_back(span.id);
      else if (span.begin < span.end)
        plain({text.substr(span.begin, span.end - span.begin), first && span.begin == 0});
    }
  }

  void plain(const Stretch& piece) {
    parts_.pre_tokenizer.steps->apply(piece, arena_, [&](const Stretch& p) { word(p.text); });
  }

  void word(std::string_view text) {
    constexpr size_t longest_cached = 64;  // words repeat, longer stretches do not
    if (text.size() > longest_cached) return new_word(text);
    WordCache::Slot& slot = cache_.slot(text);
    if (slot.word != text) {
      slot = {text, ids_.size(), 0};
      new_word(text);
      slot.count = ids_.size() - slot.begin;
      return;
    }
    for (size_t i = 0; i < slot.count; ++i) ids_.push_back(ids_[slot.begin + i]);
  }

  void new_word(std::string_view text) {
    if (!parts_.pre_tokenizer.byte_alphabet) return parts_.model->encode(text, ids_);
    characters_.clear();
    append_as_characters(characters_, text);
    parts_.model->encode(characters_, ids_);
  }

  const TokenizerParts& parts_;
  bool parse_special_;
  std::span<const ByteRange> plain_;
  Arena arena_;
  std::vector<int32_t> ids_;
  WordCache cache_;  // words view the arena
  std::string characters_;
};

/// Collects what the last step emits.
class Sink final : public DecoderStep {
 public:
  explicit Sink(std::string& out) : out_(out) {}
  void text(std::string_view part) override { out_.append(part); }
  void end() override {}
  void finish() override {}

 private:
  std::string& out_;
};

}  // namespace

void TokenizerParts::read_config_tokens(const nlohmann::json& config) {
  const nlohmann::json& listed = part(config, "added_tokens_decoder");
  if (listed.is_null()) return;
  if (!listed.is_object())
    fail("tokenizer", "tokenizer_config.json: \"added_tokens_decoder\" should be an object of ids and tokens");
  for (const auto& [key, t] : listed.items()) {
    const bool is_id = !key.empty() && key.size() <= 8 && key.find_first_not_of("0123456789") == std::string::npos;
    const int32_t id = is_id ? std::stoi(key) : Vocabulary::limit;
    if (id >= Vocabulary::limit)
      fail("tokenizer", "tokenizer_config.json: \"{}\" in added_tokens_decoder is no token id", key);
    added.insert_or_assign(id, read_added_token(t, id));
  }
}

std::optional<int32_t> TokenizerParts::named_token(const nlohmann::json& config, std::string_view key) const {
  const nlohmann::json& value = part(config, key);
  if (value.is_null()) return std::nullopt;
  if (!value.is_string() && !value.is_object())
    fail("tokenizer", "tokenizer_config.json: \"{}\" should be a token", key);
  const std::string text = value.is_string() ? value.get<std::string>() : fields::text(value, key, "content");
  std::optional<int32_t> id = id_of(text);
  if (!id)
    fail("tokenizer",
         "tokenizer_config.json: {} is \"{}\", which is no token of the tokenizer; do the files belong together?", key,
         text);
  return id;
}

void TokenizerParts::index_added_tokens() {
  size = model->vocabulary().size();
  for (auto& [id, token] : added) {
    check_against_model(token, model->vocabulary());
    const auto [it, fresh] = added_ids.emplace(token.content, id);
    if (!fresh) fail("tokenizer", "added token \"{}\" has the ids {} and {}", token.content, it->second, id);
    size = std::max(size, id + 1);
    token.pattern = token.normalized ? normalizer->apply(token.content) : token.content;
    (token.normalized ? normalized : raw).add(token);
  }
}

Tokenizer Tokenizer::from_json(const nlohmann::json& tokenizer_json, const nlohmann::json& tokenizer_config) {
  return parse(tokenizer_json.dump(), tokenizer_config);
}

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, const nlohmann::json& tokenizer_config) {
  const TokenizerFile file = parse_tokenizer_file(tokenizer_json);
  auto parts = std::make_shared<TokenizerParts>();
  parts->normalizer = make_normalizer(part(file.rest, "normalizer"));
  parts->pre_tokenizer = make_pre_tokenizer(part(file.rest, "pre_tokenizer"));
  parts->model = make_token_model(file.model);
  parts->decoder = make_decoder(part(file.rest, "decoder"));
  parts->post_processor = make_post_processor(part(file.rest, "post_processor"));
  read_added_tokens(file.rest, *parts);
  parts->read_config_tokens(tokenizer_config);
  parts->index_added_tokens();
  parts->bos = parts->named_token(tokenizer_config, "bos_token");
  parts->eos = parts->named_token(tokenizer_config, "eos_token");
  return Tokenizer(std::move(parts));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special, bool parse_special) const {
  std::string repaired;
  if (!parts_->raw_bytes && !utf8::valid(text)) text = repaired = utf8::sanitize(text);
  std::vector<int32_t> ids;
  if (!text.empty()) ids = Encoder(*parts_, parse_special, text.size()).run(text);
  if (!add_special) return ids;
  const PostProcessor& post = parts_->post_processor;
  ids.insert(ids.begin(), post.before.begin(), post.before.end());
  ids.insert(ids.end(), post.after.begin(), post.after.end());
  return ids;
}

std::vector<int32_t> Tokenizer::encode_chat(const MarkedText& chat) const {
  const std::string& text = chat.text();
  if (!utf8::valid(text)) fail("chat", "the rendered chat is not valid UTF-8");
  if (text.empty()) return {};
  return Encoder(*parts_, true, text.size(), chat.marks()).run(text);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamDecoder decoder(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text.append(decoder.push(id));
  return text.append(decoder.flush());
}

std::string Tokenizer::token_text(int32_t id) const {
  if (const AddedToken* token = parts_->added_token(id)) return token->content;
  const std::string* text = parts_->model->vocabulary().text_of(id);
  return text ? *text : std::string();
}

std::optional<int32_t> Tokenizer::id_of(std::string_view token_text) const { return parts_->id_of(token_text); }
bool Tokenizer::is_special(int32_t id) const { return parts_->is_special(id); }
int32_t Tokenizer::vocab_size() const { return parts_->size; }
std::optional<int32_t> Tokenizer::bos() const { return parts_->bos; }
std::optional<int32_t> Tokenizer::eos() const { return parts_->eos; }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : parts_(tokenizer.parts_), skip_special_(skip_special) {
  for (const DecoderFactory& make : parts_->decoder) steps_.push_back(make());
  steps_.push_back(std::make_unique<Sink>(out_));
  for (size_t i = 1; i < steps_.size(); ++i) steps_[i - 1]->feed(*steps_[i]);
}

std::string StreamDecoder::push(int32_t id) {
  const std::string* text = parts_->text_of(id);
  if (!text || (skip_special_ && parts_->is_special(id))) return {};
  steps_.front()->text(*text);
  steps_.front()->end();
  return std::exchange(out_, {});
}

std::string StreamDecoder::flush() {
  steps_.front()->finish();
  return std::exchange(out_, {});
}

}  // namespace awq
