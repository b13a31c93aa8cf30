#pragma once
// Python's str, on UTF-8. Positions and lengths count characters. Two differences: a final sigma is lowered as any
// other, and `title` and `capitalize` treat ten letters (nine Greek ones with iota subscript, U+0149) by their case
// folding.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace awq::python {

bool is_space(char32_t c);      // str.isspace: white space and the four separators U+001C..U+001F
bool is_printable(char32_t c);  // what repr leaves as it is

std::vector<std::string_view> characters(std::string_view s);
/// The text of character positions [begin, end), both within the text.
std::string_view substring(std::string_view s, int64_t begin, int64_t end);

/// Strips characters of `set`, or white space without one, from the chosen ends.
std::string_view strip(std::string_view s, std::optional<std::string_view> set, bool left, bool right);
/// At most `limit` cuts, any number if negative. `separator` is not empty.
std::vector<std::string_view> split(std::string_view s, std::string_view separator, int64_t limit);
std::vector<std::string_view> rsplit(std::string_view s, std::string_view separator, int64_t limit);
/// At runs of white space, without empty parts.
std::vector<std::string_view> split_spaces(std::string_view s, int64_t limit);
std::vector<std::string_view> rsplit_spaces(std::string_view s, int64_t limit);
std::vector<std::string_view> split_lines(std::string_view s, bool keep_ends);
/// What str.replace keeps: the parts of the text before, between and behind what it would replace.
std::vector<std::string_view> around(std::string_view s, std::string_view from, int64_t limit);
/// At most `limit` replacements, any number if negative.
std::string replace(std::string_view s, std::string_view from, std::string_view to, int64_t limit);
int64_t count(std::string_view s, std::string_view part);

std::string upper(std::string_view s);
std::string lower(std::string_view s);
std::string capitalize(std::string_view s);
std::string title(std::string_view s);  // str.title: letters after a letter are lower case
bool is_upper(std::string_view s);
bool is_lower(std::string_view s);
bool all_of_category(std::string_view s, bool (*member)(char32_t));  // false for an empty text
bool is_letter(char32_t c);
bool is_decimal(char32_t c);  // decimal digits of all scripts

std::string repr(std::string_view s);
std::string escape_html(std::string_view s);  // as markupsafe does

}  // namespace awq::python
