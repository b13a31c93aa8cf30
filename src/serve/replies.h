#pragma once
#include "engine/answer_text.h"
#include "serve/answer_parts.h"
#include "serve/requests.h"

namespace awq {

/// One answer while it is made: what to send of it, and what it became.
class Choice {
 public:
  Choice(const AnswerCall& call, const ApiModel& model, size_t prompt, int index);

  struct Delta {
    std::string text, reasoning;
    std::vector<ServedToken> tokens;  // that it comes from; where logprobs are asked for
    bool empty() const { return text.empty() && reasoning.empty() && tokens.empty(); }
  };
  void prompt_token(const ServedToken& t) { prompt_tokens_.push_back(t); }
  /// false: a stop string has come, or the call that was required is whole
  bool token(const ServedToken& t);
  void end(ServeEnd how);
  /// What came since the last call.
  Delta take();

  int index() const { return index_; }
  size_t prompt() const { return prompt_; }
  bool ended() const { return !finish_.empty(); }
  const std::string& how_it_ended() const { return finish_; }
  int generated() const { return generated_; }
  const std::string& said() const { return said_; }
  const std::string& thought() const { return thought_; }
  const std::vector<ToolCall>& calls() const { return calls_; }
  /// empty: none of the stop strings
  const std::string& stopped_by() const { return text_.stopped_by(); }
  std::string call_id(size_t i) const { return fmt::format("call_{}_{}", index_, i); }
  double mean_logprob() const { return generated_ ? sum_logprob_ / generated_ : 0; }
  /// As OpenAI's API has them: an entry of "choices".
  nlohmann::ordered_json whole() const;
  nlohmann::ordered_json chunk(const Delta& delta, bool first) const;

 private:
  nlohmann::ordered_json finish_json() const {
    return finish_.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(finish_);
  }
  std::vector<ServedToken> with_prompt(std::span<const ServedToken> answer) const;
  nlohmann::ordered_json completion_logprobs(std::span<const ServedToken> tokens, size_t offset, bool prompt) const;
  nlohmann::ordered_json chat_logprobs(std::span<const ServedToken> tokens) const;
  nlohmann::ordered_json calls_json(bool streamed) const;
  std::string spelled(int32_t token) const;
  void add(const std::string& text);
  void add(const AnswerParts::Piece& piece);

  const AnswerCall& call_;
  const ApiModel& model_;
  size_t prompt_;
  int index_, generated_ = 0;
  size_t offset_ = 0, next_offset_ = 0;  // in characters, of the tokens that take() gave last, and gives next
  double sum_logprob_ = 0;
  AnswerText text_;
  AnswerParts parts_;
  std::vector<ToolCall> calls_;
  std::string said_, thought_, finish_;
  std::vector<ServedToken> prompt_tokens_, tokens_;
  Delta delta_;
};

struct Usage {
  int64_t prompt = 0, generated = 0;
  nlohmann::ordered_json json() const;
};

/// How a request's answers are written: one of OpenAI's APIs, or Anthropic's. Events are those of text/event-stream.
class ReplyForm {
 public:
  virtual ~ReplyForm() = default;
  /// Before the first part.
  virtual std::string begin(const Usage& now) = 0;
  /// What came of one answer; its last part where it has ended.
  virtual std::string part(const Choice& choice, const Choice::Delta& delta, const Usage& now) = 0;
  /// After the last part of all.
  virtual std::string end(const Usage& all) = 0;
  virtual nlohmann::ordered_json whole(std::span<const Choice* const> given, const Usage& all) const = 0;
  virtual std::string error_event(const ApiError& error) const = 0;
};
/// What they are given outlives them.
std::unique_ptr<ReplyForm> openai_form(const AnswerCall& call, const ApiModel& model);

std::string new_id(std::string_view kind);
/// What is no UTF-8 becomes U+FFFD.
std::string dumped(const nlohmann::ordered_json& j);

}  // namespace awq
