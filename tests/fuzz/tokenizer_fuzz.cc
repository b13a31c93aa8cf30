// tokenizer.json (an optional key "tokenizer_config" holds the second file), then text through the tokenizer it makes.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "awq/error.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

namespace {

/// What must hold for any tokenizer: known ids, and streaming equals decoding and never cuts a character.
void round_trip(const awq::Tokenizer& t, std::string_view text, bool parse_special) {
  const std::vector<int32_t> ids = t.encode(text, true, parse_special);
  awq::StreamDecoder stream(t);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    if (id < 0 || id >= awq::Vocabulary::limit || !awq::utf8::valid(part)) abort();
    streamed += part;
  }
  if (streamed + stream.flush() != t.decode(ids)) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const nlohmann::json json = nlohmann::json::parse(bytes, nullptr, false);
  if (!json.is_object()) return 0;
  try {
    const auto t = awq::Tokenizer::from_json(json, json.value("tokenizer_config", nlohmann::json()));
    for (const bool parse_special : {false, true}) {
      round_trip(t, "Hello  <s> 123 don't\n\u00e9e\u0301 \u4e2d\U0001f600 <0x41>\u2581", parse_special);
      round_trip(t, bytes.substr(0, 200), parse_special);
    }
  } catch (const awq::Error&) {
  }
  return 0;
}
