// `awq generate`: one answer. `awq chat`: a conversation.
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli.h"

namespace awq::cli {
namespace {

/// Sampling options on the command line override the model's generation_config.json.
struct Sampling {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  int max_tokens = 0;
  uint64_t seed = 0;
  std::vector<std::string> stop;

  GenerateOptions over(GenerateOptions o) const {
    o.temperature = temperature.value_or(o.temperature);
    o.top_p = top_p.value_or(o.top_p);
    o.min_p = min_p.value_or(o.min_p);
    o.top_k = top_k.value_or(o.top_k);
    o.repetition_penalty = repetition_penalty.value_or(o.repetition_penalty);
    o.max_tokens = max_tokens;
    o.seed = seed;
    o.stop = stop;
    return o;
  }
};

void add_sampling(CLI::App& c, Sampling& s) {
  c.add_option("-n,--max-tokens", s.max_tokens, "Longest answer; default: 256, or what the context leaves")
      ->check(CLI::Range(1, 1 << 24));
  c.add_option("--temperature", s.temperature, "0: greedy; default: the model's generation_config.json, else greedy")
      ->check(CLI::Range(0.0, 100.0));
  c.add_option("--top-k", s.top_k, "Only the k most likely tokens; 0: all; default: as the model says")
      ->check(CLI::Range(0, 1 << 24));
  c.add_option("--top-p", s.top_p,
               "Only the likeliest tokens that make up this probability; default: as the model says")
      ->check(CLI::Range(0.0, 1.0));
  c.add_option("--min-p", s.min_p,
               "Only tokens at least this likely, relative to the likeliest; default: as the model says")
      ->check(CLI::Range(0.0, 1.0));
  c.add_option("--repetition-penalty", s.repetition_penalty,
               "Above 1: tokens seen before become less likely; default: as the model says")
      ->check(CLI::Range(0.01, 10.0));
  c.add_option("--seed", s.seed, "Of the sampling")->capture_default_str();
  c.add_option("--stop", s.stop, "Text that ends the answer (may be given several times)");
}

struct GenerateFlags {
  std::string model, prompt, prompt_file, system;
  bool chat = false, json = false, special = false;
  Sampling sampling;
  DeviceOptions device;
};

CLI::Option* add_special(CLI::App& c, GenerateFlags& o) {
  return c.add_flag(
      "--special", o.special,
      "Texts of special tokens in messages, such as <|im_end|>, become these tokens; default: plain text");
}

double decode_rate(const Generation& g) {
  return g.tokens.size() > 1 && g.decode_seconds > 0 ? double(g.tokens.size() - 1) / g.decode_seconds : 0;
}

void print_speed(const Generation& g, const Engine& e) {
  std::fflush(stdout);  // the answer ends before this begins
  fmt::print(stderr, "[{} prompt tokens{}, first token after {:.2f} s; {} tokens at {:.1f} tokens/s; {}, {} threads]\n",
             g.prompt_tokens, g.reused_tokens ? fmt::format(" ({} from the cache)", g.reused_tokens) : "",
             g.prefill_seconds, g.tokens.size(), decode_rate(g), e.kernels(), e.threads());
}

bool stream(std::string_view piece) {
  fmt::print("{}", piece);
  std::fflush(stdout);
  return !interrupted();
}

std::string_view name_of(FinishReason r) {
  return r == FinishReason::stop ? "stop" : r == FinishReason::length ? "length" : "cancelled";
}

Engine open_engine(const std::string& model, const DeviceOptions& device) {
  std::optional<ProgressLine> line(std::in_place);
  Engine engine(model, device, std::ref(*line));
  line.reset();
  if (const std::string placed = engine.placement(); !placed.empty()) fmt::print(stderr, "{}\n", placed);
  return engine;
}

void print_json(const Generation& g, const Engine& e) {
  fmt::print(
      "{{\"text\": {}, \"tokens\": {}, \"finish\": \"{}\", \"prompt_tokens\": {}, \"prefill_seconds\": {:.4f}, "
      "\"tokens_per_second\": {:.2f}, "
      "\"kernels\": \"{}\", \"threads\": {}}}\n",
      json_text(g.text), nlohmann::json(g.tokens).dump(), name_of(g.finish), g.prompt_tokens, g.prefill_seconds,
      decode_rate(g), e.kernels(), e.threads());
}

std::vector<Message> with_system(const std::string& system) {
  return system.empty() ? std::vector<Message>{} : std::vector<Message>{{"system", system}};
}

void run_generate(GenerateFlags& o) {
  if (!o.prompt_file.empty()) o.prompt = read_file(o.prompt_file);
  Engine engine = open_engine(o.model, o.device);
  std::vector<Message> messages = with_system(o.system);
  messages.push_back({"user", o.prompt});
  const std::vector<int32_t> prompt = o.chat ? engine.encode_chat(messages, o.special) : engine.encode(o.prompt);
  const Generation g =
      engine.generate(prompt, o.sampling.over(engine.defaults()),
                      o.json ? OnText([](std::string_view) { return !interrupted(); }) : OnText(stream));
  if (o.json) return print_json(g, engine);
  fmt::print("\n");
  print_speed(g, engine);
  if (g.finish == FinishReason::cancelled) throw Cancelled();
}

/// False at the end of input, or at the second Ctrl-C in a row.
bool read_line(std::string& line) {
  for (int attempts = 0; attempts < 2; ++attempts) {
    clear_interrupt();
    if (isatty(STDIN_FILENO)) fmt::print(stderr, "> ");
    if (std::getline(std::cin, line)) return true;
    if (!interrupted()) return false;
    std::cin.clear();
    fmt::print(stderr, "\n{}", attempts == 0 ? "(Ctrl-C again to end, or type on)\n" : "");
  }
  return false;
}

void run_chat(GenerateFlags& o) {
  Engine engine = open_engine(o.model, o.device);
  if (!engine.has_chat_template())
    throw Error(fmt::format(
        "[chat] {}: the model has no chat template, so it was not made for chat. Try `awq generate`", o.model));
  fmt::print(stderr, "{}: {} threads, {}. An empty line or Ctrl-D ends; Ctrl-C stops an answer.\n", o.model,
             engine.threads(), engine.kernels());
  std::vector<Message> messages = with_system(o.system);
  for (std::string line; read_line(line) && !line.empty();) {
    messages.push_back({"user", line});
    const Generation g =
        engine.generate(engine.encode_chat(messages, o.special), o.sampling.over(engine.defaults()), stream);
    fmt::print("\n");
    print_speed(g, engine);
    messages.push_back({"assistant", g.text});
  }
  clear_interrupt();
}

}  // namespace

void add_generate(CLI::App& app) {
  auto o = std::make_shared<GenerateFlags>();
  CLI::App* c = app.add_subcommand("generate", "Continue a text, or answer one message with --chat");
  add_model(*c, "MODEL", o->model, "Folder or .gguf file, float or 4-bit")->required();
  auto* text = c->add_option("-p,--prompt", o->prompt, "Text to start from");
  c->add_option("-f,--file", o->prompt_file, "File with the text to start from")->excludes(text);
  auto* chat = c->add_flag("--chat", o->chat, "The text is a user's message: use the model's chat template");
  add_special(*c, *o)->needs(chat);
  c->add_option("--system", o->system, "System message, with --chat");
  c->add_flag("--json", o->json, "Print one JSON object instead of streaming text");
  add_sampling(*c, o->sampling);
  add_device_options(*c, o->device);
  add_run_options(*c, o->device, "bf16");
  c->footer("Example:\n  awq generate smollm2-awq --chat -p \"Why is the sky blue?\" -n 100");
  c->callback([o] {
    if (o->prompt.empty() && o->prompt_file.empty()) throw CLI::RequiredError("--prompt or --file");
    run_generate(*o);
  });
}

void add_chat(CLI::App& app) {
  auto o = std::make_shared<GenerateFlags>();
  CLI::App* c = app.add_subcommand("chat", "Talk to a model in the terminal");
  add_model(*c, "MODEL", o->model, "Folder or .gguf file, float or 4-bit")->required();
  c->add_option("--system", o->system, "System message");
  add_special(*c, *o);
  add_sampling(*c, o->sampling);
  add_device_options(*c, o->device);
  add_run_options(*c, o->device, "bf16");
  c->footer("Example:\n  awq chat smollm2-awq --temperature 0.7");
  c->callback([o] { run_chat(*o); });
}

}  // namespace awq::cli
