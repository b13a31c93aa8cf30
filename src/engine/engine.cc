// awq::Engine: a prompt in, text out, token by token.
#include <chrono>

#include "awq/awq.h"
#include "engine/answer_text.h"
#include "engine/runtime.h"
#include "engine/sampler.h"
#include "formats/context.h"

namespace awq {
namespace {

constexpr int kLongestAnswer = 256;  // where nothing else is asked for

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

struct Engine::Impl {
  Impl(const std::filesystem::path& path, const DeviceOptions& options, const OnProgress& progress)
      : kv_dtype(kv_type(options.kv, kCacheType)),
        device(options),
        checkpoint(Checkpoint::open(path)),
        text(*checkpoint),
        model(load_model(*device.backend, *checkpoint, [&](int done, int total) {
          if (progress && !progress({"load", done, total})) throw Cancelled();
        })) {
    reset();
  }

  void reset() {
    kv = device.backend->kv_cache(model.spec.blocks, kv_dtype);
    cached.clear();
    length = 0;
  }

  /// Runs tokens that follow `cached` and returns the logits after the last one.
  Tensor forward(std::span<const int32_t> tokens) {
    std::vector<int32_t> again;
    const int needed = int(cached.size() + tokens.size());
    if (turns_anew(needed)) {
      // Where angles follow the length, they get room to stay for a while.
      const int step = model.spec.blocks.front().attention.rope.original_context;
      again.assign(cached.begin(), cached.end());
      again.insert(again.end(), tokens.begin(), tokens.end());
      reset();
      length = std::min((needed + step - 1) / step * step, model.spec.max_context);
      return forward(again);
    }
    length = std::max(length, needed);
    const Tensor last = prefill(*device.backend, model, *kv, int(cached.size()), tokens, {}, length);
    cached.insert(cached.end(), tokens.begin(), tokens.end());
    return last;
  }

  /// Whether keys in the cache were turned by other angles than so many tokens are.
  bool turns_anew(int needed) const {
    return needed > length && !cached.empty() && regime(model.spec, needed) != regime(model.spec, length);
  }

  /// What a token is picked from: all logits, or the largest of them.
  struct Choices {
    Tensor logits{};
    TopLogits top{};
  };
  /// After one token more; `count` of the largest, 0: all.
  Choices step(int32_t token, int count) {
    const int needed = int(cached.size()) + 1;
    if (turns_anew(needed)) return {.logits = forward({&token, 1})};
    length = std::max(length, needed);
    const Sequence s{kv.get(), int(cached.size()), 1, length};
    Choices c;
    if (count)
      c.top = step_top(*device.backend, model, {&token, 1}, {&s, 1}, count);
    else
      c.logits = step_logits(*device.backend, model, {&token, 1}, {&s, 1});
    cached.push_back(token);
    return c;
  }
  /// How many logits a sampler needs on the host; 0: all.
  int needed_by(const Sampler& sampler) const {
    const int n = sampler.candidates();
    return n <= std::min(device.backend->most_top(), model.spec.vocab) ? n : 0;
  }

  /// Keeps what the cache shares with the prompt. The last token is always computed again: its logits are needed.
  int reuse(std::span<const int32_t> prompt) {
    size_t same = 0;
    if (regime(model.spec, int(prompt.size())) != regime(model.spec, length)) reset();
    while (same < cached.size() && same + 1 < prompt.size() && cached[same] == prompt[same]) ++same;
    if (same < cached.size() && model.spec.recurrent()) same = 0;  // a state does not go back
    cached.resize(same);
    return int(same);
  }

  int room_after(int64_t prompt, int max_tokens) const;
  Generation generate(std::span<const int32_t> prompt, const GenerateOptions& options, const OnText& on_text);

  DType kv_dtype;
  Device device;
  std::unique_ptr<Checkpoint> checkpoint;
  TextSide text;
  Model model;
  std::unique_ptr<KvCache> kv;
  std::vector<int32_t> cached;
  int length = 0;  // that the angles of what is cached were made for
};

/// How many tokens may follow a prompt. Throws Error where not even one may, or fewer than were asked for.
int Engine::Impl::room_after(int64_t prompt, int max_tokens) const {
  const std::string asked = fmt::format("a prompt of {} tokens with an answer of {}", prompt, std::max(1, max_tokens));
  require_context(*checkpoint, "generate", asked, prompt + std::max(1, max_tokens));
  return max_tokens ? max_tokens : std::min(kLongestAnswer, model.spec.max_context - int(prompt));
}

Generation Engine::Impl::generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                                  const OnText& on_text) {
  if (prompt.empty()) fail("generate", "the prompt is empty; give at least one token of text");
  const int limit = room_after(int64_t(prompt.size()), options.max_tokens);
  Generation g{.tokens = {}, .text = {}, .prompt_tokens = int(prompt.size()), .reused_tokens = reuse(prompt)};
  Sampler sampler({.temperature = options.temperature,
                   .top_k = options.top_k,
                   .top_p = options.top_p,
                   .min_p = options.min_p,
                   .repetition_penalty = options.repetition_penalty,
                   .seed = options.seed});
  AnswerText answer(text.tokenizer(), options.stop);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  bool going = true;
  const auto show = [&](const std::string& piece) {
    g.text += piece;
    if (!piece.empty() && on_text) going = on_text(piece);
  };
  kv->make_room(int64_t(prompt.size()) + limit);
  const auto start = std::chrono::steady_clock::now();
  Choices choices{.logits = forward(prompt.subspan(size_t(g.reused_tokens)))};
  g.prefill_seconds = seconds_since(start);
  g.finish = FinishReason::length;
  const auto next = [&] {
    if (choices.logits) return sampler.sample(choices.logits.as<float>(), history, prompt.size());
    return sampler.sample_among(choices.top.tokens, choices.top.logits);
  };
  while (int(g.tokens.size()) < limit) {
    const int32_t token = next();
    if (text.ends(token)) {
      g.finish = FinishReason::stop;
      break;
    }
    g.tokens.push_back(token);
    history.push_back(token);
    show(answer.push(token));
    if (answer.stopped()) g.finish = FinishReason::stop;
    if (!going) g.finish = FinishReason::cancelled;
    if (answer.stopped() || !going || int(g.tokens.size()) == limit) break;
    choices = step(token, needed_by(sampler));
  }
  show(answer.flush());
  g.decode_seconds = seconds_since(start) - g.prefill_seconds;
  return g;
}

Engine::Engine(const std::filesystem::path& model, const DeviceOptions& device, const OnProgress& progress)
    : impl_(std::make_unique<Impl>(model, device, progress)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

std::vector<int32_t> Engine::encode(std::string_view text) const {
  return impl_->text.tokenizer().encode(text, true, false);
}
std::string Engine::decode(std::span<const int32_t> tokens) const { return impl_->text.tokenizer().decode(tokens); }
bool Engine::has_chat_template() const { return impl_->text.has_template(); }

std::vector<int32_t> Engine::encode_chat(std::span<const Message> chat, bool parse_special) const {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const Message& m : chat) messages.push_back({{"role", m.role}, {"content", m.content}});
  return impl_->text.encode_chat(messages, true, parse_special);
}

GenerateOptions Engine::defaults() const {
  const nlohmann::json& c = impl_->text.generation_config();
  GenerateOptions o;
  if (!c.is_object() || !c.value("do_sample", false)) return o;
  o.temperature = c.value("temperature", 1.0);
  o.top_k = c.value("top_k", 0);
  o.top_p = c.value("top_p", 1.0);
  o.min_p = c.contains("min_p") && c.at("min_p").is_number() ? c.at("min_p").get<double>() : 0.0;
  o.repetition_penalty = c.value("repetition_penalty", 1.0);
  return o;
}

Generation Engine::generate(std::span<const int32_t> prompt, const GenerateOptions& options, const OnText& on_text) {
  return impl_->generate(prompt, options, on_text);
}
int Engine::context() const { return impl_->model.spec.max_context; }
std::string_view Engine::kernels() const { return impl_->device.backend->kernels(); }
std::string Engine::placement() const { return impl_->device.backend->placement(); }
int Engine::threads() const { return impl_->device.backend->threads(); }
int64_t Engine::bytes_per_token() const { return impl_->model.bytes_per_token(); }
int64_t Engine::kv_bytes(int positions) const { return impl_->kv->bytes_for(positions); }

}  // namespace awq
