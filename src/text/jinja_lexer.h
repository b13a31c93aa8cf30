#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace awq::jinja {

/// Where something stands in the template; both count from 1, columns in characters.
struct Position {
  int line = 1, column = 1;
};

struct Token {
  enum class Kind { data, output_begin, output_end, tag_begin, tag_end, name, text, integer, real, op, end };
  Kind kind = Kind::end;
  std::string value;  // the text between tags, a name, a string without quotes and escapes, digits, an operator
  Position at;
};

/// Cuts a template into tokens, with the white space rules that chat templates are written for (trim_blocks and
/// lstrip_blocks): a tag takes the newline behind it and the blanks before it on its line; a minus takes all white
/// space on its side, a plus none. Comments and {% raw %} are resolved here. Throws awq::Error with line and column.
std::vector<Token> lex(std::string_view source);

/// The error for `what` at a place in the template.
[[noreturn]] void template_error(Position at, std::string_view what);

}  // namespace awq::jinja
