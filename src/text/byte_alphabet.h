#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace awq {

/// GPT-2's alphabet of 256 printable characters, one a byte: bytes that print as themselves keep their code point, the
/// others get U+0100 and up in order.
char32_t character_of_byte(unsigned char byte);
std::optional<unsigned char> byte_of_character(char32_t c);
/// At most 2 bytes a byte.
void append_as_characters(std::string& out, std::string_view bytes);

}  // namespace awq
