#include "text/tiktoken.h"

#include <charconv>

#include "model/splitting.h"
#include "text/base64.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/json_fields.h"
#include "text/tokenizer_parts.h"

namespace awq {
namespace {

/// Tokens in the byte alphabet.
Vocabulary read_ranks(std::string_view file) {
  Vocabulary vocabulary(file.size() / 12);  // bytes of a short line
  for (size_t line = 1; !file.empty(); ++line) {
    const size_t end = std::min(file.find('\n'), file.size());
    std::string_view text = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty()) continue;
    const size_t space = std::min(text.find(' '), text.size() - 1);
    const std::string_view number = text.substr(space + 1);
    int32_t rank = -1;
    const auto [behind, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
    const auto bytes = decode_base64(text.substr(0, space));
    if (error != std::errc() || behind != number.data() + number.size() || !bytes || bytes->empty())
      fail("tokenizer", "the rank file, line {}: expected a token in base64 and its rank; is it a tiktoken file?",
           line);
    std::string characters;
    append_as_characters(characters, *bytes);
    vocabulary.add(characters, rank);
  }
  for (int b = 0; b < 256; ++b) {
    std::string character;
    const char byte = static_cast<char>(b);
    append_as_characters(character, std::string_view(&byte, 1));
    if (!vocabulary.id_of(character)) fail("tokenizer", "the rank file has no token for the byte {:02X}", b);
  }
  return vocabulary;
}

}  // namespace

Tokenizer parse_tiktoken(std::string_view ranks, std::string_view splitting, const nlohmann::json& config) {
  const PublishedSplitting* kind = find_splitting(splitting);
  if (!kind)
    fail("tokenizer", "a tiktoken file does not say how text is split, and \"{}\" is not known; this version has {}",
         splitting, splitting_names());
  const nlohmann::json fields = nlohmann::json::parse(kind->fields);
  Vocabulary vocabulary = read_ranks(ranks);
  std::vector<int32_t> order(size_t(vocabulary.size()));
  for (size_t id = 0; id < order.size(); ++id) order[id] = int32_t(id);
  Merges merges = merges_of_ranks(vocabulary, order);
  auto parts = std::make_shared<TokenizerParts>();
  parts->model = std::make_unique<Bpe>(std::move(vocabulary), std::move(merges), BpeOptions{.whole_words = true});
  parts->normalizer = make_normalizer(fields.value("normalizer", nlohmann::json()));
  parts->pre_tokenizer = make_pre_tokenizer(fields.at("pre_tokenizer"));
  parts->decoder = make_decoder(fields.at("decoder"));
  parts->read_config_tokens(config);
  parts->index_added_tokens();
  parts->bos = parts->named_token(config, "bos_token");
  parts->eos = parts->named_token(config, "eos_token");
  return Tokenizer(std::move(parts));
}

}  // namespace awq
