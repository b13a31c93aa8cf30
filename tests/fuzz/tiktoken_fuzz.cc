// A rank file, then text through the tokenizer that it makes. Lines for the 256 bytes are put before it: few inputs
// would have them all.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "awq/error.h"
#include "round_trip.h"
#include "text/tiktoken.h"

namespace {

std::string lines_of_bytes() {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string lines;
  for (size_t b = 0; b < 256; ++b)
    lines.append({digits[b >> 2], digits[(b & 3) << 4], '=', '='}).append(" " + std::to_string(b) + "\n");
  return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string bytes_first = lines_of_bytes();
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const awq::Tokenizer t = awq::parse_tiktoken(bytes_first + std::string(bytes), "gpt-2", nullptr);
    awq::fuzz::round_trip(t, "Hello  don't \u00e9e\u0301 \u4e2d\U0001f600", false);
    awq::fuzz::must_come_back(t, bytes.substr(0, 200));
  } catch (const awq::Error&) {
  }
  return 0;
}
