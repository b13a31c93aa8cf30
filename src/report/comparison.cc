#include "report/comparison.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/chart.h"
#include "report/html.h"
#include "report/page.h"

namespace awq {
namespace {

using Cells = std::vector<std::string>;

std::string with_error(double value, double error, int digits) {
  return fmt::format("{:.{}f} ± {:.{}f}", value, digits, error, digits);
}
std::string share_text(const Estimate& e) {
  return fmt::format("{:.1f} ± {:.1f} %", 100 * e.value, 100 * e.standard_error);
}
std::string metric_text(const TaskMetric& m) {
  return m.name == "perplexity" ? with_error(m.value.value, m.value.standard_error, 2) : share_text(m.value);
}

/// What a table shows of each model, in order.
struct TextTable {
  Cells heads;
  std::vector<Cells> rows;
};

std::string per_second(const Spread& s) {
  return fmt::format("{:.1f} ({:.1f} to {:.1f})", s.median, s.lowest, s.highest);
}

void add_speed(const SpeedReport& s, Cells& row) {
  row.push_back(per_second(s.prefill));
  row.push_back(per_second(s.decode));
  row.push_back(amount(double(s.weight_memory)));
  row.push_back(s.peak_memory ? amount(double(*s.peak_memory)) : "-");
}

TextTable models_grid(const ComparisonReport& r) {
  TextTable g{{"model", "size", "bits/weight"}, {}};
  const ComparedModel& first = r.models.front();
  if (first.text)
    for (const char* h : {"perplexity", "KL", "reverse KL", "top-1", "top-5"}) g.heads.push_back(h);
  for (const TaskReport& t : first.tasks)
    for (const TaskMetric& m : t.metrics) g.heads.push_back(t.task + " " + m.name);
  if (first.speed)
    for (const char* h : {"prefill tokens/s", "decode tokens/s", "weights in memory", "peak memory"})
      g.heads.push_back(h);
  for (const ComparedModel& m : r.models) {
    Cells row = {m.name, amount(double(m.bytes)), fmt::format("{:.2f}", m.bits_per_weight)};
    if (m.text) {
      row.push_back(with_error(m.text->perplexity, m.text->perplexity_error, 3));
      row.push_back(m.text->kl ? with_error(m.text->kl->value, m.text->kl->standard_error, 4) : "-");
      row.push_back(m.text->kl ? with_error(m.text->reverse_kl->value, m.text->reverse_kl->standard_error, 4) : "-");
      row.push_back(m.text->kl ? share_text(*m.text->top1) : "-");
      row.push_back(m.text->kl ? share_text(*m.text->top5) : "-");
    }
    for (const TaskReport& t : m.tasks)
      for (const TaskMetric& metric : t.metrics) row.push_back(metric_text(metric));
    if (m.speed) add_speed(*m.speed, row);
    g.rows.push_back(std::move(row));
  }
  return g;
}

TextTable answers_grid(const ComparisonReport& r) {
  TextTable g{{"model", "mode", "same tokens", "identical", "same answer", "repetition", "length ratio"}, {}};
  for (const ComparedModel& m : r.models)
    for (const LongAnswers& a : m.answers)
      g.rows.push_back({m.name, a.mode, with_error(a.same.value, a.same.standard_error, 1), share_text(a.identical),
                        a.agreement ? share_text(*a.agreement) : "-", share_text(a.repetition),
                        with_error(a.length_ratio.value, a.length_ratio.standard_error, 2)});
  return g;
}

TextTable texts_grid(const ComparisonReport& r) {
  TextTable g{{"prompt", "mode", "model", "text", "same tokens", "tokens"}, {}};
  const auto& first = r.models.front().answers;
  for (size_t mode = 0; mode < first.size(); ++mode)
    for (size_t i = 0; i < first[mode].answers.size(); ++i)
      for (const ComparedModel& m : r.models) {
        const LongAnswer& a = m.answers[mode].answers[i];
        g.rows.push_back(
            {a.prompt, m.answers[mode].mode, m.name, a.text, fmt::format("{}", a.same), fmt::format("{}", a.tokens)});
      }
  return g;
}

std::string verdict(const PairedDifference& d) {
  if (!(d.p < 0.05)) return "no difference is shown";
  return d.better ? "better" : "worse";
}

TextTable differences_grid(const ComparisonReport& r) {
  TextTable g{{"model", "against", "metric", "difference", "95 % of resamples", "p", "pairs", "verdict"}, {}};
  for (const PairedDifference& d : r.differences)
    g.rows.push_back({d.model, d.other, d.metric, fmt::format("{:+.4f}", d.difference),
                      fmt::format("{:+.4f} to {:+.4f}", d.low, d.high), fmt::format("{:.4f}", d.p),
                      fmt::format("{}", d.pairs), verdict(d)});
  return g;
}

std::string basis(const ComparisonReport& r) {
  std::string s = "± is the standard error";
  if (const auto& t = r.models.front().text) s += fmt::format("; text: {} windows of {} tokens", t->windows, t->window);
  for (const TaskReport& t : r.models.front().tasks)
    s += fmt::format("; {}: {} items, {} shots", t.task, t.items, t.shots);
  if (const auto& v = r.models.front().speed)
    s += fmt::format("; speed: one sequence, a prompt of {} tokens and {} behind it, median of 3 (and their range)",
                     v->prefill_tokens, v->decode_tokens);
  for (const LongAnswers& a : r.models.front().answers)
    s += fmt::format("; {} answers: {} prompts, at most {} tokens, temperature {:g}", a.mode, a.answers.size(), a.limit,
                     a.temperature);
  return s + ".";
}

constexpr const char* kPaired =
    "Differences are of the same windows or items, by a bootstrap of the pairs; better or worse is said where p is "
    "below "
    "0.05. Many comparisons at once will show some by chance.";

std::string cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, 1, '\\');
  return text;
}

std::string markdown(const TextTable& g) {
  const auto line = [](const Cells& cells) {
    std::string s = "|";
    for (const std::string& c : cells) s += " " + cell(c) + " |";
    return s + "\n";
  };
  std::string s = line(g.heads) + line(Cells(g.heads.size(), "---"));
  for (const Cells& row : g.rows) s += line(row);
  return s;
}

std::string table(const TextTable& g, std::string_view caption, size_t words) {
  HtmlTable t(caption, g.heads, words);
  for (const Cells& row : g.rows) t.row(row);
  return t.html();
}

std::string size_against_kl(const ComparisonReport& r) {
  ScatterChart chart{.title = "KL to the original against size", .x = "MB", .points = {}};
  for (const ComparedModel& m : r.models)
    if (m.text && m.text->kl)
      chart.points.push_back({m.name, double(m.bytes) / 1e6, m.text->kl->value, m.text->kl->standard_error});
  return chart.points.empty() ? "" : "<figure>" + scatter_svg(chart, "size-kl") + "</figure>\n";
}

constexpr const char* kAboutAnswers =
    "Same tokens: before the first that is not the original's. Same answer: the last number of prompts that ask for "
    "one. Repetition: runs of four tokens that were there before. Length ratio: tokens by the original's.";

std::string answers_part(const ComparisonReport& r) {
  if (r.models.front().answers.empty()) return "";
  return "<p>" + escaped(kAboutAnswers) + "</p>\n" + table(answers_grid(r), "Answers", 2) +
         folded("What was written", table(texts_grid(r), "Answers in full", 4));
}

}  // namespace

std::string comparison_markdown(const ComparisonReport& r) {
  std::string s = markdown(models_grid(r)) + "\n" + basis(r) + "\n";
  if (!r.models.front().answers.empty()) s += "\n" + markdown(answers_grid(r)) + "\n" + kAboutAnswers + "\n";
  if (!r.differences.empty()) s += "\n" + markdown(differences_grid(r)) + "\n" + kPaired + "\n";
  return s;
}

std::string comparison_page(const ComparisonReport& r) {
  return fmt::format(
             "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<title>Comparison</title><style>{}</style></head>\n<body><main>\n<h1>Comparison</h1>\n"
             "<p class=\"quiet\">{} Made by awq {}.</p>\n",
             page_style(), escaped(basis(r)), version()) +
         size_against_kl(r) + table(models_grid(r), "Models", 1) + answers_part(r) +
         (r.differences.empty() ? ""
                                : "<p>" + escaped(kPaired) + "</p>\n" + table(differences_grid(r), "Differences", 3)) +
         "</main></body></html>\n";
}

}  // namespace awq
