#include "eval/record.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"
#include "io/file.h"
#include "text/utf8.h"

namespace awq {

using Json = nlohmann::ordered_json;

namespace {

std::string brief(const Json& value) {
  return fmt::format("{:.60}", value.dump(-1, ' ', true, Json::error_handler_t::replace));
}

}  // namespace

void Record::bad(std::string_view field, std::string_view expected, const std::string& got) const {
  fail("eval", "{}: \"{}\": expected {}, got {}. Is this the task's data, as its authors publish it?", where_, field,
       expected, got);
}

const Json& Record::field(std::string_view name) const {
  if (!value_.is_object()) bad(name, "an object with this field", brief(value_));
  const auto at = value_.find(name);
  if (at == value_.end()) bad(name, "this field", "none in " + brief(value_));
  return *at;
}

std::string Record::any(std::string_view name) const {
  const Json& v = field(name);
  if (!v.is_string()) bad(name, "a text", brief(v));
  return v.get<std::string>();
}

std::string Record::text(std::string_view name) const {
  std::string s = any(name);
  if (s.empty()) bad(name, "a text that is not empty", "\"\"");
  return s;
}

std::vector<std::string> Record::texts(std::string_view name) const {
  const Json& v = field(name);
  if (!v.is_array() || v.empty()) bad(name, "a list of texts", brief(v));
  std::vector<std::string> all;
  for (const Json& e : v) {
    if (!e.is_string() || e.get_ref<const std::string&>().empty()) bad(name, "texts that are not empty", brief(v));
    all.push_back(e.get<std::string>());
  }
  return all;
}

size_t Record::index(std::string_view name, size_t choices, int64_t first) const {
  const Json& v = field(name);
  int64_t n = first - 1;
  if (v.is_number_integer()) n = v.get<int64_t>();
  if (v.is_string()) {
    const auto& s = v.get_ref<const std::string&>();
    int64_t read = 0;
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), read);
    if (error == std::errc() && end == s.data() + s.size()) n = read;
  }
  if (n < first || uint64_t(n) - uint64_t(first) >= choices)
    bad(name, fmt::format("a number from {} to {}", first, first + int64_t(choices) - 1), brief(v));
  return size_t(n - first);
}

bool Record::flag(std::string_view name) const {
  const Json& v = field(name);
  if (v.is_boolean()) return v.get<bool>();
  return index(name, 2) == 1;
}

Record Record::at(std::string_view name) const {
  const Json& v = field(name);
  if (!v.is_object()) bad(name, "an object", brief(v));
  return {v, where_};
}

std::vector<Record> Record::entries(std::string_view name) const {
  const Json& v = field(name);
  if (!v.is_array() || v.empty()) bad(name, "a list of objects", brief(v));
  std::vector<Record> all;
  for (const Json& e : v) all.emplace_back(e, where_);
  return all;
}

std::pair<std::vector<std::string>, std::vector<uint8_t>> Record::labelled(std::string_view name) const {
  const Record of = at(name);
  std::pair<std::vector<std::string>, std::vector<uint8_t>> all;
  for (const auto& [key, value] : of.value_.items()) {
    if (key.empty()) of.bad(name, "texts that are not empty", brief(of.value_));
    all.first.push_back(key);
    all.second.push_back(uint8_t(of.index(key, 2)));
  }
  return all;
}

std::string Record::cell(size_t n) const {
  if (!value_.is_array() || n >= value_.size())
    bad(fmt::format("column {}", n + 1), "this column",
        value_.is_array() ? fmt::format("{} of them", value_.size()) : brief(value_));
  const Json& v = value_[n];
  if (v.get_ref<const std::string&>().empty()) bad(fmt::format("column {}", n + 1), "a text that is not empty", "none");
  return v.get<std::string>();
}

namespace {

void require_utf8(std::string_view text, const std::string& name) {
  size_t at = 0, line = 1;
  while (at < text.size()) {
    const utf8::Scan s = utf8::scan(text, at);
    if (!s.valid)
      fail("eval", "{} line {}: byte 0x{:02x} begins no UTF-8 character. Convert the file to UTF-8", name, line,
           uint8_t(text[at]));
    line += text[at] == '\n';
    at += s.length;
  }
}

std::string_view next_line(std::string_view& rest) {
  const size_t end = rest.find('\n');
  std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

std::vector<Record> json_lines(std::string_view text, const std::string& name) {
  std::vector<Record> all;
  for (int n = 1; !text.empty(); ++n) {
    const std::string_view line = next_line(text);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    Json j = Json::parse(line, nullptr, false);
    std::string where = fmt::format("{} line {}", name, n);
    if (j.is_discarded()) fail("eval", "{}: no valid JSON; expected one object a line", where);
    all.emplace_back(std::move(j), std::move(where));
  }
  return all;
}

std::vector<Record> json_list(std::string_view text, const std::string& name) {
  std::vector<Record> all;
  try {
    Json list = Json::parse(text);
    for (Json& e : list.get_ref<Json::array_t&>())
      all.emplace_back(std::move(e), fmt::format("{} entry {}", name, all.size() + 1));
  } catch (const nlohmann::json::parse_error& e) {
    const auto line = 1 + std::ranges::count(text.substr(0, std::min(e.byte, text.size())), '\n');
    fail("eval", "{} line {}: no valid JSON; expected a list of objects", name, line);
  }
  return all;
}

std::vector<Record> groups_of_lines(std::string_view text, const std::string& name, int lines) {
  std::vector<Record> all;
  for (int n = 1; !text.empty(); n += lines) {
    Json cells = Json::array();
    for (int i = 0; i < lines && !text.empty(); ++i) cells.push_back(next_line(text));
    if (int(cells.size()) < lines)
      fail("eval", "{} line {}: expected {} lines of an entry, got {}. Is the file complete?", name, n, lines,
           cells.size());
    all.emplace_back(std::move(cells), fmt::format("{} line {}", name, n));
  }
  return all;
}

/// RFC 4180: cells in quotes may hold commas, line ends and doubled quotes.
class Table {
 public:
  Table(std::string_view text, const std::string& name) : text_(text), name_(name) {}
  std::vector<Record> rows() {
    std::vector<Record> all;
    while (at_ < text_.size()) {
      const int line = line_;
      Json row = Json::array();
      do row.push_back(text_[at_] == '"' ? quoted(line) : plain());
      while (ends_cell());
      if (row.size() > 1 || row[0] != "") all.emplace_back(std::move(row), fmt::format("{} line {}", name_, line));
    }
    return all;
  }

 private:
  std::string plain() {
    const size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    const std::string_view cell = text_.substr(at_, end - at_);
    at_ = end;
    return std::string(cell);
  }
  std::string quoted(int line) {
    std::string cell;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"' && (++at_ == text_.size() || text_[at_] != '"')) return cell;
      line_ += text_[at_] == '\n';
      cell += text_[at_];
    }
    fail("eval", "{} line {}: the row begins a cell in quotes that never ends", name_, line);
  }
  /// Passes over what ends a cell; true where another follows in the row.
  bool ends_cell() {
    if (at_ < text_.size() && text_[at_] == ',') return ++at_ < text_.size();
    while (at_ < text_.size() && text_[at_] == '\r') ++at_;
    if (at_ < text_.size() && text_[at_] != '\n')
      fail("eval", "{} line {}: expected a comma or the end of the line behind a cell in quotes", name_, line_);
    ++at_, ++line_;
    return false;
  }

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Record> read_records(const std::filesystem::path& file, int lines) {
  const std::string content = read_text(file), name = file.string();
  std::string_view text = content;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  require_utf8(text, name);
  const size_t first = text.find_first_not_of(" \t\r\n");
  const char begins = first == std::string_view::npos ? ' ' : text[first];
  std::vector<Record> all = begins == '{'                             ? json_lines(text, name)
                            : begins == '['                           ? json_list(text, name)
                            : file.extension() == ".csv"              ? Table(text, name).rows()
                            : lines > 0 && file.extension() == ".txt" ? groups_of_lines(text, name, lines)
                                                                      : std::vector<Record>();
  if (all.empty())
    fail("eval", "{}: no entries of a data set; expected JSON lines, a JSON list{}", name,
         lines ? fmt::format(" or a .txt file of {} lines an entry", lines) : " or a .csv table");
  return all;
}

void add_labels(std::vector<Record>& records, const std::filesystem::path& file, size_t choices) {
  const std::string content = read_text(file);
  std::string_view rest = content;
  size_t n = 0;
  for (; !rest.empty(); ++n) {
    const std::string line(next_line(rest));
    const Record label({{"label", line}}, fmt::format("{} line {}", file.string(), n + 1));
    const size_t value = label.index("label", choices);
    if (n == records.size()) label.bad("label", fmt::format("no more than {} of them, one an entry", n), line);
    if (records[n].has("label"))
      records[n].bad("label", "no such field, for the labels are in " + file.string(), "one");
    records[n].set("label", value);
  }
  if (n < records.size())
    records[n].bad("label", fmt::format("line {} of {}", n + 1, file.string()), fmt::format("a file of {} lines", n));
}

}  // namespace awq
