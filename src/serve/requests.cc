#include "serve/requests.h"

#include <algorithm>
#include <charconv>
#include <random>

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostAnswers = 128;  // of one request
constexpr int kMostStops = 16;
constexpr int kMostTop = 20;        // top logprobs, as OpenAI
constexpr int kDefaultTokens = 16;  // of a completion, as OpenAI

std::vector<std::string> texts(const Fields& f, std::string_view key, size_t most) {
  const Json* v = f.find(key);
  if (!v) return {};
  if (v->is_string()) return {v->get<std::string>()};
  if (!v->is_array() || v->size() > most) f.refuse(key, fmt::format("a string or at most {} of them", most), *v);
  std::vector<std::string> all;
  for (const Json& s : *v) {
    if (!s.is_string()) f.refuse(key, "strings", s);
    all.push_back(s.get<std::string>());
  }
  return all;
}

bool are_ids(const Json& v) {
  return v.is_array() && !v.empty() && std::ranges::all_of(v, [](const Json& i) { return i.is_number_integer(); });
}

std::vector<int32_t> ids_of(const Fields& f, std::string_view key, const Json& v, const ApiModel& model) {
  std::vector<int32_t> ids;
  for (const Json& i : v) {
    if (i.is_number_unsigned() && i.get<uint64_t>() < uint64_t(model.text.tokenizer().vocab_size()))
      ids.push_back(i.get<int32_t>());
    else
      f.refuse(key, fmt::format("tokens from 0 to {}", model.text.tokenizer().vocab_size() - 1), i);
  }
  return ids;
}

struct Inputs {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::string> texts;
};

/// A string, a list of tokens, or a list of either.
Inputs inputs_of(const Fields& f, std::string_view key, const ApiModel& model) {
  const Json* v = f.find(key);
  if (!v) throw ApiError(400, fmt::format("{}: it is missing", key), std::string(key));
  Inputs in;
  const auto add = [&](const Json& one) {
    if (one.is_string()) {
      in.texts.push_back(one.get<std::string>());
      in.ids.push_back(model.text.tokenizer().encode(in.texts.back(), true, false));
    } else if (are_ids(one)) {
      in.ids.push_back(ids_of(f, key, one, model));
      in.texts.push_back(model.text.tokenizer().decode(in.ids.back()));
    } else {
      f.refuse(key, "a string, a list of tokens, or a list of either", one);
    }
  };
  if (v->is_array() && !are_ids(*v))
    std::ranges::for_each(*v, add);
  else
    add(*v);
  if (in.ids.empty() || in.ids.size() > size_t(kMostAnswers))
    f.refuse(key, fmt::format("1 to {} of them", kMostAnswers), *v);
  return in;
}

void check_model(const Fields& f, const ApiModel& model) {
  const std::string name = f.text("model", model.name);
  if (name != model.name)
    throw ApiError(404, fmt::format("model: \"{}\" is not here; there is \"{}\"", name, model.name), "model",
                   "model_not_found");
}

std::vector<std::pair<int32_t, float>> biases(const Fields& f, const ApiModel& model) {
  const Json* v = f.find("logit_bias");
  if (!v) return {};
  if (!v->is_object()) f.refuse("logit_bias", "an object", *v);
  std::vector<std::pair<int32_t, float>> all;
  for (auto it = v->begin(); it != v->end(); ++it) {
    const std::string& key = it.key();
    int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0 ||
        token >= model.text.tokenizer().vocab_size())
      f.refuse("logit_bias", "tokens as names", Json(key));
    all.emplace_back(token, float(Fields(*v, "logit_bias.").number(key, 0, -100, 100)));
  }
  return all;
}

/// Where none is given, another one each time: whoever samples wants different answers.
uint64_t seed_of(const Fields& f) {
  if (!f.find("seed")) return uint64_t(std::random_device()()) << 32 | std::random_device()();
  return uint64_t(f.whole("seed", 0, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()));
}

SamplerOptions sampling_of(const Fields& f, const ApiModel& model) {
  const GenerateOptions& d = model.defaults;
  return {.temperature = f.number("temperature", d.temperature, 0, 100),
          .top_k = std::max(0, int(f.whole("top_k", d.top_k, -1, 1 << 24))),
          .top_p = f.number("top_p", d.top_p, 0, 1),
          .min_p = f.number("min_p", d.min_p, 0, 1),
          .typical_p = f.number("typical_p", 1, 0, 1),
          .repetition_penalty = f.number("repetition_penalty", d.repetition_penalty, 0.01, 100),
          .presence_penalty = f.number("presence_penalty", 0, -2, 2),
          .frequency_penalty = f.number("frequency_penalty", 0, -2, 2),
          .bias = biases(f, model),
          .seed = seed_of(f)};
}

AnswerCall shared_part(const Fields& f, const ApiModel& model) {
  check_model(f, model);
  AnswerCall call;
  call.n = int(f.whole("n", 1, 1, kMostAnswers));
  call.best_of = int(f.whole("best_of", call.n, call.n, kMostAnswers));
  call.stream = f.flag("stream", false);
  if (call.stream && call.best_of > call.n)
    throw ApiError(400, "best_of: the best are only known at the end, so they cannot be streamed", "best_of");
  if (const Json* o = f.find("stream_options")) {
    const Fields options(*o, "stream_options.");
    call.usage = options.flag("include_usage", false);
    call.usage_each = options.flag("continuous_usage_stats", false);
  }
  call.stop = texts(f, "stop", kMostStops);
  call.request.sampling = sampling_of(f, model);
  call.request.min_tokens = int(f.whole("min_tokens", 0, 0, 1 << 24));
  if (!f.flag("ignore_eos", false)) call.request.ends = model.text.ends();
  return call;
}

/// Of all prompts, or ApiError: nothing is silently shortened.
void set_length(AnswerCall& call, int64_t wanted, std::string_view key, const ApiModel& model) {
  for (const std::vector<int32_t>& p : call.prompts) {
    if (p.empty()) throw ApiError(400, "the prompt has no tokens", call.chat ? "messages" : "prompt");
    if (int64_t(p.size()) + std::max<int64_t>(wanted, 1) > model.longest)
      throw ApiError(400,
                     fmt::format("{}: a prompt of {} tokens with an answer of {} is longer than the context of {}", key,
                                 p.size(), std::max<int64_t>(wanted, 1), model.longest),
                     std::string(key), "context_length_exceeded");
    if (wanted < 0) call.request.max_tokens = model.longest - int(p.size());
  }
  if (wanted >= 0) call.request.max_tokens = int(wanted);
}

/// Parts of text are joined; others are refused.
std::string content_text(const Fields& f, const Json& parts) {
  std::string all;
  for (const Json& part : parts) {
    const Fields p(part, "messages.content.");
    if (p.text("type") != "text") f.refuse("content", "parts of type \"text\"", part);
    all += p.text("text");
  }
  return all;
}

Json messages_of(const Fields& f) {
  const Json* v = f.find("messages");
  if (!v) throw ApiError(400, "messages: it is missing", "messages");
  if (!v->is_array() || v->empty()) f.refuse("messages", "a list of at least one", *v);
  Json all = *v;
  for (Json& m : all) {
    const Fields message(m, "messages.");
    if (message.text("role").empty()) throw ApiError(400, "messages.role: it is missing", "messages.role");
    const Json* content = message.find("content");
    if (content && content->is_array())
      m["content"] = content_text(message, *content);
    else if (content && !content->is_string())
      message.refuse("content", "a string or a list of parts", *content);
  }
  return all;
}

std::vector<int32_t> chat_ids(const Fields& f, const ApiModel& model) {
  RenderChat options{.add_generation_prompt = f.flag("add_generation_prompt", true)};
  if (const Json* tools = f.find("tools")) {
    if (!tools->is_array()) f.refuse("tools", "a list", *tools);
    if (f.text("tool_choice", "auto") != "none") options.tools = *tools;
  }
  if (const Json* extra = f.find("chat_template_kwargs")) {
    if (!extra->is_object()) f.refuse("chat_template_kwargs", "an object", *extra);
    options.variables = *extra;
  }
  try {
    return model.text.encode_chat(messages_of(f), options);
  } catch (const Error& e) {
    throw ApiError(400, e.what(), "messages");
  }
}

}  // namespace

GenerateOptions api_defaults(const nlohmann::json& config) {
  GenerateOptions o;
  const auto number = [&](const char* key, double missing) {
    return config.is_object() && config.contains(key) && config.at(key).is_number() ? config.at(key).get<double>()
                                                                                    : missing;
  };
  o.temperature = number("temperature", 1);
  o.top_k = int(number("top_k", 0));
  o.top_p = number("top_p", 1);
  o.min_p = number("min_p", 0);
  o.repetition_penalty = number("repetition_penalty", 1);
  return o;
}

AnswerCall completion_call(const Json& body, const ApiModel& model) {
  const Fields f(body);
  AnswerCall call = shared_part(f, model);
  Inputs in = inputs_of(f, "prompt", model);
  call.prompts = std::move(in.ids), call.prompt_texts = std::move(in.texts);
  if (call.prompts.size() * size_t(call.best_of) > size_t(kMostAnswers))
    throw ApiError(400,
                   fmt::format("n: {} prompts with {} answers each are more than {}", call.prompts.size(), call.best_of,
                               kMostAnswers),
                   "n");
  call.echo = f.flag("echo", false);
  const auto top = f.whole("logprobs", -1, 0, kMostTop);
  call.logprobs = top >= 0;
  call.request.top_logprobs = int(top);
  call.request.score_prompt = call.echo && call.logprobs;
  set_length(call, f.whole("max_tokens", kDefaultTokens, 0, 1 << 24), "max_tokens", model);
  if (call.request.max_tokens == 0 && !call.echo)
    throw ApiError(400, "max_tokens: nothing is asked for: expected 1 or more, or echo", "max_tokens");
  return call;
}

AnswerCall chat_call(const Json& body, const ApiModel& model) {
  const Fields f(body);
  AnswerCall call = shared_part(f, model);
  call.chat = true;
  call.prompts = {chat_ids(f, model)};
  call.tools = f.find("tools") && f.text("tool_choice", "auto") != "none";
  call.logprobs = f.flag("logprobs", false);
  const auto top = int(f.whole("top_logprobs", 0, 0, kMostTop));
  if (top && !call.logprobs) throw ApiError(400, "top_logprobs: it needs logprobs", "top_logprobs");
  call.request.top_logprobs = call.logprobs ? top : -1;
  const char* key = f.find("max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
  set_length(call, f.whole(key, -1, 1, 1 << 24), key, model);
  return call;
}

EmbeddingCall embedding_call(const Json& body, const ApiModel& model) {
  const Fields f(body);
  check_model(f, model);
  const std::string format = f.text("encoding_format", "float");
  if (format != "float" && format != "base64") f.refuse("encoding_format", "\"float\" or \"base64\"", Json(format));
  return {.inputs = inputs_of(f, "input", model).ids, .base64 = format == "base64"};
}

std::vector<int32_t> tokenize_ids(const Json& body, const ApiModel& model) {
  const Fields f(body);
  check_model(f, model);
  if (f.find("messages")) return chat_ids(f, model);
  if (!f.find("prompt")) throw ApiError(400, "prompt: it is missing, and there are no messages", "prompt");
  return model.text.tokenizer().encode(f.text("prompt"), f.flag("add_special_tokens", true), false);
}

std::vector<int32_t> detokenize_ids(const Json& body, const ApiModel& model) {
  const Fields f(body);
  check_model(f, model);
  const Json* v = f.find("tokens");
  if (!v || !v->is_array()) f.refuse("tokens", "a list of tokens", v ? *v : Json());
  return ids_of(f, "tokens", *v, model);
}

}  // namespace awq
