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
  /// false: a stop string has come
  bool token(const ServedToken& t);
  void end(ServeEnd how);
  /// What came since the last call.
  Delta take();

  int index() const { return index_; }
  size_t prompt() const { return prompt_; }
  bool ended() const { return !finish_.empty(); }
  const std::string& how_it_ended() const { return finish_; }
  int generated() const { return generated_; }
  double mean_logprob() const { return generated_ ? sum_logprob_ / generated_ : 0; }
  /// As OpenAI's API has them: an entry of "choices".
  nlohmann::ordered_json whole() const;
  nlohmann::ordered_json chunk(const Delta& delta, bool first) const;

 private:
  nlohmann::ordered_json finish_json() const {
    return finish_.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(finish_);
  }
  nlohmann::ordered_json completion_logprobs(std::span<const ServedToken> tokens, size_t offset, bool prompt) const;
  nlohmann::ordered_json chat_logprobs(std::span<const ServedToken> tokens) const;
  nlohmann::ordered_json calls_json(bool streamed) const;
  std::string spelled(int32_t token) const;
  void add(const std::string& text);

  const AnswerCall& call_;
  const ApiModel& model_;
  size_t prompt_;
  int index_, generated_ = 0;
  double sum_logprob_ = 0;
  AnswerText text_;
  AnswerParts parts_;
  std::string said_, thought_, finish_;
  std::vector<ServedToken> prompt_tokens_, tokens_;
  Delta delta_;
};

struct Usage {
  int64_t prompt = 0, generated = 0;
  nlohmann::ordered_json json() const;
};

/// What is around choices: "chat.completion.chunk" and so on.
nlohmann::ordered_json reply_around(const AnswerCall& call, const ApiModel& model, const std::string& id,
                                    int64_t created, nlohmann::ordered_json choices, const Usage* usage);

}  // namespace awq
