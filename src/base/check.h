#pragma once
#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "awq/error.h"

namespace awq {

/// Throws Error reading "[operation] message".
template <class... Args>
[[noreturn]] void fail(std::string_view operation, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format("[{}] {}", operation, fmt::format(format, std::forward<Args>(args)...)));
}

}  // namespace awq
