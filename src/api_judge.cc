#include "api_judge.h"

#include "api_calibration.h"
#include "api_evaluate.h"
#include "engine/continuation.h"
#include "io/file.h"
#include "quantizer/prompts.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
constexpr int kWindow = 512, kAnswerTokens = 48;

EvaluateOptions evaluation(const Checkpoint& source, const QuantizeOptions& o) {
  EvaluateOptions e;
  e.window = gate_window(source.spec()), e.windows = kGateWindows;
  if (o.gate_text.extension() == ".jsonl") e.json_lines = o.gate_text.string();
  e.device = o.device;
  return e;
}

std::vector<std::string> missed(const EvaluateReport& r, const QuantizeOptions& o) {
  std::vector<std::string> words;
  if (o.max_kl && !(r.kl->value <= *o.max_kl))
    words.push_back(fmt::format("KL to the original {:.5f} is above --max-kl {:g}", r.kl->value, *o.max_kl));
  if (o.min_top1 && !(r.top1->value >= *o.min_top1))
    words.push_back(fmt::format("top-1 agreement {:.4f} is below --min-top1 {:g}", r.top1->value, *o.min_top1));
  return words;
}

/// A built-in prompt and its tokens, cut to half of the model's context.
struct Opening {
  std::string_view prompt;
  std::vector<int32_t> tokens;
};

// One that the tokenizer has no token for is left out.
std::vector<Opening> openings(const Checkpoint& source, int prompts) {
  const TextSide text(source);
  std::vector<Opening> all;
  for (const CalibrationPrompt& p : calibration_prompts().first(size_t(prompts))) {
    all.push_back({p.text, opening(p, text)});
    std::vector<int32_t>& t = all.back().tokens;
    t.resize(std::min(t.size(), size_t(source.spec().max_context / 2)));
    if (t.empty()) all.pop_back();
  }
  return all;
}

std::vector<std::string> answers_of(Device& device, const Checkpoint& checkpoint, const std::vector<Opening>& openings,
                                    const OnProgress& progress) {
  const TextSide text(checkpoint);
  const Model model = load_model(*device.backend, checkpoint, [&](int done, int total) {
    if (progress && !progress({"load", done, total})) throw Cancelled();
  });
  const int most = std::min(kAnswerTokens, model.spec.max_context / 2);
  std::vector<std::vector<int32_t>> prompts;
  for (const Opening& o : openings) prompts.push_back(o.tokens);
  std::vector<std::string> answers;
  for (const Continuation& c : continuations(device, model, text, prompts, {.tokens = most}, kCacheType, [&](int done) {
         if (progress && !progress({"answer", done, most})) throw Cancelled();
       }))
    answers.push_back(text.tokenizer().decode(c.text_tokens()));
  return answers;
}

}  // namespace

int gate_window(const ModelSpec& spec) { return std::min(kWindow, spec.max_context); }

std::vector<int32_t> gate_tokens(const Checkpoint& source, const QuantizeOptions& o) {
  EvaluateOptions e = evaluation(source, o);
  e.window = 1;
  std::vector<int32_t> tokens = tokens_of_text(source, read_text(o.gate_text), e);
  if (const int window = gate_window(source.spec()); tokens.size() < size_t(window))
    fail("quantize", "--gate-text {}: the text has {} tokens, but one window needs {}; give a longer text",
         o.gate_text.string(), tokens.size(), window);
  return tokens;
}

GateReport measure_gate(Device& device, const Checkpoint& source, const fs::path& original, const fs::path& quantized,
                        const QuantizeOptions& o, const OnProgress& progress) {
  const EvaluateOptions e = evaluation(source, o);
  const std::vector<int32_t> tokens = o.gate_text.empty()
                                          ? held_out_text(device, source, o, e.windows, e.window, "quantize", progress)
                                          : gate_tokens(source, o);
  const EvaluateReport r = compare_tokens(original, {&quantized, 1}, tokens, e, progress).back();
  return {.text = o.gate_text.empty() ? "self" : o.gate_text.filename().string(),
          .windows = r.windows,
          .window = r.window,
          .kl = *r.kl,
          .top1 = *r.top1,
          .missed = missed(r, o)};
}

std::vector<AnswerReport> both_answer(Device& device, const Checkpoint& source, const fs::path& quantized,
                                      const QuantizeOptions& o, const OnProgress& progress) {
  const std::vector<Opening> prompts = openings(source, o.answers);
  const std::vector<std::string> before = answers_of(device, source, prompts, progress),
                                 after = answers_of(device, *Checkpoint::open(quantized), prompts, progress);
  std::vector<AnswerReport> answers;
  for (size_t i = 0; i < prompts.size(); ++i) answers.push_back({std::string(prompts[i].prompt), before[i], after[i]});
  return answers;
}

}  // namespace awq
