#pragma once
// Fields of a component of tokenizer.json, with errors that name the component.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/check.h"

namespace awq::json_fields {

[[noreturn]] inline void bad(std::string_view component, std::string_view key, std::string_view expected) {
  fail("tokenizer", "tokenizer.json: \"{}\" of {} should be {}; is the file complete?", key, component, expected);
}

/// Null when the key is absent or null.
inline const nlohmann::json* find(const nlohmann::json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

inline const nlohmann::json& array(const nlohmann::json& object, std::string_view component, std::string_view key) {
  const nlohmann::json* v = find(object, key);
  if (!v || !v->is_array()) bad(component, key, "a list");
  return *v;
}

inline std::string text(const nlohmann::json& object, std::string_view component, std::string_view key) {
  const nlohmann::json* v = find(object, key);
  if (!v || !v->is_string()) bad(component, key, "a string");
  return v->get<std::string>();
}

inline std::string text(const nlohmann::json& object, std::string_view component, std::string_view key,
                        std::string_view missing) {
  return find(object, key) ? text(object, component, key) : std::string(missing);
}

/// A text that is put into every place where something is found: its length multiplies that of the whole.
inline std::string insertion(const nlohmann::json& object, std::string_view component, std::string_view key) {
  constexpr size_t longest = 16;  // bytes; published tokenizers insert one character
  std::string value = text(object, component, key);
  if (value.size() > longest) bad(component, key, fmt::format("a string of at most {} bytes", longest));
  return value;
}

inline bool flag(const nlohmann::json& object, std::string_view component, std::string_view key, bool missing) {
  const nlohmann::json* v = find(object, key);
  if (!v) return missing;
  if (!v->is_boolean()) bad(component, key, "true or false");
  return v->get<bool>();
}

/// An id or a count: 0 <= value < limit.
inline int32_t index(const nlohmann::json& v, std::string_view component, std::string_view key, int32_t limit) {
  if (!v.is_number_integer() || v.get<int64_t>() < 0 || v.get<int64_t>() >= limit)
    bad(component, key, fmt::format("a whole number below {}", limit));
  return v.get<int32_t>();
}

inline std::string type(const nlohmann::json& object, std::string_view component) {
  return text(object, component, "type");
}

}  // namespace awq::json_fields
