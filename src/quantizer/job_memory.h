#pragma once
#include "quantizer/quantize.h"

namespace awq {

/// What a job will have in memory, in bytes, beside `base`: from shapes and types alone. The stages follow each other.
struct JobMemory {
  int64_t base = 0;   // the process before the job begins
  int64_t read = 0;   // texts are read and tokenized
  int64_t text = 0;   // the model writes text, for calibration or to be measured on; 0 where it is given one
  int64_t weigh = 0;  // tokens are weighed; 0 where all count alike
  int64_t kept = 0;   // all layers are measured, to keep some in 16 bits; 0 where none are
  int64_t outer = 0;  // embedding or head, as they are written
  int64_t load = 0;   // a block, while the one before it is written
  int64_t judge = 0;  // both models, measured or answering; 0 where they do neither
  int64_t forward = 0, search = 0, clip = 0, check = 0;  // of a block
  int64_t peak() const;
};

struct JobShape {
  const Checkpoint& source;
  const Backend& dev;
  QuantSpec spec;
  std::optional<DType> running{};  // running_type()
  std::optional<QuantSpec> head{};
  bool calibrated = true;                         // by a method that looks at activations
  bool folds = true;                              // by one that scales channels
  std::function<int64_t(int64_t cols)> extra{};   // Method::extra_bytes; none: no bytes
  int64_t tokenizer_bytes = 0, largest_text = 0;  // of files
  int sequences = 0, length = 0;                  // of calibration
  int text_sequences = 0, text_length = 0;        // of text that the model writes, so many sequences together
  bool gated = false;                             // the result is measured against the original
  int answers = 0;                                // prompts that both answer
  bool weighs = false;                            // tokens
  bool keeps = false;                             // some layers in 16 bits, chosen by measuring all
  int text_batch = 32;
  CalibrationOptions calibration;
};
JobMemory memory_of(const JobShape& job);
int64_t scratch_bytes(const JobShape& job);

}  // namespace awq
