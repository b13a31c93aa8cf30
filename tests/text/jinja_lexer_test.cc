#include "text/jinja_lexer.h"

#include <gtest/gtest.h>

#include "awq/error.h"

namespace awq::jinja {
namespace {

std::string joined(std::string_view source) {
  std::string out;
  for (const Token& t : lex(source)) {
    switch (t.kind) {
      case Token::Kind::data:
        out += "[" + t.value + "]";
        break;
      case Token::Kind::output_begin:
        out += "{{ ";
        break;
      case Token::Kind::output_end:
        out += "}}";
        break;
      case Token::Kind::tag_begin:
        out += "{% ";
        break;
      case Token::Kind::tag_end:
        out += "%}";
        break;
      case Token::Kind::text:
        out += "'" + t.value + "' ";
        break;
      case Token::Kind::end:
        break;
      default:
        out += t.value + " ";
    }
  }
  return out;
}

TEST(JinjaLexer, Tokens) {
  EXPECT_EQ(joined("a{{ x.y[1:-2]|f(b=1.5e3) // 7 }}b"), "[a]{{ x . y [ 1 : - 2 ] | f ( b = 1.5e3 ) // 7 }}[b]");
  EXPECT_EQ(joined("{{ 'a\\n\\x41\\u00e9' ~ \"it's\" }}"), "{{ 'a\nA\u00e9' ~ 'it's' }}");
  EXPECT_EQ(joined("{{ {'a': {}} }}"), "{{ { 'a' : { } } }}");
  EXPECT_EQ(joined("{% if a==b%}x{%endif%}"), "{% if a == b %}[x]{% endif %}");
}

TEST(JinjaLexer, WhiteSpace) {
  EXPECT_EQ(joined("a\n  {% x %}\nb"), "[a\n]{% x %}[b]");
  EXPECT_EQ(joined("a\n  {{ x }}\nb"), "[a\n  ]{{ x }}[\nb]");
  EXPECT_EQ(joined("a \n {%- x -%} \n b"), "[a]{% x %}[b]");
  EXPECT_EQ(joined("a\n {%+ x +%}\nb"), "[a\n ]{% x %}[\nb]");
  EXPECT_EQ(joined("a {% x %}b"), "[a ]{% x %}[b]");
  EXPECT_EQ(joined("a\r\n{# c #}\r\nb\n"), "[a\n][b]");
}

TEST(JinjaLexer, Places) {
  const auto tokens = lex("é\n\n  {{ 'x\n' + yé }}");
  const Token& name = tokens[tokens.size() - 3];
  EXPECT_EQ(name.value, "yé");
  EXPECT_EQ(name.at.line, 4);
  EXPECT_EQ(name.at.column, 5);
}

TEST(JinjaLexer, Errors) {
  for (const char* source : {"{{", "{% x", "{# x", "{{ 'x }}", "{{ ) }}", "{{ (] }}", "{{ ? }}", "{{ '\\x4' }}",
                             "{{ '\\ud800' }}", "{{ 0x10 }}", "{% raw %}", "\xFF"})
    EXPECT_THROW(lex(source), Error) << source;
  EXPECT_THROW(lex(std::string(5000000, 'x')), Error);
}

}  // namespace
}  // namespace awq::jinja
