// Long answers of versions of a model side by side.
#include "api_answers.h"

#include "api_evaluate.h"
#include "eval/repetition.h"
#include "eval/task_score.h"
#include "formats/context.h"

namespace awq {
namespace {

constexpr size_t kTogether = 16;  // prompts that are written on at once, whose keys and values are in memory

/// The number that the text ends with, as answers are compared; empty where it has none.
std::string last_number(std::string_view text) {
  const std::string number = flexible_number(text);
  return number == "[invalid]" ? "" : comparable_answer(number);
}

Estimate mean_over(const std::vector<LongAnswer>& answers, double (*of)(const LongAnswer&)) {
  std::vector<double> values;
  for (const LongAnswer& a : answers) values.push_back(of(a));
  return mean_of(values);
}

std::optional<Estimate> agreement_of(const std::vector<LongAnswer>& answers) {
  std::vector<double> values;
  for (const LongAnswer& a : answers)
    if (a.agrees) values.push_back(double(*a.agrees));
  if (values.empty()) return {};
  return mean_of(values);
}

}  // namespace

AnswerJob::AnswerJob(const AnswerOptions& o) : o_(o) {
  if (o.tokens < 1) fail("compare", "--answer-tokens {}: expected at least 1", o.tokens);
  if (!(o.temperature > 0)) fail("compare", "--answer-temperature {}: expected more than 0", o.temperature);
  prompts_ = o.file.empty() ? built_in_prompts(o.prompts) : read_prompts(o.file);
  if (o.prompts && size_t(o.prompts) < prompts_.size()) prompts_.resize(size_t(o.prompts));
}

void AnswerJob::encode(const Checkpoint& original) {
  text_.emplace(original);
  for (size_t i = 0; i < prompts_.size(); ++i) {
    tokens_.push_back(encode_prompt(prompts_[i], *text_));
    if (tokens_.back().empty())
      fail("compare", "prompt {} of the answers has no token in this model's vocabulary", i + 1);
    require_context(original, "compare", fmt::format("prompt {} with --answer-tokens {}", i + 1, o_.tokens),
                    int64_t(tokens_.back().size()) + o_.tokens);
  }
}

std::vector<LongAnswers> AnswerJob::run(Device& device, const Checkpoint& checkpoint, const Model& model,
                                        std::string_view kv, const OnProgress& progress) {
  const bool first = original_.empty();
  if (first) encode(checkpoint);
  std::vector<LongAnswers> all;
  for (const double temperature : {0.0, o_.temperature}) {
    const ContinuationOptions how{.tokens = o_.tokens, .temperature = temperature, .seed = o_.seed};
    Texts texts = write(device, model, how, first ? DType::f32 : kv_type(kv, DType::f32), progress);
    if (first) original_.push_back(texts);
    all.push_back(judged(texts, original_[all.size()], how));
  }
  return all;
}

AnswerJob::Texts AnswerJob::write(Device& device, const Model& model, const ContinuationOptions& how, DType kv,
                                  const OnProgress& progress) const {
  Texts texts;
  for (size_t at = 0; at < tokens_.size(); at += kTogether) {
    const auto some = std::span(tokens_).subspan(at, std::min(kTogether, tokens_.size() - at));
    ContinuationOptions these = how;
    these.seed += at;
    for (Continuation& c : continuations(device, model, *text_, some, these, kv, [&](int step) {
           const int done = int(at) * o_.tokens + step * int(some.size());
           if (progress && !progress({"answer", done, int(tokens_.size()) * o_.tokens})) throw Cancelled();
         }))
      texts.push_back(std::move(c));
  }
  return texts;
}

LongAnswers AnswerJob::judged(const Texts& texts, const Texts& original, const ContinuationOptions& how) const {
  LongAnswers r{
      .mode = how.temperature > 0 ? "sampled" : "greedy", .limit = how.tokens, .temperature = how.temperature};
  for (size_t i = 0; i < texts.size(); ++i) r.answers.push_back(judged(i, texts[i], original[i]));
  r.same = mean_over(r.answers, [](const LongAnswer& a) { return double(a.same); });
  r.repetition = mean_over(r.answers, [](const LongAnswer& a) { return a.repetition; });
  r.length_ratio = mean_over(r.answers, [](const LongAnswer& a) { return a.length_ratio; });
  r.identical = mean_over(r.answers, [](const LongAnswer& a) { return double(a.identical); });
  r.agreement = agreement_of(r.answers);
  return r;
}

// Without the token that ends it, which is no text where the tokenizer does not call it special.
std::string AnswerJob::text_of(const Continuation& c) const { return text_->tokenizer().decode(c.text_tokens(), true); }

LongAnswer AnswerJob::judged(size_t prompt, const Continuation& c, const Continuation& original) const {
  const AnswerPrompt& p = prompts_[prompt];
  LongAnswer a{.prompt = p.text,
               .kind = p.kind,
               .text = text_of(c),
               .tokens = int(c.tokens.size()),
               .ended = c.ended,
               .same = int(same_tokens(c.tokens, original.tokens)),
               .identical = c.tokens == original.tokens,
               .repetition = repetition(c.tokens),
               .length_ratio = double(c.tokens.size()) / double(original.tokens.size()),
               .agrees = {}};
  const std::string expected = last_number(text_of(original));
  if (p.kind == "reasoning" && !expected.empty()) a.agrees = last_number(a.text) == expected;
  return a;
}

}  // namespace awq
