// awq::study: which changes each study compares, and its table.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "api_calibration.h"
#include "api_evaluate.h"
#include "api_group_size.h"
#include "eval/study.h"
#include "formats/context.h"
#include "quantizer/quantize.h"

namespace awq {
namespace {

using Named = std::pair<StudyRow, std::unique_ptr<Change>>;

/// What a study is made of.
struct Plan {
  const ModelSpec& model;
  const StudyOptions& options;
  QuantSpec spec;
  std::vector<Named> changes{};
  std::vector<std::string> warnings{};

  void add(std::string name, const QuantSpec& s, std::unique_ptr<Change> change) {
    changes.emplace_back(StudyRow{.name = std::move(name),
                                  .bits = s.bits,
                                  .group_size = s.group_size,
                                  .kl = {},
                                  .top1 = {},
                                  .difference = {}},
                         std::move(change));
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

std::string text_of_group(int g) { return g == QuantSpec::kWholeRow ? "whole rows" : fmt::format("groups of {}", g); }

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

struct Study {
  std::string_view name, summary;
  int bits;  // where none are asked for; 0: it varies them
  bool has_methods;
  void (*plan)(Plan&);
};
constexpr std::array kStudies = {
    Study{"salient", "some channels stay float, or are scaled: at random, by weight norm, by activation", 3, false,
          plan_salient},
    Study{"alpha", "scales m^a of activations for all layers, with and without weights", 3, false, plan_alpha},
    Study{"clip", "how far ranges may shrink", 3, false, plan_clip},
    Study{"groups", "groups of 32, 64, 128 and whole rows", 4, true, plan_groups},
    Study{"bits", "2, 3, 4 and 8 bits", 0, true, plan_bits},
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

DType scale_type(const std::string& name) {
  if (name == "f16") return DType::f16;
  if (name == "bf16") return DType::bf16;
  fail("study", "--scales {}: expected f16 or bf16", name);
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
  QuantSpec spec{.bits = bits ? bits : 4, .scale_dtype = scale_type(o.scales), .symmetric = o.symmetric};
  spec.group_size = o.group_size == QuantSpec::kWholeRow || s.name == "groups"
                        ? QuantSpec::kWholeRow
                        : choose_group(model, o.group_size, "study").size;
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
  const std::unique_ptr<Checkpoint> source = Checkpoint::open(path);
  Device device(o.quantize.device);
  complete_calibration(o.quantize, *source, "study");
  check_windows(o, *source);
  Plan plan{source->spec(), o, spec_of(which, o, source->spec())};
  which.plan(plan);
  const std::vector<int32_t> windows =
      o.text.empty() ? held_out_text(device, *source, o.quantize, o.windows, o.window, "study", progress)
                     : windows_of(o.text, *source, o.windows, o.window);
  const CalibrationSet calibration = calibration_set(device, *source, o.quantize, progress);
  StudyReport r{.rows = {}, .warnings = plan.warnings, .calibration = calibration.report, .text = {}};
  r.rows.push_back({.name = "float", .kl = {}, .top1 = {}, .difference = {}});
  std::vector<std::unique_ptr<Change>> changes;
  for (Named& n : plan.changes) r.rows.push_back(n.first), changes.push_back(std::move(n.second));
  const auto scores = study({.source = *source,
                             .sequences = calibration.sequences,
                             .calibration = {.counted = calibration.counted},
                             .windows = windows,
                             .window = o.window,
                             .changes = changes,
                             .device = device,
                             .progress = [&](int done, int total) {
                               if (progress && !progress({"study", done, total})) throw Cancelled();
                             }});
  for (size_t i = 0; i < scores.size(); ++i)
    set_scores(scores[i], scores[std::min<size_t>(1, scores.size() - 1)], r.rows[i]);
  r.warnings.insert(r.warnings.end(), calibration.warnings.begin(), calibration.warnings.end());
  r.text = o.text.empty() ? "self" : o.text.filename().string();
  r.windows = int(windows.size() / size_t(o.window)), r.window = o.window;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace awq
