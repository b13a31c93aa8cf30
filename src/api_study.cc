// awq::study: which changes each study compares, and its table.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "api_calibration.h"
#include "api_evaluate.h"
#include "api_format.h"
#include "api_group_size.h"
#include "eval/study.h"
#include "formats/context.h"
#include "quantizer/quantize.h"

namespace awq {
namespace {

/// What a study is made of, for one calibration.
struct Plan {
  const ModelSpec& model;
  const StudyOptions& options;
  QuantSpec spec;
  int calibration = 0;     // its number
  std::string label = "";  // what rows say of it
  std::vector<StudyRow> rows{};
  std::vector<std::unique_ptr<Change>> changes{};
  std::vector<std::string> warnings{};

  void add(std::string name, const QuantSpec& s, std::unique_ptr<Change> change) {
    rows.push_back({.name = std::move(name),
                    .bits = s.bits,
                    .group_size = s.group_size,
                    .kl = {},
                    .top1 = {},
                    .difference = {},
                    .calibration = calibration});
    changes.push_back(std::move(change));
  }
  void add(std::string name, std::unique_ptr<Change> change) { add(std::move(name), spec, std::move(change)); }
  std::vector<std::string> methods_or(std::vector<std::string> standard) const {
    return options.methods.empty() ? standard : options.methods;
  }
};

/// What has a name here and is no method of `quantize`: the variants of awq, and rivals that no format holds.
struct Contender {
  std::string_view name;
  std::unique_ptr<Change> (*make)(const QuantSpec&);
  int bits;           // of weights; 0: as asked
  bool rows = false;  // groups are whole rows
};
constexpr std::array kContenders = {
    Contender{"llm-awq", [](const QuantSpec& s) { return by_method(make_method("awq", "llm-awq"), s); }, 0},
    Contender{"autoawq", [](const QuantSpec& s) { return by_method(make_method("awq", "autoawq"), s); }, 0},
    Contender{"llm-compressor", [](const QuantSpec& s) { return by_method(make_method("awq", "llm-compressor"), s); },
              0},
    Contender{"nf4", [](const QuantSpec& s) { return nf4(s.group_size); }, 4},
    Contender{"smoothquant-w8a8", [](const QuantSpec&) { return smoothquant(); }, 8, true},
    Contender{"w4a4", [](const QuantSpec&) { return w4a4(false); }, 4, true},
    Contender{"quarot-w4a4", [](const QuantSpec&) { return w4a4(true); }, 4, true},
};

void require_known(const std::string& method) {
  const auto known = study_methods();
  if (std::ranges::find(known, method) == known.end())
    fail("study", "--methods {}: there is no such method; there are {}", method, fmt::join(known, ", "));
}

/// `strictly`: one that has other bits than `spec` is left out.
void add_contender(Plan& plan, const std::string& name, QuantSpec spec, const std::string& label, bool strictly) {
  require_known(name);
  for (const Contender& c : kContenders) {
    if (c.name != name) continue;
    if (strictly && c.bits && c.bits != spec.bits)
      return plan.warnings.push_back(fmt::format("{} has {} bits, not {}: left out", name, c.bits, spec.bits));
    if (c.bits) spec.bits = c.bits;
    if (c.rows) spec.group_size = QuantSpec::kWholeRow;
    return plan.add(label, spec, c.make(spec));
  }
  plan.add(label, spec, by_method(find_method(name).make(), spec));
}

void plan_salient(Plan& p) {
  p.add("rounded", keeping_salient(p.spec, Salience::random, 0));
  for (const double share : {0.001, 0.01, 0.03})
    for (const auto& [name, by] : {std::pair("random", Salience::random),
                                   {"by weight norm", Salience::weight_norm},
                                   {"by activation", Salience::activation}})
      p.add(fmt::format("{:g} % of channels float, {}", share * 100, name), keeping_salient(p.spec, by, share));
  for (const float factor : {1.25f, 1.5f, 2.f, 4.f})
    p.add(fmt::format("1 % by activation scaled by {:g}", factor), scaling_salient(p.spec, 0.01, factor));
}

void plan_alpha(Plan& p) {
  p.add("no scales", scaling_by(p.spec, {}));
  for (const bool weight_term : {false, true})
    for (int i = weight_term ? 0 : 1; i <= 4; ++i) {
      const Candidate c{float(i) / 4, weight_term};
      const std::string of_weights = weight_term ? fmt::format(" / w^{:g}", 1 - c.ratio) : "";
      p.add(fmt::format("m^{:g}{}", c.ratio, of_weights), scaling_by(p.spec, c));
    }
  p.add("awq: searched, and clipped", by_method(find_method("awq").make(), p.spec));
}

void plan_clip(Plan& p) {
  for (const Candidate c : {Candidate{}, Candidate{0.5f, false}})
    for (const auto& [name, steps] : {std::pair("not clipped", RangeSteps{1, 0}),
                                      {"both ends, to 0.5", RangeSteps{11, 0, 11}},
                                      {"both, then each end", RangeSteps{}}})
      p.add(fmt::format("{}, {}", c.identity() ? "no scales" : "m^0.5", name), clipping(p.spec, c, steps));
}

void plan_groups(Plan& p) {
  for (const int g : {32, 64, 128, QuantSpec::kWholeRow}) {
    if (g > 0 && !group_fits(p.model, g)) {
      p.warnings.push_back(fmt::format("{} do not divide every width of this model: left out", text_of_group(g)));
      continue;
    }
    QuantSpec spec = p.spec;
    spec.group_size = g;
    for (const std::string& m : p.methods_or({"rtn", "awq"}))
      add_contender(p, m, spec, fmt::format("{}, {}", m, text_of_group(g)), true);
  }
}

void plan_bits(Plan& p) {
  for (const int bits : {2, 3, 4, 8}) {
    QuantSpec spec = p.spec;
    spec.bits = bits;
    for (const std::string& m : p.methods_or({"rtn", "awq"}))
      add_contender(p, m, spec, fmt::format("{}, {} bits", m, bits), true);
  }
}

void plan_methods(Plan& p) {
  std::vector<std::string> all;
  for (const MethodEntry& m : methods()) all.emplace_back(m.name);
  for (const Contender& c : kContenders) all.emplace_back(c.name);
  for (const std::string& m : p.methods_or(all)) add_contender(p, m, p.spec, m, p.options.bits != 0);
}

void plan_calibration(Plan& p) {
  for (const std::string& m : p.methods_or({"awq", "gptq", "awq+"}))
    add_contender(p, m, p.spec, fmt::format("{}, {}", m, p.label), p.options.bits != 0);
}

struct Study {
  std::string_view name, summary;
  int bits;  // where none are asked for; 0: it varies them
  bool has_methods;
  void (*plan)(Plan&);
  bool has_counts = false;  // one calibration for each source and each number of sequences
};
constexpr std::array kStudies = {
    Study{"salient", "some channels stay float, or are scaled: at random, by weight norm, by activation", 3, false,
          plan_salient},
    Study{"alpha", "scales m^a of activations for all layers, with and without weights", 3, false, plan_alpha},
    Study{"clip", "how far ranges may shrink", 3, false, plan_clip},
    Study{"groups", "groups of 32, 64, 128 and whole rows", 4, true, plan_groups},
    Study{"bits", "2, 3, 4 and 8 bits", 0, true, plan_bits},
    Study{"calibration", "each --calib by itself, and numbers of sequences", 4, true, plan_calibration, true},
    Study{"methods", "every method, other programs' AWQ, and rivals that no format here holds", 4, true, plan_methods},
};

const Study& find_study(std::string_view name) {
  std::string known;
  for (const Study& s : kStudies) {
    if (s.name == name) return s;
    known += (known.empty() ? "" : ", ") + std::string(s.name);
  }
  fail("study", "\"{}\" is no study; there are {}", name, known);
}

QuantSpec spec_of(const Study& s, const StudyOptions& o, const ModelSpec& model) {
  const int bits = o.bits ? o.bits : s.bits;
  if (!s.bits && bits) fail("study", "--bits {}: the study \"{}\" varies them; leave it out", bits, s.name);
  if (s.bits && bits != 2 && bits != 3 && bits != 4 && bits != 8)
    fail("study", "--bits {}: expected 2, 3, 4 or 8", bits);
  if (s.name == "groups" && o.group_size)
    fail("study", "--group-size {}: the study \"groups\" varies it; leave it out", o.group_size);
  if (!s.has_methods && !o.methods.empty())
    fail("study", "--methods: the study \"{}\" compares no methods; leave it out", s.name);
  QuantSpec spec{.bits = bits ? bits : 4, .scale_dtype = scale_type("study", o.scales), .symmetric = o.symmetric};
  spec.group_size = s.name == "groups" ? QuantSpec::kWholeRow : choose_group_or_rows(model, o.group_size, "study").size;
  return spec;
}

void check_windows(const StudyOptions& o, const Checkpoint& source) {
  if (o.windows < 1 || o.window < 2)
    fail("study", "{} windows of {} tokens: expected at least one of two", o.windows, o.window);
  require_context(source, "study", fmt::format("--window {}", o.window), o.window);
}

void set_scores(const std::vector<WindowScore>& scores, const std::vector<WindowScore>& first, StudyRow& row) {
  std::vector<double> nll, kl, top1, difference;
  for (size_t i = 0; i < scores.size(); ++i) {
    nll.push_back(scores[i].nll);
    kl.push_back(scores[i].kl);
    top1.push_back(scores[i].top1);
    difference.push_back(scores[i].kl - first[i].kl);
  }
  row.kl = mean_of(kl), row.top1 = mean_of(top1), row.difference = mean_of(difference);
  row.perplexity = std::exp(mean_of(nll).value);
  row.perplexity_error = row.perplexity * mean_of(nll).standard_error;
}

}  // namespace

namespace {

constexpr std::array kCounts = {4, 16, 64};

/// Each source by itself. Fewer sequences than a count are one calibration of all that there are.
std::vector<CalibrationSet> calibrations(Device& device, const Checkpoint& source, const StudyOptions& o,
                                         const OnProgress& progress) {
  std::vector<int> counts = o.counts;
  if (counts.empty()) counts.assign(kCounts.begin(), kCounts.end());
  std::ranges::sort(counts);
  std::vector<CalibrationSet> sets;
  std::vector<std::vector<CalibrationSource>> each;
  for (const CalibrationSource& s : o.quantize.calibration) each.push_back({s});
  if (each.empty()) each.emplace_back();  // the model's own
  for (const auto& text : each)
    for (const int count : counts) {
      QuantizeOptions one = o.quantize;
      one.calibration = text, one.samples = count;
      sets.push_back(calibration_set(device, source, one, progress));
      if (sets.back().report.sequences < count) break;
    }
  return sets;
}

std::vector<CalibrationSet> calibrations(const Study& s, Device& device, const Checkpoint& source,
                                         const StudyOptions& o, const OnProgress& progress) {
  if (s.has_counts) return calibrations(device, source, o, progress);
  std::vector<CalibrationSet> one;
  one.push_back(calibration_set(device, source, o.quantize, progress));
  return one;
}

void check_counts(const Study& s, const StudyOptions& o) {
  if (!s.has_counts && !o.counts.empty())
    fail("study", "--counts: the study \"{}\" has one calibration, of --samples; leave it out", s.name);
  if (s.has_counts && o.quantize.samples)
    fail("study", "--samples {}: the study \"{}\" varies them; give --counts", o.quantize.samples, s.name);
  std::vector<int> sorted = o.counts;
  std::ranges::sort(sorted);
  if (!sorted.empty() && (sorted.front() < 1 || std::ranges::adjacent_find(sorted) != sorted.end()))
    fail("study", "--counts {}: expected different numbers of sequences, 1 or more", fmt::join(o.counts, ","));
}

std::string label_of(const CalibrationReport& r) {
  return fmt::format("{} x {} of {}", r.sequences, r.sequence_tokens, r.source);
}

}  // namespace

std::vector<StudyInfo> studies() {
  std::vector<StudyInfo> all;
  for (const Study& s : kStudies) all.push_back({s.name, s.summary});
  return all;
}

std::vector<std::string_view> study_methods() {
  std::vector<std::string_view> all;
  for (const MethodEntry& m : methods()) all.push_back(m.name);
  for (const Contender& c : kContenders) all.push_back(c.name);
  return all;
}

StudyReport study(const std::filesystem::path& path, std::string_view name, const StudyOptions& options,
                  const OnProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const Study& which = find_study(name);
  StudyOptions o = options;
  check_counts(which, o);
  const std::unique_ptr<Checkpoint> source = Checkpoint::open(path);
  require_cpu(o.quantize.device, "study");
  Device device(o.quantize.device);
  complete_calibration(o.quantize, *source, "study");
  check_windows(o, *source);
  Plan first{source->spec(), o, spec_of(which, o, source->spec())};
  which.plan(first);  // throws for what cannot be studied, before any work
  const std::vector<int32_t> windows =
      o.text.empty() ? held_out_text(device, *source, o.quantize, o.windows, o.window, "study", progress)
                     : windows_of(o.text, *source, o.windows, o.window);
  const std::vector<CalibrationSet> sets = calibrations(which, device, *source, o, progress);
  StudyReport r{.rows = {}, .warnings = first.warnings, .calibrations = {}, .text = {}};
  r.rows.push_back({.name = "float", .kl = {}, .top1 = {}, .difference = {}});
  std::vector<StudyPart> parts;
  for (const CalibrationSet& set : sets) {
    Plan plan{source->spec(), o, first.spec, int(parts.size()), label_of(set.report)};
    which.plan(plan);
    r.rows.insert(r.rows.end(), plan.rows.begin(), plan.rows.end());
    parts.push_back({set.sequences, {.counted = set.counted}, std::move(plan.changes)});
    r.warnings.insert(r.warnings.end(), set.warnings.begin(), set.warnings.end());
    r.calibrations.push_back(set.report);
  }
  const auto scores = study({.source = *source,
                             .parts = parts,
                             .windows = windows,
                             .window = o.window,
                             .device = device,
                             .progress = [&](int done, int total) {
                               if (progress && !progress({"study", done, total})) throw Cancelled();
                             }});
  for (size_t i = 0; i < scores.size(); ++i)
    set_scores(scores[i], scores[std::min<size_t>(1, scores.size() - 1)], r.rows[i]);
  r.text = o.text.empty() ? "self" : o.text.filename().string();
  r.windows = int(windows.size() / size_t(o.window)), r.window = o.window;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace awq
