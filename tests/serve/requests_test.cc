#include "serve/requests.h"

#include <gtest/gtest.h>

#include "serve/messages.h"
#include "serve/text_model.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

const char* const kTools = R"("messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9,
  "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}])";

class RequestsTest : public testing::Test {
 protected:
  explicit RequestsTest(std::string_view chat_template = test::TextModel::kTemplate)
      : text_(test::TextModel(chat_template)) {}

  Json parsed(const std::string& fields) { return parsed_body("{" + fields + "}"); }
  AnswerCall chat(const std::string& fields) { return chat_call(parsed(fields), api_); }
  AnswerCall completion(const std::string& fields) { return completion_call(parsed(fields), api_); }
  std::string prompt(const AnswerCall& call) { return text_.tokenizer().decode(call.prompts.front()); }
  /// Which field is refused.
  template <class F>
  static std::string refused(F call) {
    try {
      call();
    } catch (const ApiError& e) {
      EXPECT_EQ(e.status, 400);
      return e.param;
    }
    return "nothing";
  }
  /// A whole reply to an answer of this text, a token each byte.
  Json reply(const AnswerCall& call, std::string_view answer, ServeEnd end = ServeEnd::stop) {
    Choice choice(call, api_, 0, 0);
    for (char c : answer)
      if (!choice.token({.token = uint8_t(c)})) break;
    choice.end(end);
    return choice.whole();
  }

  TextSide text_;
  ApiModel api_{"m", text_, {}, 4096};
};

class MistralRequestsTest : public RequestsTest {
 protected:
  MistralRequestsTest() : RequestsTest("{{ messages[0].content }}[TOOL_CALLS]{{ tools }}") {}
};
class PlainRequestsTest : public RequestsTest {
 protected:
  PlainRequestsTest() : RequestsTest("{{ messages[0].content }}{{ tools }}") {}
};

TEST_F(RequestsTest, ARequiredCallBeginsInThePrompt) {
  const std::string named = R"(, "tool_choice": {"type": "function", "function": {"name": "g"}})";
  const AnswerCall call = chat(kTools + named);
  EXPECT_TRUE(prompt(call).ends_with("<|assistant|><tool_call>\n{\"name\": \"g\", \"arguments\":"));
  const Json r = reply(call, R"( {"x": 1}}, and this is too much)");
  EXPECT_EQ(r["message"]["tool_calls"][0]["function"], Json({{"name", "g"}, {"arguments", R"({"x":1})"}}));
  EXPECT_EQ(r["message"]["content"], nullptr);
  EXPECT_EQ(r["finish_reason"], "stop");
  // What is cut off is a call all the same.
  const Json cut = reply(call, R"( {"x": )", ServeEnd::length);
  EXPECT_EQ(cut["message"]["tool_calls"][0]["function"], Json({{"name", "g"}, {"arguments", R"( {"x": )"}}));
  EXPECT_EQ(cut["finish_reason"], "length");
}

TEST_F(RequestsTest, AnyToolOrNone) {
  const AnswerCall any = chat(std::string(kTools) + R"(, "tool_choice": "required")");
  EXPECT_TRUE(prompt(any).ends_with("<tool_call>\n{\"name\": \""));
  const Json r = reply(any, R"(f", "arguments": {}})");
  EXPECT_EQ(r["message"]["tool_calls"][0]["function"]["name"], "f");
  EXPECT_EQ(r["finish_reason"], "tool_calls");
  const AnswerCall none = chat(std::string(kTools) + R"(, "tool_choice": "none")");
  EXPECT_FALSE(none.tools);
  EXPECT_TRUE(prompt(none).ends_with("Hi<|assistant|>"));
  const AnswerCall offered = chat(kTools);
  EXPECT_TRUE(prompt(offered).ends_with("}]<|assistant|>"));
  const std::string two =
      R"(<tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>{"name": "g", "arguments": {}}</tool_call>)";
  EXPECT_EQ(reply(offered, two)["message"]["tool_calls"].size(), 2u);
  const AnswerCall one = chat(std::string(kTools) + R"(, "parallel_tool_calls": false)");
  EXPECT_EQ(reply(one, two)["message"]["tool_calls"].size(), 1u);
}

TEST_F(RequestsTest, ACallIsNotAThought) {
  const std::string thinks = R"(, "chat_template_kwargs": {"enable_thinking": true})";
  EXPECT_TRUE(chat(kTools + thinks).thinking);
  const AnswerCall call = chat(kTools + thinks + R"(, "tool_choice": "required")");
  EXPECT_FALSE(call.thinking);
  EXPECT_TRUE(prompt(call).ends_with("<think>\n</think>\n\n<tool_call>\n{\"name\": \""));
}

TEST_F(MistralRequestsTest, ARequiredCallBeginsAsTheModelDoes) {
  const AnswerCall call = chat(std::string(kTools) + R"(, "tool_choice": {"function": {"name": "g"}})");
  EXPECT_TRUE(prompt(call).ends_with("[TOOL_CALLS] [{\"name\": \"g\", \"arguments\":"));
  EXPECT_EQ(reply(call, R"({"x": 1}}])")["message"]["tool_calls"][0]["function"]["name"], "g");
}
TEST_F(PlainRequestsTest, ARequiredCallBeginsAsTheModelDoes) {
  const AnswerCall call = chat(std::string(kTools) + R"(, "tool_choice": {"function": {"name": "g"}})");
  EXPECT_TRUE(prompt(call).ends_with("{\"name\": \"g\", \"parameters\":"));
  EXPECT_EQ(reply(call, R"({"x": 1}})")["message"]["tool_calls"][0]["function"]["name"], "g");
}

TEST_F(RequestsTest, WhatChoosesNoToolIsRefused) {
  for (const char* choice : {R"("sometimes")", "3", "{}", R"({"function": {"name": "h"}})", R"({"function": 1})"})
    EXPECT_TRUE(
        refused([&] { chat(std::string(kTools) + R"(, "tool_choice": )" + choice); }).starts_with("tool_choice"))
        << choice;
  const char* plain = R"("messages": [{"role": "user", "content": "Hi"}], "tool_choice": "required")";
  EXPECT_EQ(refused([&] { chat(plain); }), "tool_choice");
}

TEST_F(RequestsTest, ArgumentsOfACallAreAnObjectForTheTemplate) {
  const char* said =
      R"("messages": [{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": "%"}}]}])";
  const auto with = [&](std::string arguments) {
    return std::string(said).replace(std::string(said).find('%'), 1, arguments);
  };
  EXPECT_NE(prompt(chat(with(R"({\"x\": 1})"))).find(R"(<tool_call>{"x": 1}</tool_call>)"), std::string::npos);
  EXPECT_EQ(prompt(chat(with("{}"))).find("None"), std::string::npos);
  EXPECT_NE(prompt(chat(with(R"({\"x\")"))).find(R"(<tool_call>"{\"x\""</tool_call>)"), std::string::npos);
}

TEST_F(RequestsTest, AnAnswerGoesOn) {
  const char* said = R"("messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}])";
  const AnswerCall call = chat(said + std::string(R"(, "continue_final_message": true)"));
  EXPECT_TRUE(prompt(call).ends_with("Hi<|assistant|>Well"));
  const char* user = R"("messages": [{"role": "user", "content": "Hi"}], "continue_final_message": true)";
  EXPECT_EQ(refused([&] { chat(user); }), "continue_final_message");
}

TEST_F(RequestsTest, WhatWouldBeIgnoredInSilenceIsRefused) {
  EXPECT_EQ(refused([&] { completion(R"("prompt": "x", "response_format": {"type": "json_object"})"); }),
            "response_format");
  EXPECT_EQ(refused([&] { completion(R"("prompt": "x", "suffix": "y")"); }), "suffix");
  EXPECT_NO_THROW(completion(R"("prompt": "x", "response_format": {"type": "text"}, "suffix": null)"));
}

TEST_F(RequestsTest, AReplyOfLogprobsHasABound) {
  EXPECT_EQ(refused([&] { completion(R"("prompt": "x", "n": 100, "max_tokens": 4000, "logprobs": 20)"); }), "logprobs");
  EXPECT_NO_THROW(completion(R"("prompt": "x", "n": 100, "max_tokens": 4000, "logprobs": 20, "stream": true)"));
  EXPECT_NO_THROW(completion(R"("prompt": "x", "n": 100, "max_tokens": 4000)"));
}

TEST_F(RequestsTest, ABodyHasABoundOfLevels) {
  const auto nested = [](int n) { return std::string(size_t(n), '[') + std::string(size_t(n), ']'); };
  EXPECT_NO_THROW(parsed_body(nested(100)));
  EXPECT_THROW(parsed_body(nested(200)), ApiError);
  EXPECT_THROW(parsed_body(std::string(1 << 20, '[')), ApiError);
  EXPECT_THROW(parsed_body("{\"a\": 1"), ApiError);
}

TEST_F(RequestsTest, StopTokensCountEvenWhereTheModelsOwnDoNot) {
  const AnswerCall call = completion(R"("prompt": "x", "ignore_eos": true, "stop_token_ids": [7, 9])");
  EXPECT_EQ(call.request.ends, (std::set<int32_t>{7, 9}));
  EXPECT_EQ(refused([&] { completion(R"("prompt": "x", "stop_token_ids": [10000])"); }), "stop_token_ids");
}

TEST_F(RequestsTest, StopStringsCountFromTheLeastLengthOn) {
  EXPECT_EQ(reply(completion(R"("prompt": "x", "stop": ["ab", "cd"])"), "xxabyycd")["text"], "xx");
  EXPECT_EQ(reply(completion(R"("prompt": "x", "stop": ["ab", "cd"], "min_tokens": 4)"), "xxabyycd")["text"], "xxabyy");
  EXPECT_EQ(reply(completion(R"("prompt": "x", "stop": ["ab"], "min_tokens": 3)"), "xxabyycd")["text"], "xxabyycd");
}

TEST_F(RequestsTest, OffsetsCountCharacters) {
  AnswerCall call = completion(R"("prompt": "é", "echo": true, "logprobs": 0, "stream": true)");
  call.prompts = {{'a', 'b'}}, call.prompt_texts = {"ab"};
  Choice choice(call, api_, 0, 0);
  choice.prompt_token({.token = 'b', .logprob = -1});
  choice.token({.token = 'c'});
  EXPECT_EQ(choice.chunk(choice.take(), true)["logprobs"]["text_offset"], Json({0, 1, 2}));
  choice.token({.token = 'd'});
  EXPECT_EQ(choice.chunk(choice.take(), false)["logprobs"]["text_offset"], Json({3}));
}

// ----------------------------------------------------------------------------------------------------------------------
// Anthropic's face

class MessagesTest : public RequestsTest {
 protected:
  Json body(const std::string& fields) { return chat_body(parsed(fields)); }
  AnswerCall call(const std::string& fields) {
    AnswerCall c = chat_call(body(fields), api_);
    c.messages = true;
    return c;
  }
  Json whole(const AnswerCall& call, std::string_view answer, ServeEnd end = ServeEnd::stop) {
    Choice choice(call, api_, 0, 0);
    for (char c : answer)
      if (!choice.token({.token = uint8_t(c)})) break;
    choice.end(end);
    const Choice* given = &choice;
    Json j = messages_form(api_)->whole({&given, 1}, {3, 4});
    j.erase("id");
    return j;
  }
  /// "event" or "event: delta" of each event.
  std::vector<std::string> streamed(const AnswerCall& call, std::string_view answer) {
    Choice choice(call, api_, 0, 0);
    const auto form = messages_form(api_);
    std::string all = form->begin({3, 0});
    for (char c : answer) {
      choice.token({.token = uint8_t(c)});
      all += form->part(choice, choice.take(), {3, 1});
    }
    choice.end(ServeEnd::stop);
    all += form->part(choice, choice.take(), {3, 4}) + form->end({3, 4});
    std::vector<std::string> events;
    for (size_t at = 0; at < all.size();) {
      const size_t line = all.find('\n', at), end = all.find("\n\n", at);
      const std::string kind = all.substr(at + 7, line - at - 7);
      const Json j = Json::parse(all.substr(line + 7, end - line - 7));
      EXPECT_EQ(j["type"], kind);
      add(events, kind, j);
      at = end + 2;
    }
    return events;
  }
  /// Deltas of one block are one.
  static void add(std::vector<std::string>& events, const std::string& kind, const Json& j) {
    std::string text = kind;
    if (kind == "content_block_start") text += " " + j["content_block"]["type"].get<std::string>();
    if (kind == "message_delta") text += " " + j["delta"]["stop_reason"].get<std::string>();
    if (kind == "content_block_delta") {
      const Json& d = j["delta"];
      const std::string more = d.contains("text")       ? d["text"]
                               : d.contains("thinking") ? d["thinking"]
                                                        : d["partial_json"];
      if (!events.empty() && events.back().starts_with(kind)) return void(events.back() += more);
      text += " " + more;
    }
    events.push_back(text);
  }
};

TEST_F(MessagesTest, ABodyIsAChats) {
  const Json chat =
      body(R"("max_tokens": 5, "system": [{"type": "text", "text": "Be"}], "stop_sequences": ["x"], "top_k": 3,
    "messages": [{"role": "user", "content": "Hi"},
                 {"role": "assistant", "content": [{"type": "text", "text": "I see"}, {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]},
                 {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "3"}]}, {"type": "text", "text": "go"}]}],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"})");
  const Json want = Json::parse(R"({"max_tokens": 5, "top_k": 3, "messages": [
    {"role": "system", "content": "Be"}, {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "I see", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
    {"role": "tool", "tool_call_id": "a", "content": "3"}, {"role": "user", "content": "go"}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
    "stop": ["x"], "tool_choice": "required", "parallel_tool_calls": true})");
  EXPECT_EQ(nlohmann::json(chat), nlohmann::json(want)) << chat.dump(1);
  const char* prefilled =
      R"("messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}])";
  EXPECT_TRUE(prompt(call(prefilled)).ends_with("Hi<|assistant|>Well"));
}

TEST_F(MessagesTest, WhatIsNotTextIsRefused) {
  for (const char* fields : {R"("messages": [])", R"("messages": [{"role": "system", "content": "x"}])",
                             R"("messages": [{"role": "user", "content": [{"type": "image"}]}])",
                             R"("messages": [{"role": "user", "content": [{"type": "tool_use"}]}])",
                             R"("messages": [{"role": "user", "content": 3}])"})
    EXPECT_TRUE(refused([&] { body(fields); }).starts_with("messages")) << fields;
  const std::string hi = R"("messages": [{"role": "user", "content": "Hi"}], )";
  EXPECT_EQ(refused([&] { body(hi + R"("tools": [{"type": "web_search_20250305", "name": "w"}])"); }), "tools.type");
  EXPECT_EQ(refused([&] { body(hi + R"("tool_choice": {"type": "maybe"})"); }), "tool_choice.type");
}

TEST_F(MessagesTest, Replies) {
  const std::string hi = R"("messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9)";
  EXPECT_EQ(whole(call(hi), "Yes"),
            Json::parse(
                R"({"type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Yes"}],
    "stop_reason": "end_turn", "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 4}})"));
  EXPECT_EQ(whole(call(hi), "Yes", ServeEnd::length)["stop_reason"], "max_tokens");
  const Json stopped = whole(call(hi + R"(, "stop_sequences": ["q", "s"])"), "Yes");
  EXPECT_EQ(stopped["stop_reason"], "stop_sequence");
  EXPECT_EQ(stopped["stop_sequence"], "s");
  EXPECT_EQ(stopped["content"][0]["text"], "Ye");
  const AnswerCall tools = call(hi + R"(, "tools": [{"name": "f", "input_schema": {}}])");
  const Json used = whole(tools, R"(<think>hm</think>So <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>)");
  EXPECT_EQ(used["stop_reason"], "tool_use");
  EXPECT_EQ(used["content"].size(), 3u);
  EXPECT_EQ(used["content"][0]["thinking"], "hm");
  EXPECT_EQ(used["content"][2]["input"], Json::parse(R"({"x": 1})"));
}

TEST_F(MessagesTest, Streams) {
  const std::string hi =
      R"("messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "stream": true, "tools": [{"name": "f"}])";
  EXPECT_EQ(
      streamed(call(hi), R"(<think>hm</think>So <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>)"),
      (std::vector<std::string>{"message_start", "content_block_start thinking", "content_block_delta hm",
                                "content_block_stop", "content_block_start text", "content_block_delta So ",
                                "content_block_stop", "content_block_start tool_use", R"(content_block_delta {"x":1})",
                                "content_block_stop", "message_delta tool_use", "message_stop"}));
  EXPECT_EQ(streamed(call(hi), ""),
            (std::vector<std::string>{"message_start", "message_delta end_turn", "message_stop"}));
}

TEST_F(MessagesTest, Errors) {
  EXPECT_EQ(messages_error(ApiError(401, "no")),
            Json::parse(R"({"type": "error", "error": {"type": "authentication_error", "message": "no"}})"));
  EXPECT_EQ(messages_error(ApiError(503, "no"))["error"]["type"], "overloaded_error");
  EXPECT_EQ(messages_error(ApiError(400, "no"))["error"]["type"], "invalid_request_error");
}

}  // namespace
}  // namespace awq
