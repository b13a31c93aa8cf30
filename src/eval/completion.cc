#include "eval/completion.h"

#include "engine/sampler.h"

namespace awq {
namespace {

struct Answer {
  std::unique_ptr<KvCache> kv;
  int position = 0;
  std::vector<int32_t> tokens{};
  std::string text{};
  bool ended = false;
};

void append(Answer& a, int32_t token, const TextSide& side, const CompletionLimits& limits) {
  if (a.ended = side.ends(token); a.ended) return;
  a.tokens.push_back(token);
  a.text = side.tokenizer().decode(a.tokens, true);
  for (const std::string& stop : limits.stops)
    if (const size_t at = a.text.find(stop); at != std::string::npos) a.text.resize(at), a.ended = true;
  a.ended = a.ended || int(a.tokens.size()) >= limits.tokens;
}

/// A token of each answer that goes on.
void step(Device& device, const Model& model, std::span<Answer* const> going, const TextSide& side,
          const CompletionLimits& limits) {
  std::vector<Sequence> batch;
  std::vector<int32_t> last;
  for (Answer* a : going) {
    batch.push_back({a->kv.get(), a->position++, 1});
    last.push_back(a->tokens.back());
  }
  const Tensor logits = step_logits(*device.backend, model, last, batch);
  const auto vocab = size_t(logits.shape()[1]);
  for (size_t i = 0; i < going.size(); ++i)
    append(*going[i], likeliest(logits.as<float>().subspan(i * vocab, vocab)), side, limits);
}

}  // namespace

std::vector<std::string> complete(Device& device, const Model& model, const TextSide& text,
                                  std::span<const std::vector<int32_t>> prompts, const CompletionLimits& limits,
                                  DType kv) {
  std::vector<Answer> answers;
  for (const auto& p : prompts) {
    Answer& a = answers.emplace_back(Answer{device.backend->kv_cache(model.spec.blocks, kv), int(p.size())});
    append(a, likeliest(prefill(*device.backend, model, *a.kv, 0, p).as<float>()), text, limits);
  }
  while (true) {
    std::vector<Answer*> going;
    for (Answer& a : answers)
      if (!a.ended) going.push_back(&a);
    if (going.empty()) break;
    step(device, model, going, text, limits);
  }
  std::vector<std::string> texts;
  for (Answer& a : answers) texts.push_back(std::move(a.text));
  return texts;
}

}  // namespace awq
