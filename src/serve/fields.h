#pragma once
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "serve/api_error.h"

namespace awq {

/// Fields of a request's JSON object, each of its type and in its range, or an ApiError 400 that names it. A field that
/// is null counts as absent, and one that nobody asks for is ignored, as OpenAI does.
class Fields {
 public:
  using Json = nlohmann::ordered_json;

  /// `object` must outlive it. `place` comes before names in errors: "stream_options.".
  explicit Fields(const Json& object, std::string place = "") : object_(object), place_(std::move(place)) {
    if (!object.is_object()) refuse("", "an object", object);
  }

  /// null where it is absent
  const Json* find(std::string_view key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  double number(std::string_view key, double missing, double low, double high) const {
    const Json* v = find(key);
    if (!v) return missing;
    const std::string wanted = fmt::format("a number from {} to {}", low, high);
    if (!v->is_number()) refuse(key, wanted, *v);
    const auto x = v->get<double>();
    if (!(x >= low && x <= high)) refuse(key, wanted, *v);
    return x;
  }
  int64_t whole(std::string_view key, int64_t missing, int64_t low, int64_t high) const {
    const Json* v = find(key);
    if (!v) return missing;
    const std::string wanted = fmt::format("a whole number from {} to {}", low, high);
    if (!v->is_number_integer() ||
        (v->is_number_unsigned() && v->get<uint64_t>() > uint64_t(std::numeric_limits<int64_t>::max())))
      refuse(key, wanted, *v);
    const auto x = v->get<int64_t>();
    if (x < low || x > high) refuse(key, wanted, *v);
    return x;
  }
  bool flag(std::string_view key, bool missing) const {
    const Json* v = find(key);
    if (v && !v->is_boolean()) refuse(key, "true or false", *v);
    return v ? v->get<bool>() : missing;
  }
  std::string text(std::string_view key, std::string missing = "") const {
    const Json* v = find(key);
    if (v && !v->is_string()) refuse(key, "a string", *v);
    return v ? v->get<std::string>() : missing;
  }
  /// Throws ApiError 400.
  [[noreturn]] void refuse(std::string_view key, std::string_view wanted, const Json& got) const {
    const std::string name = place_ + std::string(key);
    throw ApiError(400, fmt::format("{}: expected {}, got {}", name.empty() ? "the body" : name, wanted, shown(got)),
                   name);
  }

 private:
  static std::string shown(const Json& v) {
    std::string s = v.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (s.size() > 60) s = fmt::format("{} of {} bytes", v.type_name(), s.size());
    return s;
  }

  const Json& object_;
  std::string place_;
};

}  // namespace awq
