#include "eval/task_score.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "text/python_text.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace awq {
namespace {

// Of equal values the first, as numpy's argmax.
size_t largest(std::span<const double> v) { return size_t(std::ranges::max_element(v) - v.begin()); }

double share_of_truths(const TaskItem& item, std::span<const Likelihood> of) {
  double all = 0, truths = 0;
  for (size_t i = 0; i < of.size(); ++i) {
    const double p = std::exp(of[i].log_likelihood);
    all += p;
    if (item.truths[i]) truths += p;
  }
  return truths / all;
}

}  // namespace

std::vector<double> choice_scores(const Task& task, const TaskItem& item, std::span<const Likelihood> of) {
  if (task.kind == TaskKind::completion) return {double(of[0].greedy), of[0].log_likelihood};
  if (task.truths) return {share_of_truths(item, of)};
  std::vector<double> plain, by_length;
  for (size_t i = 0; i < of.size(); ++i) {
    plain.push_back(of[i].log_likelihood);
    by_length.push_back(of[i].log_likelihood / double(utf8::length(item.choice(i))));
  }
  std::vector<double> scores = {double(largest(plain) == item.gold)};
  if (task.normalized) scores.push_back(double(largest(by_length) == item.gold));
  return scores;
}

std::vector<double> answer_scores(const TaskItem& item, std::string_view answer) {
  const std::string gold = comparable_answer(item.choice(0));
  return {double(comparable_answer(strict_number(answer)) == gold),
          double(comparable_answer(flexible_number(answer)) == gold)};
}

Estimate metric_of(std::string_view name, const std::vector<double>& items) {
  const double n = double(items.size());
  const double mean = std::accumulate(items.begin(), items.end(), 0.0) / n;
  double squares = 0;
  for (double x : items) squares += (x - mean) * (x - mean);
  const double error = n > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
  if (name != "perplexity") return {mean, error};
  return {std::exp(-mean), std::exp(-mean) * error};
}

Estimate pooled(std::span<const Estimate> parts, std::span<const size_t> items) {
  double all = 0, sum = 0, squares = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const double n = double(items[i]), e = parts[i].standard_error;
    all += n, sum += n * parts[i].value, squares += n * (n - 1) * e * e;
  }
  const double free = all - double(parts.size());
  return {sum / all, free > 0 ? std::sqrt(squares / free / all) : 0};
}

std::string strict_number(std::string_view answer) {
  static const Regex kNumber(R"(#### (\-?[0-9\.\,]+))");
  const auto matches = kNumber.find_all(answer);
  if (matches.empty()) return "[invalid]";
  constexpr size_t kMark = 5;  // "#### "
  const auto [begin, end] = matches.front();
  return std::string(answer.substr(begin + kMark, end - begin - kMark));
}

std::string flexible_number(std::string_view answer) {
  static const Regex kNumber(R"((-?[$0-9.,]{2,})|(-?[0-9]+))");
  const auto matches = kNumber.find_all(answer);
  if (matches.empty()) return "[invalid]";
  return std::string(answer.substr(matches.back().first, matches.back().second - matches.back().first));
}

std::string comparable_answer(std::string_view answer) {
  std::string s(answer);
  std::erase_if(s, [](char c) { return c == ',' || c == '$'; });
  constexpr std::string_view kMark = "#### ";
  if (const size_t at = s.rfind(kMark); at != std::string::npos) s.erase(0, at + kMark.size());
  if (s.ends_with('.')) s.pop_back();
  return python::lower(s);
}

}  // namespace awq
