#include "text/jinja_parser.h"

#include <gtest/gtest.h>

#include "awq/error.h"

namespace awq::jinja {
namespace {

std::string error_of(std::string_view source) {
  try {
    parse(source);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(JinjaParser, ErrorsNameThePlace) {
  EXPECT_EQ(error_of("a\n{% if x %}\n  {{ 1 + }}\n{% endif %}"),
            "[chat template] line 3, column 10: expected an expression, got }}");
  EXPECT_EQ(error_of("{% for x in y %}"),
            "[chat template] line 1, column 17: expected {% endfor %}, got the end of the template");
  EXPECT_EQ(error_of("\n\n {% frob %}"),
            "[chat template] line 3, column 5: the tag `frob` is unknown or not implemented");
  EXPECT_EQ(error_of("{{ f(*x) }}"), "[chat template] line 1, column 6: argument unpacking is not implemented");
}

TEST(JinjaParser, RefusesWhatReachesOutside) {
  for (const char* source :
       {"{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% extends 'x' %}",
        "{% block b %}{% endblock %}", "{% autoescape true %}{% endautoescape %}",
        "{% for x in y recursive %}{% endfor %}", "{% for x in y %}{% set z %}{% break %}{% endset %}{% endfor %}"})
    EXPECT_THROW(parse(source), Error) << source;
}

TEST(JinjaParser, DepthIsLimited) {
  const auto repeat = [](const char* s, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  EXPECT_NO_THROW(parse("{{ " + repeat("(", 60) + "1" + repeat(")", 60) + " }}"));
  EXPECT_THROW(parse("{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}"), Error);
  EXPECT_THROW(parse("{{ " + repeat("not ", 100000) + "1 }}"), Error);
  EXPECT_THROW(parse("{{ " + repeat("- ", 100000) + "1 }}"), Error);
  EXPECT_THROW(parse("{{ 1" + repeat(" + 1", 100000) + " }}"), Error);
  EXPECT_THROW(parse("{{ x" + repeat(".x", 100000) + " }}"), Error);
  EXPECT_THROW(parse("{{ x" + repeat("|f", 100000) + " }}"), Error);
  EXPECT_THROW(parse("{{ x" + repeat(" if x else x", 100000) + " }}"), Error);
  EXPECT_THROW(parse("{{ x" + repeat(" is x", 1000) + " }}"), Error);
  EXPECT_THROW(parse(repeat("{% if x %}", 100000)), Error);
  EXPECT_THROW(parse("{% set " + repeat("(", 100000)), Error);
  EXPECT_NO_THROW(parse("{{ 1" + repeat(" ~ 1", 10000) + " }}"));  // one node
  EXPECT_NO_THROW(parse("{% if x %}" + repeat("{% elif x %}", 10000) + "{% endif %}"));
}

}  // namespace
}  // namespace awq::jinja
