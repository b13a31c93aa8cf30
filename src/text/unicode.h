#pragma once
#include <string>
#include <string_view>

namespace awq {

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

/// Unicode normalization (UAX 15) of valid UTF-8, in linear time (times log n of the longest run of combining marks).
std::string normalize(std::string_view text, UnicodeForm form);
/// Lower case character by character, without context (a final sigma stays medial).
std::string lowercase(std::string_view text);

}  // namespace awq
