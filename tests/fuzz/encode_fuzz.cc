// Random text through tokenizers that have every byte: what is encoded comes back.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "round_trip.h"
#include "text/byte_alphabet.h"

namespace {

nlohmann::json byte_level(const nlohmann::json& pre_tokenizer) {
  nlohmann::json vocab = nlohmann::json::object();
  for (int b = 0; b < 256; ++b) {
    std::string character;
    const char byte = static_cast<char>(b);
    awq::append_as_characters(character, std::string_view(&byte, 1));
    vocab[character] = b;
  }
  for (const char* token :
       {"th", "the", "\u0120t", "\u0120th", "\u0120the", "\u0120\u0120", "er", "\u00c3\u00a9", "..", "...."})
    vocab[token] = vocab.size();
  return {
      {"pre_tokenizer", pre_tokenizer},
      {"decoder", {{"type", "ByteLevel"}}},
      {"added_tokens", {{{"id", 300}, {"content", "<|x|>"}, {"special", true}}, {{"id", 301}, {"content", "    "}}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", vocab},
        {"merges",
         {"t h", "th e", "\u0120 t", "\u0120t h", "\u0120th e", "\u0120 \u0120", "e r", "\u00c3 \u00a9", ". .",
          ".. .."}}}}};
}

std::vector<awq::Tokenizer> tokenizers() {
  const auto split = [](const char* pattern) {
    return nlohmann::json{{"type", "Sequence"},
                          {"pretokenizers",
                           {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}},
                            {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  };
  std::vector<awq::Tokenizer> all;
  for (
      const nlohmann::json& pre :
      {nlohmann::json{{"type", "ByteLevel"}, {"add_prefix_space", false}},
       split(
           R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
       split(
           R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+)")})
    all.push_back(awq::Tokenizer::from_json(byte_level(pre), nullptr));
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<awq::Tokenizer> all = tokenizers();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const awq::Tokenizer& t : all) awq::fuzz::must_come_back(t, text);
  return 0;
}
