#include "serve/requests.h"

#include <algorithm>
#include <charconv>
#include <random>
#include <span>
#include <utility>

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostAnswers = 128;  // of one request
constexpr int kMostStops = 16;
constexpr int kMostTop = 20;                // top logprobs, as OpenAI
constexpr int kDefaultTokens = 16;          // of a completion, as OpenAI
constexpr int kDeepestBody = 128;           // levels; a tool's schema has ten or so
constexpr int64_t kMostLogprobs = 1 << 22;  // of a reply that is sent at once: half a gigabyte of text

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

/// What changes an answer and is not there is refused, not ignored.
void refuse_unsupported(const Fields& f) {
  if (const Json* v = f.find("response_format"); v && Fields(*v, "response_format.").text("type") != "text")
    f.refuse("response_format", R"({"type": "text"})", *v);
  if (const Json* v = f.find("suffix"); v && *v != "") f.refuse("suffix", "none", *v);
}

AnswerCall shared_part(const Fields& f, const ApiModel& model) {
  check_model(f, model);
  refuse_unsupported(f);
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
  if (const Json* v = f.find("stop_token_ids")) {
    if (!v->is_array()) f.refuse("stop_token_ids", "a list of tokens", *v);
    const std::vector<int32_t> ids = ids_of(f, "stop_token_ids", *v, model);
    call.request.ends.insert(ids.begin(), ids.end());
  }
  return call;
}

void check_logprobs(const AnswerCall& call) {
  if (!call.logprobs || call.stream) return;
  int64_t tokens = 0;
  for (const std::vector<int32_t>& p : call.prompts)
    tokens += call.best_of * ((call.echo ? int64_t(p.size()) : 0) + call.request.max_tokens);
  const int64_t all = tokens * (1 + std::max(0, call.request.top_logprobs));
  if (all > kMostLogprobs)
    throw ApiError(400,
                   fmt::format("logprobs: {} of them are more than {} in one reply; ask for fewer tokens, or a stream",
                               all, kMostLogprobs),
                   "logprobs");
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
  check_logprobs(call);
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

/// OpenAI has a call's arguments as text; templates write an object.
void open_arguments(Json& message) {
  if (!message.contains("tool_calls") || !message["tool_calls"].is_array()) return;
  for (Json& call : message["tool_calls"]) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    Json& function = call["function"];
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    try {
      Json arguments = parsed_body(function["arguments"].get<std::string>());
      if (arguments.is_object()) function["arguments"] = std::move(arguments);
    } catch (const ApiError&) {  // what a model wrote may be no JSON: it stays text
    }
  }
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
    else if (!content)
      m["content"] = "";  // what only calls tools; templates add to it
    open_arguments(m);
  }
  return all;
}

/// What "tools", "tool_choice" and "parallel_tool_calls" say.
struct Tools {
  Json offered{};         // null: none
  bool required = false;  // that one is called
  std::string name{};     // the only one that may be
};

std::string tool_name(const Json& tool) {
  const Fields f(tool, "tools.");
  const Json* function = f.find("function");
  return function ? Fields(*function, "tools.function.").text("name") : f.text("name");
}

/// The tool that "tool_choice" names, which must be among them.
std::string chosen_tool(const Fields& f, const Json& choice, const Json& tools) {
  const Fields named(choice, "tool_choice.");
  const Json* function = named.find("function");
  if (!function) named.refuse("function", "{\"name\": ...}", Json());
  const std::string name = Fields(*function, "tool_choice.function.").text("name");
  if (std::ranges::none_of(tools, [&](const Json& t) { return tool_name(t) == name; }))
    f.refuse("tool_choice", "one of the tools", Json(name));
  return name;
}

Tools tools_of(const Fields& f) {
  const Json* all = f.find("tools");
  const Json* choice = f.find("tool_choice");
  if (all && !all->is_array()) f.refuse("tools", "a list", *all);
  if (choice && !choice->is_object() && *choice != "none" && *choice != "auto" && *choice != "required")
    f.refuse("tool_choice", "\"none\", \"auto\", \"required\" or a function", *choice);
  Tools t;
  if (choice && *choice == "none") return t;
  if (all && !all->empty()) t.offered = *all;
  if (!choice || *choice == "auto") return t;
  if (t.offered.is_null()) throw ApiError(400, "tool_choice: there are no tools", "tool_choice");
  t.required = true;
  if (choice->is_object())
    t.name = chosen_tool(f, *choice, t.offered);
  else if (t.offered.size() == 1)
    t.name = tool_name(t.offered.front());
  return t;
}

/// How a call begins in the form that the model's template has, as far as it is known.
std::string call_beginning(const TextSide& text, const std::string& name) {
  const bool hermes = text.template_says("<tool_call>"), mistral = !hermes && text.template_says("[TOOL_CALLS]");
  const std::string mark = hermes ? "<tool_call>\n" : mistral ? "[TOOL_CALLS] [" : "";
  if (name.empty()) return mark + "{\"name\": \"";
  return fmt::format(R"({}{{"name": {}, "{}":)", mark, Json(name).dump(),
                     hermes || mistral ? "arguments" : "parameters");
}

/// Takes off the last message, which the answer goes on with.
std::string unfinished_answer(const Fields& f, Json& messages) {
  const Json last = messages.back();
  if (!last.is_object() || last.value("role", "") != "assistant" || !last.contains("content") ||
      !last["content"].is_string())
    f.refuse("continue_final_message", "a text of the assistant as the last message", Json(true));
  messages.erase(messages.size() - 1);
  return last["content"].get<std::string>();
}

void append(std::vector<int32_t>& ids, const TextSide& text, const std::string& more, bool parse_special) {
  const std::vector<int32_t> own = text.tokenizer().encode(more, false, parse_special);
  ids.insert(ids.end(), own.begin(), own.end());
}

std::vector<int32_t> chat_ids(const Fields& f, const Tools& tools, const ApiModel& model) {
  RenderChat options{.add_generation_prompt = f.flag("add_generation_prompt", true), .tools = tools.offered};
  if (const Json* extra = f.find("chat_template_kwargs")) {
    if (!extra->is_object()) f.refuse("chat_template_kwargs", "an object", *extra);
    options.variables = *extra;
  }
  Json messages = messages_of(f);
  const std::string begun = f.flag("continue_final_message", false) ? unfinished_answer(f, messages) : "";
  try {
    std::vector<int32_t> ids = model.text.encode_chat(messages, options);
    append(ids, model.text, begun, false);
    return ids;
  } catch (const Error& e) {
    throw ApiError(400, e.what(), "messages");
  }
}

/// Whether the prompt ends inside of what the model thinks.
bool ends_thinking(std::span<const int32_t> prompt, const TextSide& text) {
  if (!text.thinks()) return false;
  std::string end = text.tokenizer().decode(prompt.last(std::min<size_t>(prompt.size(), 16)));
  end.erase(end.find_last_not_of(" \n") + 1);
  return end.ends_with("<think>");
}

void require_call(AnswerCall& call, const Tools& tools, const ApiModel& model) {
  if (std::exchange(call.thinking, false)) append(call.prompts.front(), model.text, "\n</think>\n\n", true);
  call.call_begin = call_beginning(model.text, tools.name);
  call.call_name = tools.name;
  append(call.prompts.front(), model.text, call.call_begin, true);
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

Json parsed_body(const std::string& text) {
  const auto shallow = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kDeepestBody) throw ApiError(400, fmt::format("the body is nested more than {} deep", kDeepestBody));
    return true;
  };
  Json j = Json::parse(text, shallow, false);
  if (j.is_discarded()) throw ApiError(400, "the body is no JSON");
  return j;
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
  const Tools tools = tools_of(f);
  call.prompts = {chat_ids(f, tools, model)};
  call.thinking = ends_thinking(call.prompts.front(), model.text);
  call.tools = !tools.offered.is_null();
  call.one_call = tools.required || !f.flag("parallel_tool_calls", true);
  if (tools.required) require_call(call, tools, model);
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
  if (f.find("messages")) return chat_ids(f, tools_of(f), model);
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
