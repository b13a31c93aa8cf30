#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

/// Text for a page, between tags or in a quoted attribute. What is no UTF-8, and control characters but line ends and
/// tabs, become U+FFFD.
std::string escaped(std::string_view text);

/// Four digits, and no more zeros than there are.
std::string number(double v);
std::string percent(double share);
std::string amount(double bytes);  // "83.9 MB"

/// <table>: cells are escaped; all columns but the first `words` are numbers and stand on the right.
class HtmlTable {
 public:
  HtmlTable(std::string_view caption, const std::vector<std::string>& heads, size_t words = 1);
  void row(const std::vector<std::string>& cells);
  std::string html() const { return html_ + "</tbody></table></div>\n"; }

 private:
  size_t words_;
  std::string html_;
};

/// Behind a line that opens it.
std::string folded(std::string_view summary, const std::string& html);

}  // namespace awq
