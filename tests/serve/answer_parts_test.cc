#include "serve/answer_parts.h"

#include <gtest/gtest.h>

namespace awq {
namespace {

struct Whole {
  std::string reasoning, content;
  std::vector<ToolCall> calls;
  bool operator==(const Whole&) const = default;
};

/// In pieces of so many bytes.
Whole taken_apart(std::string_view text, size_t step, bool thinks, bool thinking, bool tools) {
  AnswerParts parts(thinks, thinking, tools);
  Whole w;
  const auto add = [&](const AnswerParts::Piece& p) { w.reasoning += p.reasoning, w.content += p.content; };
  for (size_t at = 0; at < text.size(); at += step) add(parts.push(text.substr(at, step)));
  add(parts.finish());
  w.calls = parts.calls();
  return w;
}

void expect(std::string_view text, const Whole& want, bool thinks, bool thinking, bool tools) {
  for (size_t step : {size_t(1), size_t(3), text.size()})
    EXPECT_EQ(taken_apart(text, step, thinks, thinking, tools), want) << text << " by " << step;
}

TEST(AnswerParts, WhatWasThoughtStandsApart) {
  expect("<think>\nhm < 3</think>\n\nYes.", {"\nhm < 3", "\n\nYes.", {}}, true, false, false);
  expect("hm</think>Yes.", {"hm", "Yes.", {}}, true, true, false);
  expect("hm", {"hm", "", {}}, true, true, false);  // cut off
  expect("<thin ice", {"", "<thin ice", {}}, true, false, false);
  expect("<think>hm</think>Yes.", {"", "<think>hm</think>Yes.", {}}, false, false, false);  // the model does not
  expect("Is <think> a tag?", {"", "Is <think> a tag?", {}}, true, false, false);
}

TEST(AnswerParts, CallsOfTools) {
  const ToolCall a{"f", R"({"x":1})"}, b{"g", R"({"y":[2]})"};
  expect(R"(<tool_call>
{"name": "f", "arguments": {"x": 1}}
</tool_call>
<tool_call>
{"name": "g", "arguments": {"y": [2]}}
</tool_call>)",
         {"", "", {a, b}}, false, false, true);
  expect(R"(Let me see. <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>)", {"", "Let me see. ", {a}}, false,
         false, true);
  expect(R"([TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {"y": [2]}}])",
         {"", "", {a, b}}, false, false, true);
  expect(R"(<|python_tag|>{"name": "f", "parameters": {"x": 1}})", {"", "", {a}}, false, false, true);
  expect(R"({"name": "f", "parameters": {"x": 1}})", {"", "", {a}}, false, false, true);
  expect(R"({"type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}})", {"", "", {a}}, false, false,
         true);
  expect(R"(<think>a call</think>{"name": "f", "arguments": {"x": 1}})",
         {"a call", R"({"name": "f", "arguments": {"x": 1}})", {}}, true, false, true);
}

TEST(AnswerParts, WhatIsNoCallIsSaid) {
  for (const char* text :
       {"{\"x\": 1}", "<tool_call>{\"name\": 3}</tool_call>", "<tool_call>{\"name\": \"f\"", "[TOOL_CALLS][]", "{", "<",
        "a <tool", "<tool_call>", "{\"name\": \"f\", \"arguments\": {}} and more"})
    expect(text, {"", text, {}}, false, false, true);
  expect("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
         {"", "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", {}}, false, false, false);
}

}  // namespace
}  // namespace awq
