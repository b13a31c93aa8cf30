// tokenizer.json (an optional key "tokenizer_config" holds the second file), then text through the tokenizer it makes.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "awq/error.h"
#include "round_trip.h"

namespace {

void collect(nlohmann::json& node, std::vector<nlohmann::json*>& nodes) {
  nodes.push_back(&node);
  for (nlohmann::json& child : node)
    if (node.is_structured()) collect(child, nodes);
}

/// Replaces a value by an odd one or by another value of the document.
void mutate(nlohmann::json& json, std::minstd_rand& random) {
  static const auto odd = nlohmann::json::parse(
      R"json([null, true, false, 0, 1, -1, 16777215, 2147483648, 1.5, "", " ", "a", "\u2581", "<0x41>", "\\s+", "(?=a)", "[a-c]+|\\p{L}{1,3}+",
          "Isolated", "Removed", "MergedWithNext", "Contiguous", "ByteLevel", "Metaspace", "Split", "Digits", "NFKC", "Lowercase", "Strip", "BertNormalizer", "Nmt", "StripAccents", "Punctuation", "Whitespace", "BertPreTokenizer", "WordPiece", "Unigram", "BPEDecoder",
          [], {}, {"type": "Fuse"}, {"Regex": "\\w|x*"}, {"String": "e"}])json");
  std::vector<nlohmann::json*> nodes;
  collect(json, nodes);
  nlohmann::json& target = *nodes[random() % nodes.size()];
  const nlohmann::json other = random() % 2 ? odd[random() % odd.size()] : *nodes[random() % nodes.size()];
  if (target.is_array() && random() % 2)
    target.push_back(other);
  else if (target.is_object() && random() % 2)
    target[other.is_string() ? other.get<std::string>() : "x"] = other;
  else
    target = other;
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Most changes of bytes make invalid JSON; most of these do not.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  std::minstd_rand random(seed);
  nlohmann::json json = nlohmann::json::parse(data, data + size, nullptr, false);
  if (!json.is_object() || random() % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  for (auto n = random() % 3; n < 3; ++n) mutate(json, random);
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::copy(text.begin(), text.end(), data);
  return text.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const nlohmann::json json = nlohmann::json::parse(bytes, nullptr, false);
  if (!json.is_object()) return 0;
  try {
    const auto t = awq::Tokenizer::from_json(json, json.value("tokenizer_config", nlohmann::json()));
    for (const bool parse_special : {false, true}) {
      awq::fuzz::round_trip(t, "Hello  <s> 123 don't\n\u00e9e\u0301 \u4e2d\U0001f600 <0x41>\u2581", parse_special);
      awq::fuzz::round_trip(t, bytes.substr(0, 200), parse_special);
    }
  } catch (const awq::Error&) {
  }
  return 0;
}
