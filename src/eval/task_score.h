#pragma once
#include "awq/awq.h"
#include "eval/likelihood.h"
#include "eval/task.h"

namespace awq {

/// What an item counts, in the order of metrics_of(). "perplexity" is the log-likelihood, over which it is taken.
std::vector<double> choice_scores(const Task& task, const TaskItem& item, std::span<const Likelihood> of);
std::vector<double> answer_scores(const TaskItem& item, std::string_view answer);

/// Mean over items with its standard error, sqrt(sum (x - mean)^2 / (n - 1) / n); of "perplexity" exp(-mean), whose
/// error is that of the mean times the value.
Estimate metric_of(std::string_view name, const std::vector<double>& items);
/// Of a task in parts, as lm-eval has it of groups: every item counts alike, and the error is that of the pooled
/// variance of k parts, sqrt(sum n_i (n_i - 1) e_i^2 / (N - k) / N), N all items.
Estimate pooled(std::span<const Estimate> parts, std::span<const size_t> items);

/// The number that follows "#### ", and the last number of a text; "[invalid]" where there is none.
std::string strict_number(std::string_view answer);
std::string flexible_number(std::string_view answer);
/// As answers are compared: without commas, dollar signs, what stands before "#### ", one full stop at the end, case.
std::string comparable_answer(std::string_view answer);

}  // namespace awq
