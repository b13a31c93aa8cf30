#include "serve/replies.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

bool ends_thinking(const AnswerCall& call, const ApiModel& model) {
  if (!call.chat) return false;
  std::string prompt = model.text.tokenizer().decode(call.prompts.front());
  prompt.erase(prompt.find_last_not_of(" \n") + 1);
  return prompt.ends_with("<think>");
}

Json bytes_of(const std::string& s) {
  Json bytes = Json::array();
  for (char c : s) bytes.push_back(int(uint8_t(c)));
  return bytes;
}

}  // namespace

Choice::Choice(const AnswerCall& call, const ApiModel& model, size_t prompt, int index)
    : call_(call),
      model_(model),
      prompt_(prompt),
      index_(index),
      text_(model.text.tokenizer(), call.stop),
      parts_(call.chat && model.text.thinks(), ends_thinking(call, model), call.tools) {
  if (call.echo) add(call.prompt_texts[prompt]);
}

bool Choice::token(const ServedToken& t) {
  ++generated_;
  sum_logprob_ += double(t.logprob);
  if (call_.logprobs) tokens_.push_back(t), delta_.tokens.push_back(t);
  add(text_.push(t.token));
  return !text_.stopped();
}

void Choice::add(const std::string& text) {
  if (!call_.chat) {
    said_ += text, delta_.text += text;
    return;
  }
  const AnswerParts::Piece piece = parts_.push(text);
  said_ += piece.content, delta_.text += piece.content;
  thought_ += piece.reasoning, delta_.reasoning += piece.reasoning;
}

void Choice::end(ServeEnd how) {
  add(text_.flush());
  if (call_.chat) {
    const AnswerParts::Piece piece = parts_.finish();
    said_ += piece.content, delta_.text += piece.content;
    thought_ += piece.reasoning, delta_.reasoning += piece.reasoning;
  }
  finish_ = how == ServeEnd::length ? "length" : !parts_.calls().empty() ? "tool_calls" : "stop";
}

Choice::Delta Choice::take() { return std::exchange(delta_, {}); }

std::string Choice::spelled(int32_t token) const { return model_.text.tokenizer().decode({&token, 1}); }

Json Choice::whole() const {
  if (!call_.chat) {
    Json logprobs;
    if (call_.logprobs) {
      std::vector<ServedToken> all;
      if (call_.echo) {
        all.push_back({.token = call_.prompts[prompt_].front()});
        all.insert(all.end(), prompt_tokens_.begin(), prompt_tokens_.end());
      }
      all.insert(all.end(), tokens_.begin(), tokens_.end());
      logprobs = completion_logprobs(all, 0, call_.echo);
    }
    return {{"index", index_}, {"text", said_}, {"logprobs", logprobs}, {"finish_reason", finish_json()}};
  }
  Json message = {{"role", "assistant"}, {"content", said_}};
  if (!thought_.empty()) message["reasoning_content"] = thought_;
  if (!parts_.calls().empty()) {
    message["tool_calls"] = calls_json(false);
    if (said_.empty()) message["content"] = nullptr;
  }
  return {{"index", index_},
          {"message", message},
          {"logprobs", call_.logprobs ? chat_logprobs(tokens_) : Json()},
          {"finish_reason", finish_json()}};
}

Json Choice::chunk(const Delta& d, bool first) const {
  if (!call_.chat)
    return {{"index", index_},
            {"text", d.text},
            {"logprobs", call_.logprobs ? completion_logprobs(d.tokens, said_.size() - d.text.size(), false) : Json()},
            {"finish_reason", finish_json()}};
  Json delta = Json::object();
  if (first) delta["role"] = "assistant";
  if (first || !d.text.empty()) delta["content"] = d.text;
  if (!d.reasoning.empty()) delta["reasoning_content"] = d.reasoning;
  if (ended() && !parts_.calls().empty()) delta["tool_calls"] = calls_json(true);
  return {{"index", index_},
          {"delta", delta},
          {"logprobs", call_.logprobs ? chat_logprobs(d.tokens) : Json()},
          {"finish_reason", finish_json()}};
}

// The first of a prompt's tokens has nothing to follow from.
Json Choice::completion_logprobs(std::span<const ServedToken> tokens, size_t offset, bool prompt) const {
  Json texts = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const ServedToken& t = tokens[i];
    texts.push_back(spelled(t.token));
    offsets.push_back(offset);
    offset += texts.back().get_ref<const std::string&>().size();
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
  for (size_t i = 0; i < parts_.calls().size(); ++i) {
    const ToolCall& c = parts_.calls()[i];
    Json one;
    if (streamed) one["index"] = i;
    one["id"] = fmt::format("call_{}_{}", index_, i);
    one["type"] = "function";
    one["function"] = {{"name", c.name}, {"arguments", c.arguments}};
    all.push_back(one);
  }
  return all;
}

Json Usage::json() const {
  return {{"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
}

Json reply_around(const AnswerCall& call, const ApiModel& model, const std::string& id, int64_t created, Json choices,
                  const Usage* usage) {
  const std::string_view kind = !call.chat    ? "text_completion"
                                : call.stream ? "chat.completion.chunk"
                                              : "chat.completion";
  Json j = {{"id", id}, {"object", kind}, {"created", created}, {"model", model.name}, {"choices", std::move(choices)}};
  if (usage) j["usage"] = usage->json();
  return j;
}

}  // namespace awq
