#pragma once
#include "engine/runtime.h"
#include "serve/batcher.h"
#include "serve/fields.h"

namespace awq {

/// What a body of /v1/completions or /v1/chat/completions asks for.
struct AnswerCall {
  bool chat = false;
  std::vector<std::vector<int32_t>> prompts;  // of a chat one
  std::vector<std::string> prompt_texts;      // echoed; where a prompt came as ids, what they decode to
  int n = 1, best_of = 1;                     // answers to each that are given, and made
  bool stream = false, usage = false, usage_each = false, echo = false;
  bool logprobs = false;
  std::vector<std::string> stop;
  bool messages = false;   // of Anthropic's /v1/messages
  bool tools = false;      // the chat has some, so that calls of them are looked for in the answer
  bool one_call = false;   // and only the first counts
  bool thinking = false;   // the prompt ends inside of what the model thinks
  std::string call_begin;  // a call is required: it begins so, and the prompt ends with it
  std::string call_name;   // and this is the tool
  ServeRequest request;    // of every answer; without a prompt, seeds count up from its own
};

/// The model's side of a request: its text, its context, how it samples unless it is told otherwise.
struct ApiModel {
  std::string name;
  const TextSide& text;
  GenerateOptions defaults;
  int longest = 0;  // Batcher::longest
};

/// Of a model whose generation_config.json this is (or null): what it says, as vLLM takes it, otherwise as OpenAI.
GenerateOptions api_defaults(const nlohmann::json& generation_config);

/// All throw ApiError: 400 for what is wrong, with the field's name; 404 for another model.
AnswerCall completion_call(const nlohmann::ordered_json& body, const ApiModel& model);
AnswerCall chat_call(const nlohmann::ordered_json& body, const ApiModel& model);
/// A body as JSON; neither nested so deeply that who walks it could run out of stack, nor anything else.
nlohmann::ordered_json parsed_body(const std::string& text);
/// What a body of /v1/embeddings asks for.
struct EmbeddingCall {
  std::vector<std::vector<int32_t>> inputs;
  bool base64 = false;  // floats as their bytes, instead of numbers
};
EmbeddingCall embedding_call(const nlohmann::ordered_json& body, const ApiModel& model);
/// The ids that /tokenize answers: of "prompt", or of "messages" as the template writes them.
std::vector<int32_t> tokenize_ids(const nlohmann::ordered_json& body, const ApiModel& model);
/// The "tokens" of /detokenize.
std::vector<int32_t> detokenize_ids(const nlohmann::ordered_json& body, const ApiModel& model);

}  // namespace awq
