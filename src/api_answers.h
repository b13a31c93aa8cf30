#pragma once
#include "awq/awq.h"
#include "engine/continuation.h"
#include "eval/answer_prompts.h"

namespace awq {

/// Has one model after the other write behind the same tokens. The first is the original, which the others are held
/// against.
class AnswerJob {
 public:
  /// Reads the prompts. Throws Error, naming what is wrong.
  explicit AnswerJob(const AnswerOptions& o);
  /// The original's tokenizer and template, and what ends its texts, are the others' too, which have its vocabulary.
  std::vector<LongAnswers> run(Device& device, const Checkpoint& checkpoint, const Model& model, std::string_view kv,
                               const OnProgress& progress);

 private:
  using Texts = std::vector<Continuation>;
  void encode(const Checkpoint& original);
  Texts write(Device& device, const Model& model, const ContinuationOptions& how, DType kv,
              const OnProgress& progress) const;
  std::string text_of(const Continuation& c) const;
  LongAnswers judged(const Texts& texts, const Texts& original, const ContinuationOptions& how) const;
  LongAnswer judged(size_t prompt, const Continuation& text, const Continuation& original) const;

  const AnswerOptions& o_;
  std::vector<AnswerPrompt> prompts_;
  std::vector<std::vector<int32_t>> tokens_;  // of each prompt
  std::optional<TextSide> text_;              // the original's
  std::vector<Texts> original_;               // greedy, then sampled
};

}  // namespace awq
