#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

/// One entry of a data set's file, and where it stands there. What is not as asked for throws Error with that place.
class Record {
 public:
  Record(nlohmann::ordered_json value, std::string where) : value_(std::move(value)), where_(std::move(where)) {}
  const std::string& where() const { return where_; }
  bool is_cells() const { return value_.is_array(); }
  bool has(std::string_view field) const { return value_.is_object() && value_.contains(field); }

  std::string text(std::string_view field) const;                // not empty
  std::string any(std::string_view field) const;                 // may be empty
  std::vector<std::string> texts(std::string_view field) const;  // none of them empty, at least one
  /// Of a number, or the digits of one, less `first`: in [0, choices).
  size_t index(std::string_view field, size_t choices, int64_t first = 0) const;
  bool flag(std::string_view field) const;
  Record at(std::string_view field) const;                                                // an object
  void set(std::string_view field, size_t value) { value_[std::string(field)] = value; }  // of an object
  std::vector<Record> entries(std::string_view field) const;                              // of a list of objects
  /// Keys and values of an object of 0 and 1, in the file's order.
  std::pair<std::vector<std::string>, std::vector<uint8_t>> labelled(std::string_view field) const;
  /// Of a table or of lines that make an item: the n-th, not empty.
  std::string cell(size_t n) const;
  /// Throws Error.
  [[noreturn]] void bad(std::string_view field, std::string_view expected, const std::string& got) const;

 private:
  const nlohmann::ordered_json& field(std::string_view name) const;

  nlohmann::ordered_json value_;
  std::string where_;
};

/// A file of JSON lines, of one JSON list, or a .csv table without a head, whose rows are lists of cells; with `lines`,
/// a .txt file of which so many make an entry. Empty lines are passed over, but not in .txt. Throws Error, naming the
/// line, where the text is not UTF-8 or not of that form.
std::vector<Record> read_records(const std::filesystem::path& file, int lines = 0);
/// Gives each record its "label": the number in the same line of `file`, in [0, choices). Throws Error, naming the
/// line.
void add_labels(std::vector<Record>& records, const std::filesystem::path& file, size_t choices);

}  // namespace awq
