#pragma once
#include "awq/awq.h"
#include "formats/format.h"

namespace awq {

struct Bits {
  uint64_t bytes = 0;   // of all tensors
  int64_t weights = 0;  // parameters, whatever they are stored in
  double per_weight() const { return weights ? double(bytes) * 8 / double(weights) : 0; }
};
Bits bits_of(const Checkpoint& c);
/// Numbers in the tensors of parts that are not the language.
int64_t carried_elements(const Checkpoint& c);

/// As compare() of a text that is these tokens, cut into options.window each.
std::vector<EvaluateReport> compare_tokens(const std::filesystem::path& original,
                                           std::span<const std::filesystem::path> models,
                                           std::span<const int32_t> tokens, const EvaluateOptions& options,
                                           const OnProgress& progress);
/// The text's tokens as evaluate() cuts them. Throws Error if they are fewer than a window.
std::vector<int32_t> tokens_of_text(const Checkpoint& model, std::string_view text, const EvaluateOptions& o);
/// Tokens of the first `windows` windows of a text file or .jsonl, or of as many as it has, one at least.
std::vector<int32_t> windows_of(const std::filesystem::path& file, const Checkpoint& source, int windows, int window);
/// Mean, and its standard error.
Estimate mean_of(const std::vector<double>& v);

}  // namespace awq
