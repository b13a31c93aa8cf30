// A SentencePiece model, then text through the tokenizer that it makes.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "awq/error.h"
#include "round_trip.h"
#include "text/sentencepiece.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const awq::Tokenizer t = awq::parse_sentencepiece(bytes, nullptr);
    awq::fuzz::round_trip(t, "Hello  <s> \u00e9e\u0301 \u4e2d\U0001f600 <0x41>\u2581", true);
    awq::fuzz::round_trip(t, bytes.substr(0, 200), false);
  } catch (const awq::Error&) {
  }
  return 0;
}
