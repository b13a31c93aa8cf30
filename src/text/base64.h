#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace awq {

/// RFC 4648, padded. Empty optional for anything else.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace awq
