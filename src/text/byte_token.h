#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace awq {

/// The byte that a token such as <0x0A> stands for.
inline std::optional<char> byte_of_token(std::string_view token) {
  constexpr std::string_view digits = "0123456789ABCDEFabcdef";
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const std::string hex(token.substr(3, 2));
  if (hex.find_first_not_of(digits) != std::string::npos) return std::nullopt;
  return static_cast<char>(std::stoi(hex, nullptr, 16));
}

}  // namespace awq
