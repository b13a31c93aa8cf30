#pragma once
#include <string>
#include <string_view>

namespace awq {

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

/// Unicode normalization (UAX 15) of valid UTF-8, in linear time (times log n of the longest run of combining marks).
std::string normalize(std::string_view text, UnicodeForm form);
/// Lower case character by character, without context (a final sigma stays medial).
std::string lowercase(std::string_view text);

bool is_mark(char32_t c);             // general category M
bool is_nonspacing_mark(char32_t c);  // Mn
bool is_control(char32_t c);          // Cc, Cf or Co
bool is_punctuation(char32_t c);      // P of Unicode 8, as in the tokenizers library; of ASCII also symbols
/// Where the user-perceived character (UAX 29) that begins at text[pos], valid UTF-8, ends.
size_t grapheme_end(std::string_view text, size_t pos);

}  // namespace awq
