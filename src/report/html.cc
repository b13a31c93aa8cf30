#include "report/html.h"

#include <fmt/format.h>

namespace awq {
namespace {

// By way of JSON, which replaces bytes that are no UTF-8.
std::string valid_utf8(std::string_view text) {
  using Json = nlohmann::json;
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

std::string_view replacement(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return (uint8_t(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? "\uFFFD" : std::string_view();
  }
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (char c : valid_utf8(text)) {
    const std::string_view other = replacement(c);
    other.empty() ? out += c : out += other;
  }
  return out;
}

std::string number(double v) { return fmt::format("{:.4g}", v); }
std::string percent(double share) { return fmt::format("{:.4g} %", 100 * share); }
std::string amount(double bytes) {
  return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.2f} GB", bytes / 1e9);
}

HtmlTable::HtmlTable(std::string_view caption, const std::vector<std::string>& heads, size_t words)
    : words_(words),
      html_(fmt::format("<div class=\"scroll\"><table><caption>{}</caption><thead><tr>", escaped(caption))) {
  for (size_t i = 0; i < heads.size(); ++i)
    html_ += fmt::format("<th scope=\"col\"{}>{}</th>", i < words ? "" : " class=\"n\"", escaped(heads[i]));
  html_ += "</tr></thead><tbody>\n";
}

void HtmlTable::row(const std::vector<std::string>& cells) {
  html_ += "<tr>";
  for (size_t i = 0; i < cells.size(); ++i)
    html_ += fmt::format("<td{}>{}</td>", i < words_ ? "" : " class=\"n\"", escaped(cells[i]));
  html_ += "</tr>\n";
}

std::string folded(std::string_view summary, const std::string& html) {
  return fmt::format("<details><summary>{}</summary>{}</details>\n", escaped(summary), html);
}

}  // namespace awq
