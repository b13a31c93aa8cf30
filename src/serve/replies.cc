#include "serve/replies.h"

#include <algorithm>
#include <ctime>
#include <random>
#include <set>

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

Json bytes_of(const std::string& s) {
  Json bytes = Json::array();
  for (char c : s) bytes.push_back(int(uint8_t(c)));
  return bytes;
}

/// Characters, as OpenAI counts offsets.
size_t characters(std::string_view s) {
  return size_t(std::ranges::count_if(s, [](char c) { return (uint8_t(c) & 0xC0) != 0x80; }));
}

}  // namespace

Choice::Choice(const AnswerCall& call, const ApiModel& model, size_t prompt, int index)
    : call_(call),
      model_(model),
      prompt_(prompt),
      index_(index),
      text_(model.text.tokenizer(), call.stop),
      parts_(call.chat && model.text.thinks(), call.thinking, call.tools) {
  if (call.echo) {
    add(call.prompt_texts[prompt]);
    for (int32_t t : call.prompts[prompt]) next_offset_ += characters(spelled(t));
  }
  if (!call.call_begin.empty()) parts_.begin_call(call.call_begin, call.call_name);
}

bool Choice::token(const ServedToken& t) {
  ++generated_;
  sum_logprob_ += double(t.logprob);
  if (call_.logprobs) tokens_.push_back(t), delta_.tokens.push_back(t);
  const std::string text = text_.push(t.token, generated_ > call_.request.min_tokens);
  add(text);
  const bool called = !call_.call_begin.empty() && text.find_first_of("}]") != std::string::npos && parts_.called();
  return !text_.stopped() && !called;
}

void Choice::add(const std::string& text) {
  call_.chat ? add(parts_.push(text)) : add(AnswerParts::Piece{.reasoning = "", .content = text});
}
void Choice::add(const AnswerParts::Piece& piece) {
  said_ += piece.content, delta_.text += piece.content;
  thought_ += piece.reasoning, delta_.reasoning += piece.reasoning;
}

// OpenAI ends a call of the tool that was named with "stop".
void Choice::end(ServeEnd how) {
  add(text_.flush());
  if (call_.chat) add(parts_.finish());
  calls_ = parts_.calls();
  if (call_.one_call && calls_.size() > 1) calls_.resize(1);
  finish_ = how == ServeEnd::length ? "length" : calls_.empty() || !call_.call_name.empty() ? "stop" : "tool_calls";
}

Choice::Delta Choice::take() {
  offset_ = next_offset_;
  for (const ServedToken& t : delta_.tokens) next_offset_ += characters(spelled(t.token));
  return std::exchange(delta_, {});
}

std::string Choice::spelled(int32_t token) const { return model_.text.tokenizer().decode({&token, 1}); }

// The first of a prompt's tokens has nothing to follow from.
std::vector<ServedToken> Choice::with_prompt(std::span<const ServedToken> answer) const {
  std::vector<ServedToken> all{{.token = call_.prompts[prompt_].front()}};
  all.insert(all.end(), prompt_tokens_.begin(), prompt_tokens_.end());
  all.insert(all.end(), answer.begin(), answer.end());
  return all;
}

Json Choice::whole() const {
  if (!call_.chat) {
    Json logprobs;
    if (call_.logprobs)
      logprobs =
          call_.echo ? completion_logprobs(with_prompt(tokens_), 0, true) : completion_logprobs(tokens_, 0, false);
    return {{"index", index_}, {"text", said_}, {"logprobs", logprobs}, {"finish_reason", finish_json()}};
  }
  Json message = {{"role", "assistant"}, {"content", said_}};
  if (!thought_.empty()) message["reasoning_content"] = thought_;
  if (!calls_.empty()) {
    message["tool_calls"] = calls_json(false);
    if (said_.empty()) message["content"] = nullptr;
  }
  return {{"index", index_},
          {"message", message},
          {"logprobs", call_.logprobs ? chat_logprobs(tokens_) : Json()},
          {"finish_reason", finish_json()}};
}

Json Choice::chunk(const Delta& d, bool first) const {
  if (!call_.chat) {
    Json logprobs;
    if (call_.logprobs)
      logprobs = call_.echo && first ? completion_logprobs(with_prompt(d.tokens), 0, true)
                                     : completion_logprobs(d.tokens, offset_, false);
    return {{"index", index_}, {"text", d.text}, {"logprobs", logprobs}, {"finish_reason", finish_json()}};
  }
  Json delta = Json::object();
  if (first) delta["role"] = "assistant";
  if (first || !d.text.empty()) delta["content"] = d.text;
  if (!d.reasoning.empty()) delta["reasoning_content"] = d.reasoning;
  if (ended() && !calls_.empty()) delta["tool_calls"] = calls_json(true);
  return {{"index", index_},
          {"delta", delta},
          {"logprobs", call_.logprobs ? chat_logprobs(d.tokens) : Json()},
          {"finish_reason", finish_json()}};
}

Json Choice::completion_logprobs(std::span<const ServedToken> tokens, size_t offset, bool prompt) const {
  Json texts = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const ServedToken& t = tokens[i];
    texts.push_back(spelled(t.token));
    offsets.push_back(offset);
    offset += characters(texts.back().get_ref<const std::string&>());
    if (prompt && i == 0) {
      values.push_back(nullptr), tops.push_back(nullptr);
      continue;
    }
    values.push_back(t.logprob);
    Json top = Json::object();
    for (const auto& [token, logprob] : t.top) top.emplace(spelled(token), logprob);
    top.emplace(spelled(t.token), t.logprob);
    tops.push_back(call_.request.top_logprobs > 0 ? top : Json());
  }
  return {{"tokens", texts}, {"token_logprobs", values}, {"top_logprobs", tops}, {"text_offset", offsets}};
}

Json Choice::chat_logprobs(std::span<const ServedToken> tokens) const {
  Json content = Json::array();
  const auto entry = [&](int32_t token, float logprob) {
    const std::string text = spelled(token);
    return Json{{"token", text}, {"logprob", logprob}, {"bytes", bytes_of(text)}};
  };
  for (const ServedToken& t : tokens) {
    Json one = entry(t.token, t.logprob);
    one["top_logprobs"] = Json::array();
    for (const auto& [token, logprob] : t.top) one["top_logprobs"].push_back(entry(token, logprob));
    content.push_back(one);
  }
  return {{"content", content}};
}

Json Choice::calls_json(bool streamed) const {
  Json all = Json::array();
  for (size_t i = 0; i < calls_.size(); ++i) {
    const ToolCall& c = calls_[i];
    Json one;
    if (streamed) one["index"] = i;
    one["id"] = call_id(i);
    one["type"] = "function";
    one["function"] = {{"name", c.name}, {"arguments", c.arguments}};
    all.push_back(one);
  }
  return all;
}

Json Usage::json() const {
  return {{"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
}

namespace {

class OpenAiForm final : public ReplyForm {
 public:
  OpenAiForm(const AnswerCall& call, const ApiModel& model)
      : call_(call), model_(model), id_(new_id(call.chat ? "chatcmpl" : "cmpl")) {}
  std::string begin(const Usage&) override { return ""; }
  std::string part(const Choice& choice, const Choice::Delta& delta, const Usage& now) override {
    const bool first = begun_.insert(choice.index()).second;
    return event(around(Json::array({choice.chunk(delta, first)}), call_.usage_each ? &now : nullptr));
  }
  std::string end(const Usage& all) override {
    return (call_.usage ? event(around(Json::array(), &all)) : "") + "data: [DONE]\n\n";
  }
  Json whole(std::span<const Choice* const> given, const Usage& all) const override {
    Json choices = Json::array();
    for (const Choice* c : given) {
      choices.push_back(c->whole());
      choices.back()["index"] = choices.size() - 1;
    }
    return around(choices, &all);
  }
  std::string error_event(const ApiError& error) const override { return event(error.json()); }

 private:
  static std::string event(const Json& j) { return "data: " + dumped(j) + "\n\n"; }
  Json around(Json choices, const Usage* usage) const {
    const std::string_view kind = !call_.chat    ? "text_completion"
                                  : call_.stream ? "chat.completion.chunk"
                                                 : "chat.completion";
    Json j = {{"id", id_}, {"object", kind}, {"created", created_}, {"model", model_.name}};
    j["choices"] = std::move(choices);
    if (usage) j["usage"] = usage->json();
    return j;
  }

  const AnswerCall& call_;
  const ApiModel& model_;
  const std::string id_;
  const int64_t created_ = int64_t(std::time(nullptr));
  std::set<int> begun_;  // indices of choices
};

}  // namespace

std::unique_ptr<ReplyForm> openai_form(const AnswerCall& call, const ApiModel& model) {
  return std::make_unique<OpenAiForm>(call, model);
}

std::string new_id(std::string_view kind) {
  std::random_device random;
  return fmt::format("{}-{:08x}{:08x}", kind, random(), random());
}

std::string dumped(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace awq
