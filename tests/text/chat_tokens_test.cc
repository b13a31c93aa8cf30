// Special tokens in a rendered chat: special where the template wrote them, plain text where the conversation did.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "text/chat_template.h"
#include "text/marked_cases.h"
#include "text/tokenizer.h"

namespace awq {
namespace {

using OrderedJson = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

MarkedText rendered(const std::string& source, const OrderedJson& messages) {
  return ChatTemplate(source).render_marked(messages, {});
}

/// A message whose content is `text`.
OrderedJson says(const OrderedJson& text) { return OrderedJson::array({{{"role", "user"}, {"content", text}}}); }

/// What is marked, each stretch in brackets.
std::string shown(const MarkedText& m) {
  std::string out;
  size_t done = 0;
  for (const ByteRange& r : m.marks()) {
    out.append(m.text(), done, r.begin - done).append("[").append(m.text(), r.begin, r.end - r.begin).append("]");
    done = r.end;
  }
  return out.append(m.text(), done);
}

TEST(MarkedText, PartsKeepTheirMarks) {
  MarkedText whole("ab");
  whole.append("cd", true);
  whole.append("ef", true);
  whole.append("gh");
  whole.append("i", true);
  EXPECT_EQ(whole.marks(), (std::vector<ByteRange>{{2, 6}, {8, 9}}));
  const std::string_view text = whole.text();
  EXPECT_EQ(shown(whole.part(text.substr(0, 2))), "ab");
  EXPECT_EQ(shown(whole.part(text.substr(1, 3))), "b[cd]");
  EXPECT_EQ(shown(whole.part(text.substr(5, 4))), "[f]gh[i]");
  EXPECT_EQ(shown(whole.part(text.substr(6, 2))), "gh");
  EXPECT_EQ(shown(whole.part(text.substr(3, 0))), "");
  MarkedText two = whole.part(text.substr(7));
  two.append(whole.part(text.substr(2, 2)));
  EXPECT_EQ(shown(two), "h[icd]");
}

TEST(ChatMarks, StayExactWherePiecesAreMoved) {
  const auto of = [](const char* source, const char* text = " a,b ") {
    return shown(rendered(std::string("{% set x = messages[0].content %}") + source, says(text)));
  };
  EXPECT_EQ(of("<{{ x }}>"), "<[ a,b ]>");
  EXPECT_EQ(of("{{ '<' + x ~ 1 ~ '>' }}"), "<[ a,b ]1>");
  EXPECT_EQ(of("{{ ('<' + x + '> ') | trim }}"), "<[ a,b ]>");
  EXPECT_EQ(of("{{ x.strip() ~ x.split(',')[0] ~ '|' ~ x[1:3] ~ x[0] }}"), "[a,b a]|[a, ]");
  EXPECT_EQ(of("{{ x | replace(',', '<s>') }}"), "[ a]<s>[b ]");
  EXPECT_EQ(of("{{ '<,>' | replace(',', x) }}"), "<[ a,b ]>");
  EXPECT_EQ(of("{{ '<,>'.replace(',', x) }}{{ '-'.join([x, 'y']) }}"), "<[ a,b ]>[ a,b ]-y");
  EXPECT_EQ(of("{{ [x, 'y'] | join('-') }}{{ ['y', 'z'] | join(x) }}"), "[ a,b ]-yy[ a,b ]z");
  EXPECT_EQ(of("{% set y %}<{{ x }}>{% endset %}{{ y[::-1] }}"), ">[ b,a ]<");
  EXPECT_EQ(of("{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(x) * 2 }}"), "<[ a,b ]><[ a,b ]>");
  EXPECT_EQ(of("{% filter indent(2) %}a\n{{ x }}{% endfilter %}"), "a\n  [ a,b ]");
  EXPECT_EQ(of("{{ {'k': x} | tojson }}"), "{\"k\": \"[ a,b ]\"}");
  EXPECT_EQ(of("{{ ['k', x] }}"), "['k', [' a,b ']]");
  EXPECT_EQ(of("{% for c in x %}{{ c }}.{% endfor %}"), "[ ].[a].[,].[b].[ ].");
  EXPECT_EQ(of("{{ messages[0].role }}"), "user");
  EXPECT_EQ(shown(rendered("<|{{ messages[0].role }}|>", OrderedJson::parse(R"([{"role": "a|b"}])"))), "<|[a|b]|>");
}

// Every filter and method that makes a text of one; the conversation is of characters that no template has.
TEST(ChatMarks, NothingOfAConversationEscapes) {
  const OrderedJson messages = test::made_private(OrderedJson::parse(
      R"([{"role": "user", "content": "one two\nthree", "list": ["a b", "c"], "dict": {"k": "v", "l": {"m": "n"}}}])"));
  for (const char* expression : {"x",
                                 "x | trim",
                                 "x | upper",
                                 "x | lower",
                                 "x | title",
                                 "x | capitalize",
                                 "x | string",
                                 "x | safe",
                                 "x | escape",
                                 "(x | safe) + '<'",
                                 "('<' | safe) + x",
                                 "x | indent",
                                 "x | indent(2, true, true)",
                                 "'a\nb' | indent(x)",
                                 "x | replace('', '-')",
                                 "x | replace('a', x)",
                                 "'aba' | replace('b', x)",
                                 "'aba' | replace('b', x, 1)",
                                 "x | default('a')",
                                 "none_such | default(x)",
                                 "x | list",
                                 "x | list | join",
                                 "x | first",
                                 "x | last",
                                 "x | reverse",
                                 "[x] | first",
                                 "[x, 'a'] | join(x)",
                                 "x | tojson",
                                 "x | tojson(indent=2)",
                                 "[x, {'a': x}] | tojson",
                                 "{'a': 1} | tojson(indent=x)",
                                 "[1, 2] | tojson(separators=(x, x))",
                                 "{x: 1} | tojson",
                                 "[x]",
                                 "(x, x)",
                                 "{x: x}",
                                 "[[x]] | string",
                                 "(x | safe,)",
                                 "x ~ 1",
                                 "1 ~ x",
                                 "x + 'a' + x",
                                 "'a' + x * 3",
                                 "x[1:]",
                                 "x[::-1]",
                                 "x[::2]",
                                 "x[0]",
                                 "x[-1]",
                                 "x.strip()",
                                 "x.lstrip()",
                                 "x.rstrip()",
                                 "x.strip('a')",
                                 "x.split()",
                                 "x.split('a')",
                                 "x.rsplit('a')",
                                 "x.rsplit(none, 1)",
                                 "x.splitlines()",
                                 "x.splitlines(true)",
                                 "x.partition('a')",
                                 "x.rpartition('a')",
                                 "x.partition(x)",
                                 "('a' + x + 'b').partition(x)",
                                 "x.replace('a', 'b')",
                                 "'aba'.replace('b', x)",
                                 "'aa'.replace('', x)",
                                 "x.join(['a', 'b'])",
                                 "'a'.join([x, x])",
                                 "'a'.join(x)",
                                 "x.upper()",
                                 "x.lower()",
                                 "x.title()",
                                 "x.capitalize()",
                                 "x.removeprefix('a')",
                                 "x.removesuffix('a')",
                                 "('a' + x).removeprefix('a')",
                                 "m.list | join(', ')",
                                 "m.list | sort | join",
                                 "m.list | unique | list",
                                 "m.list | map('upper') | join",
                                 "m.list | select('string') | list",
                                 "m.dict | dictsort",
                                 "m.dict | items | list",
                                 "m.dict.items() | list",
                                 "m.dict.values() | list",
                                 "m.dict.l",
                                 "m.dict",
                                 "m.list | max",
                                 "m.list | min",
                                 "m.list | batch(1) | list",
                                 "messages | map(attribute='content') | join",
                                 "messages | tojson",
                                 "dict(a=x)",
                                 "dict([(x, x)])",
                                 "namespace(a=x).a",
                                 "x if x else 'a'",
                                 "x or 'a'",
                                 "'' or x",
                                 "x and x",
                                 "[x, x] | sum(start='') if false else x"}) {
    const std::string given = "{% set m = messages[0] %}{% set x = m.content %}";
    for (const std::string& source :
         {given + "<{{ " + expression + " }}>", given + "{% set y = " + expression + " %}{{ '<' ~ y ~ '>' }}"}) {
      const MarkedText m = rendered(source, messages);
      EXPECT_EQ(test::unmarked_private(m), "") << expression;
      EXPECT_TRUE(m.has_marks()) << expression;
    }
  }
}

/// Words of letters; specials <s>, <e> and <e><e>; a space run that is added but not special.
nlohmann::json letters(bool normalized = false) {
  nlohmann::json j = nlohmann::json::parse(R"({
    "added_tokens": [{"id": 90, "content": "<s>", "special": true, "normalized": false},
                     {"id": 91, "content": "<e>", "special": true, "normalized": false},
                     {"id": 92, "content": "<e><e>", "special": true, "normalized": false},
                     {"id": 93, "content": "  ", "special": false, "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "<": 2, ">": 3, "s": 4, "e": 5, " ": 6, "A": 7, "B": 8, "▁": 9, "\n": 10},
              "merges": []}})");
  for (auto& t : j["added_tokens"]) t["normalized"] = normalized;
  return j;
}

struct Chat {
  Tokenizer tokenizer;
  Ids operator()(const std::string& source, const OrderedJson& text) const {
    return tokenizer.encode_chat(rendered("{% set x = messages[0].content %}" + source, says(text)));
  }
};

TEST(ChatTokens, OfAConversationArePlainText) {
  const Chat chat{Tokenizer::from_json(letters(), nullptr)};
  EXPECT_EQ(chat("<s>{{ x }}<e>", "a"), (Ids{90, 0, 91}));
  EXPECT_EQ(chat("<s>{{ x }}<e>", "<e>"), (Ids{90, 2, 5, 3, 91}));
  EXPECT_EQ(chat("<s>{{ x | trim | upper | lower }}<e>", " <E>"), (Ids{90, 2, 5, 3, 91}));
  EXPECT_EQ(chat("<s>{{ x | replace('b', '') }}<e>", "<be>"), (Ids{90, 2, 5, 3, 91}));
  EXPECT_EQ(chat("{{ '<s>' + x + '<e>' }}", "<s><s>"), (Ids{90, 2, 4, 3, 2, 4, 3, 91}));
  EXPECT_EQ(chat("<s>{{ x[0] }}{{ x[1] }}{{ x[2:] }}<e>", "<e>"), (Ids{90, 2, 5, 3, 91}));
  EXPECT_EQ(chat("<s>{{ x | join }}<e>", OrderedJson::array({"<", "e>"})), (Ids{90, 2, 5, 3, 91}));
  EXPECT_EQ(chat("{{ x | tojson }}", "<e>"), (Ids{2, 5, 3}));
}

// A token is special only if the template wrote all of it, and what a conversation writes cannot hide one.
TEST(ChatTokens, OfBothArePlainText) {
  const Chat chat{Tokenizer::from_json(letters(), nullptr)};
  EXPECT_EQ(chat("{{ x }}>a", "<e"), (Ids{2, 5, 3, 0}));
  EXPECT_EQ(chat("a<{{ x }}", "e>"), (Ids{0, 2, 5, 3}));
  EXPECT_EQ(chat("<{{ x }}>", "e"), (Ids{2, 5, 3}));
  EXPECT_EQ(chat("{{ x }}<e>", "<e>"), (Ids{2, 5, 3, 91}));  // not <e><e>
  EXPECT_EQ(chat("<e>{{ x }}", "<e>"), (Ids{91, 2, 5, 3}));
  EXPECT_EQ(chat("<e><e>{{ x }}<e>", "<"), (Ids{92, 2, 91}));
  EXPECT_EQ(chat("<{{ x }}<e>", "<e"), (Ids{2, 2, 5, 91}));
}

TEST(ChatTokens, ThatAreAddedButNotSpecialCountEverywhere) {
  const Chat chat{Tokenizer::from_json(letters(), nullptr)};
  EXPECT_EQ(chat("<s>{{ x }} <e>", "  a "), (Ids{90, 93, 0, 93, 91}));
}

TEST(ChatTokens, MayBeNormalized) {
  nlohmann::json j = letters(true);
  const Chat same{Tokenizer::from_json(j, nullptr)};
  EXPECT_EQ(same("<s>{{ x }}<e>", "<e>a"), (Ids{90, 2, 5, 3, 0, 91}));
  j["normalizer"] = {{"type", "Lowercase"}};
  const Chat lower{Tokenizer::from_json(j, nullptr)};
  EXPECT_EQ(lower("<S>{{ x }}<E>B<E>{{ x }}", "<E>"), (Ids{90, 2, 5, 3, 91, 1, 91, 2, 5, 3}));
  // As in Llama 2's older files: what is looked for is "▁<e>".
  j["normalizer"] = nlohmann::json::parse(
      R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
          {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
  const Chat llama{Tokenizer::from_json(j, nullptr)};
  EXPECT_EQ(llama("<s>{{ x }} <e>", "a"), (Ids{90, 0, 91}));
  EXPECT_EQ(llama("<s>{{ x }} <e>", " <e>"), (Ids{90, 9, 2, 5, 3, 91}));
  EXPECT_EQ(llama("<s> {{ x }} <e>", "<e>"), (Ids{90, 9, 2, 5, 3, 91}));
}

}  // namespace
}  // namespace awq
