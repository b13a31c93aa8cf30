#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "awq/error.h"
#include "text/text_cases.h"

namespace awq {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string render(const std::string& source, const OrderedJson& messages = OrderedJson::array(),
                   const ChatTemplate::Options& options = {}) {
  return ChatTemplate(source).render(messages, options);
}

std::string error_of(const std::string& source, const ChatTemplate::Options& options = {}) {
  try {
    render(source, OrderedJson::array(), options);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

// The project's own templates, one or more a feature, against Jinja2 (tools/make_template_vectors.py).
TEST(ChatTemplate, SnippetsEqualJinja) {
  std::ifstream in(AWQ_TEST_DIR "/text/golden/templates.json");
  const OrderedJson golden = OrderedJson::parse(in);
  ASSERT_GT(golden.at("cases").size(), 800u);
  for (const OrderedJson& c : golden.at("cases")) {
    const std::string source = c.at("source");
    EXPECT_EQ(test::template_difference(source, golden.at("variables"), c), "") << source;
  }
}

TEST(ChatTemplate, Conversation) {
  const char* source =
      "{{ bos_token }}{% for m in messages %}\n"
      "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}\n"
      "<|{{ m['role'] }}|>{{ m.content | trim }}{{ eos_token }}\n"
      "{% endfor %}\n"
      "{% if add_generation_prompt %}<|assistant|>{% endif %}";
  ChatTemplate::Options options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.add_generation_prompt = true;
  const OrderedJson messages = OrderedJson::parse(
      R"([{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yo"}, {"role": "user", "content": "é"}])");
  EXPECT_EQ(render(source, messages, options), "<s><|user|>Hi</s>\n<|assistant|>Yo</s>\n<|user|>é</s>\n<|assistant|>");
  const OrderedJson wrong = OrderedJson::parse(R"([{"role": "assistant", "content": "x"}])");
  try {
    render(source, wrong, options);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "[chat template] line 2, column 72: the template refuses this conversation: Roles must alternate");
  }
}

TEST(ChatTemplate, ErrorsNameThePlaceThatRan) {
  EXPECT_EQ(error_of("{% macro m(x) %}\n  {{ x.y.z }}\n{% endmacro %}\n{{ m({}) }}"),
            "[chat template] line 2, column 9: a value of type dict has no attribute `y`");
  EXPECT_EQ(error_of("ok\n {{ 1 + 'a' }}"), "[chat template] line 2, column 7: `+` does not work on int and str");
  EXPECT_EQ(error_of("{{ x | nosuch }}"),
            "[chat template] line 1, column 8: the filter `nosuch` is unknown or not implemented");
  EXPECT_EQ(error_of("{{ nosuch.x }}"), "[chat template] line 1, column 10: `nosuch` is undefined");
}

// Jinja has these; the interpreter does not and says so.
TEST(ChatTemplate, KnownGapsAreErrors) {
  for (const char* source :
       {"{{ '%s' % 1 }}", "{{ 'a'.format(1) }}", "{{ lipsum() }}", "{{ cycler }}", "{{ joiner }}", "{{ self }}",
        "{{ (5).real }}", "{{ range(3) }}", "{{ [1] | map('string') }}", "{{ 'a'.upper }}",
        "{% for x in [1] %}{{ loop.cycle(1) }}{% endfor %}", "{{ strftime_now('%Q') }}", "{{ 'a' | center }}",
        "{{ 'a'.zfill(3) }}", "{{ 9223372036854775807 + 1 }}", "{{ 2 ** 64 }}", "{{ namespace(a=1) }}"})
    EXPECT_NE(error_of(source), "") << source;
}

TEST(ChatTemplate, WorkIsLimited) {
  ChatTemplate::Options small;
  small.max_work = 1000000;
  for (const char* source :
       {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "{{ 'x' * 100000000000 }}",
        "{{ [0] * 100000000000 }}", "{{ 'ab' * 9223372036854775807 }}",
        "{% set ns = namespace(x='aa') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(100) %}{% set ns.x = ns.x | replace('a', 'aa') %}{% endfor "
        "%}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set s = 'x' * 10000 %}{% for i in range(10000) %}{% if s.split('y') %}{% endif %}{% endfor %}",
        "{% set s = 'x' * 10000 %}{% for i in range(10000) %}{{ s[5] }}{% endfor %}",
        "{% for i in range(1000) %}{{ ('x' * 1000) | indent }}{% endfor %}"})
    EXPECT_NE(error_of(source, small).find("too much work"), std::string::npos) << source << error_of(source, small);
  ChatTemplate::Options narrow;
  narrow.max_output = 100;
  EXPECT_NE(error_of("{{ 'x' * 101 }}", narrow).find("exceeds 100 bytes"), std::string::npos);
  EXPECT_EQ(render("{{ 'x' * 100 }}", OrderedJson::array(), narrow).size(), 100u);
}

TEST(ChatTemplate, RecursionAndNestingAreLimited) {
  EXPECT_NE(error_of("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}").find("recurses too deeply"),
            std::string::npos);
  EXPECT_NE(error_of("{% macro f(x) %}{% for i in [1] %}{% if 1 %}{% call f(x) %}{% endcall %}{% endif %}{% endfor "
                     "%}{{ caller() }}{% endmacro %}{{ f(1) }}")
                .find("recurses"),
            std::string::npos);
  EXPECT_NE(error_of("{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}")
                .find("nest more than"),
            std::string::npos);
  OrderedJson deep = OrderedJson::array();
  for (int i = 0; i < 200; ++i) deep = OrderedJson::array({deep});
  EXPECT_THROW(render("x", deep), Error);
}

TEST(ChatTemplate, NamespacesMayHoldEachOther) {
  EXPECT_EQ(render("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{% macro m() %}{% endmacro "
                   "%}{% set a.m = m %}{{ a.b.a.b is defined }}"),
            "True");
}

TEST(ChatTemplate, ValuesComeFromTheCallerOnly) {
  ChatTemplate::Options o;
  o.extra = OrderedJson::parse(R"({"flag": true, "n": 1.5, "deep": {"x": [null, -3]}})");
  EXPECT_EQ(render("{{ flag }} {{ n }} {{ deep.x }} {{ tools }} {{ bos_token is defined }}", OrderedJson::array(), o),
            "True 1.5 [None, -3] None False");
  o.extra = OrderedJson::parse("[1]");
  EXPECT_THROW(render("x", OrderedJson::array(), o), Error);
  o.extra = OrderedJson::parse(R"({"big": 18446744073709551615})");
  EXPECT_THROW(render("x", OrderedJson::array(), o), Error);
  EXPECT_EQ(render("{{ messages[0] }}", OrderedJson::array({std::string("a\xFF")})), "a\xEF\xBF\xBD");
}

TEST(ChatTemplate, ThreadsShareATemplate) {
  const ChatTemplate t(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m %}{% endfor %}{{ ns.n }}");
  const auto check = [&](int n) {
    OrderedJson numbers = OrderedJson::array();
    for (int i = 0; i < n; ++i) numbers.push_back(i);
    for (int i = 0; i < 50; ++i) ASSERT_EQ(t.render(numbers, {}), std::to_string(n * (n - 1) / 2));
  };
  std::thread other(check, 100);
  check(57);
  other.join();
}

}  // namespace
}  // namespace awq
