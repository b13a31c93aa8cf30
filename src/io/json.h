#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace awq {

/// Parses a file's JSON. Throws Error, naming `file`, on anything but one complete value and also where the standard is
/// lax but two readers may differ or memory run out: a key twice in one object, more than 64 levels, more than 4
/// million values.
nlohmann::json parse_json(std::string_view text, std::string_view file);

/// The value's JSON for a message: ASCII, at most 80 characters.
std::string shown(const nlohmann::json& value);

}  // namespace awq
