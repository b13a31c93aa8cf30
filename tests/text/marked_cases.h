#pragma once
// What a conversation wrote is marked. The oracle: private-use characters, which no template has and no filter makes.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "text/marked_text.h"
#include "text/utf8.h"

namespace awq::test {

constexpr char32_t kFirstPrivate = 0xE000, kLastPrivate = 0xE0FF;
constexpr bool is_private(char32_t c) { return c >= kFirstPrivate && c <= kLastPrivate; }

inline std::string private_text(std::string_view text) {
  std::string out;
  for (const char c : text) utf8::append(out, kFirstPrivate + static_cast<unsigned char>(c));
  return out;
}

/// A conversation whose strings are of private-use characters. Roles, types and keys stay: templates ask for them.
inline nlohmann::ordered_json made_private(nlohmann::ordered_json j) {
  if (j.is_string()) return private_text(j.get_ref<const std::string&>());
  for (auto it = j.begin(); j.is_structured() && it != j.end(); ++it)
    if (!j.is_object() || (it.key() != "role" && it.key() != "type")) *it = made_private(*it);
  return j;
}

/// Empty if every private-use character is marked, else where one is not.
inline std::string unmarked_private(const MarkedText& m) {
  size_t pos = 0;
  auto mark = m.marks().begin();
  while (pos < m.text().size()) {
    const size_t begin = pos;
    const bool wanted = is_private(utf8::next(m.text(), pos));
    while (mark != m.marks().end() && mark->end <= begin) ++mark;
    const bool marked = mark != m.marks().end() && mark->begin <= begin && pos <= mark->end;
    if (wanted && !marked) return fmt::format("byte {} is not marked: {}", begin, m.text());
  }
  return "";
}

}  // namespace awq::test
