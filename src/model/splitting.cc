#include "model/splitting.h"

#include <algorithm>
#include <iterator>

namespace awq {
namespace {

constexpr std::string_view kSmolLm = R"({
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": true},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}})";

constexpr std::string_view kLlama3 = R"({
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
  "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {"ignore_merges": true}})";

constexpr std::string_view kQwen2 = R"({
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
  "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
  "model": {"continuing_subword_prefix": "", "end_of_word_suffix": ""}})";

constexpr std::string_view kGpt2 = R"({
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {"continuing_subword_prefix": "", "end_of_word_suffix": ""}})";

constexpr std::string_view kMpt = R"({
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}})";

constexpr std::string_view kFalcon = R"({
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Punctuation", "behavior": "Contiguous"},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    {"type": "Digits", "individual_digits": false},
    {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex": "[0-9][0-9][0-9]"}}]},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}})";

// Each is compared with a published file, or through a real model (tests/formats/gguf_tokenizer_test.cc): a name that
// is not known is refused, so that none is guessed.
constexpr PublishedSplitting kTable[] = {
    {"smollm", false, kSmolLm}, {"llama-bpe", true, kLlama3}, {"llama3", true, kLlama3}, {"llama-v3", true, kLlama3},
    {"qwen2", false, kQwen2},   {"gpt-2", false, kGpt2},      {"mpt", false, kMpt},      {"falcon", false, kFalcon}};

}  // namespace

std::span<const PublishedSplitting> published_splittings() { return kTable; }

const PublishedSplitting* find_splitting(std::string_view name) {
  const auto* found = std::ranges::find(kTable, name, &PublishedSplitting::name);
  return found == std::end(kTable) ? nullptr : found;
}

std::string splitting_names() {
  std::string names;
  for (const PublishedSplitting& s : kTable) names.append(names.empty() ? "" : ", ").append(s.name);
  return names;
}

}  // namespace awq
