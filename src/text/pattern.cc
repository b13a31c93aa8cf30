#include "text/pattern.h"

#include <nlohmann/json.hpp>

#include "text/json_fields.h"

namespace awq {
namespace {

namespace fields = json_fields;

std::variant<std::string, Regex> read(const nlohmann::json& spec, std::string_view component) {
  const nlohmann::json* pattern = fields::find(spec, "pattern");
  if (pattern && fields::find(*pattern, "Regex")) return Regex(fields::text(*pattern, component, "Regex"));
  if (!pattern || !fields::find(*pattern, "String")) fields::bad(component, "pattern", "a String or a Regex");
  std::string text = fields::text(*pattern, component, "String");
  if (text.empty()) fields::bad(component, "pattern", "a String that is not empty");
  return text;
}

std::vector<Regex::Range> find_string(std::string_view text, std::string_view what) {
  std::vector<Regex::Range> matches;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + what.size()))
    matches.emplace_back(at, at + what.size());
  return matches;
}

}  // namespace

Pattern::Pattern(const nlohmann::json& spec, std::string_view component) : what_(read(spec, component)) {}

std::vector<Regex::Range> Pattern::find_all(std::string_view text) const {
  if (const auto* s = std::get_if<std::string>(&what_)) return find_string(text, *s);
  return std::get<Regex>(what_).find_all(text);
}

std::string Pattern::replace_all(std::string_view text, std::string_view with) const {
  std::string out;
  size_t done = 0;
  for (const Regex::Range& m : find_all(text)) {
    out.append(text.substr(done, m.first - done)).append(with);
    done = m.second;
  }
  return out.append(text.substr(done));
}

}  // namespace awq
