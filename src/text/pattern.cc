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

}  // namespace

Pattern::Pattern(const nlohmann::json& spec, std::string_view component) : what_(read(spec, component)) {}

void Pattern::for_each(std::string_view text, FunctionRef<void(Regex::Range)> match) const {
  const auto* s = std::get_if<std::string>(&what_);
  if (!s) return std::get<Regex>(what_).for_each(text, match);
  for (size_t at = text.find(*s); at != std::string_view::npos; at = text.find(*s, at + s->size()))
    match({at, at + s->size()});
}

std::string Pattern::replace_all(std::string_view text, std::string_view with) const {
  std::string out;
  size_t done = 0;
  for_each(text, [&](Regex::Range m) {
    out.append(text.substr(done, m.first - done)).append(with);
    done = m.second;
  });
  return out.append(text.substr(done));
}

}  // namespace awq
