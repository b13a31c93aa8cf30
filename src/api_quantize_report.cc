#include "api_quantize_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/cpu.h"

#include "formats/params.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

// Four digits: a hint, not a measurement that is computed with.
double rounded(double v) { return std::stod(fmt::format("{:.4g}", v)); }

Json inputs_json(const GroupReport& g) {
  Json salient = Json::array();
  for (const ChannelReport& c : g.salient) salient.push_back({c.channel, c.mean_abs, c.scale});
  return {{"mean_activation", g.mean_abs}, {"dead_channels", g.dead_channels}, {"salient", salient}};
}

void read_inputs(const nlohmann::json& j, GroupReport& g) {
  g.mean_abs = j.at("mean_activation");
  g.dead_channels = j.at("dead_channels");
  for (const auto& c : j.at("salient")) g.salient.push_back({c.at(0), c.at(1), c.at(2)});
}

Json to_json(const GroupReport& g) {
  Json j = {{"producer", g.producer},
            {"consumers", g.consumers},
            {"alpha", g.alpha},
            {"weight_term", g.weight_term},
            {"loss", g.loss},
            {"loss_without_scales", g.identity_loss},
            {"smallest", g.smallest_scale},
            {"largest", g.largest_scale}};
  if (!g.salient.empty()) j.update(inputs_json(g));
  return j;
}

GroupReport group_report(const nlohmann::json& j) {
  GroupReport g{.producer = j.at("producer"),
                .consumers = j.at("consumers").get<std::vector<std::string>>(),
                .alpha = j.at("alpha"),
                .weight_term = j.at("weight_term"),
                .loss = j.at("loss"),
                .identity_loss = j.at("loss_without_scales"),
                .smallest_scale = j.at("smallest"),
                .largest_scale = j.at("largest")};
  if (j.contains("salient")) read_inputs(j, g);
  return g;
}

// Share of weights on the first or the last code.
double saturated(const LayerReport& l) {
  const auto all = std::accumulate(l.codes.begin(), l.codes.end(), int64_t(0));
  return all ? rounded(double(l.codes.front() + l.codes.back()) / double(all)) : 0;
}

Json to_json(const LayerReport& l) {
  Json j = {{"name", l.name},
            {"relative_error", l.error},
            {"relative_error_of_rounding", l.rounding_error},
            {"groups_clipped", l.clipped},
            {"tokens", l.tokens},
            {"saturated", saturated(l)},
            {"codes", l.codes}};
  if (l.routed) j["routed_tokens"] = *l.routed;
  if (l.forced) j["forced_tokens"] = l.forced;
  return j;
}

LayerReport layer_report(const nlohmann::json& j) {
  LayerReport l{.name = j.at("name"),
                .error = j.at("relative_error"),
                .rounding_error = j.at("relative_error_of_rounding"),
                .clipped = j.at("groups_clipped"),
                .tokens = j.at("tokens"),
                .codes = j.at("codes"),
                .routed = {}};
  if (j.contains("routed_tokens")) l.routed = j.at("routed_tokens").get<int64_t>();
  l.forced = j.value("forced_tokens", int64_t(0));
  return l;
}

void add_stages(const nlohmann::json& j, std::vector<StageReport>& to) {
  for (const auto& s : j) {
    const std::string name = s.at("name");
    auto it = std::ranges::find(to, name, &StageReport::name);
    if (it == to.end()) it = to.insert(to.end(), StageReport{name});
    it->seconds += s.at("seconds").get<double>();
    it->operations += s.at("operations").get<double>();
    it->bytes += s.at("bytes").get<uint64_t>();
  }
}

}  // namespace

void add_block(const ModelSpec& m, const BlockResult& b, QuantizeReport& report) {
  for (const GroupResult& g : b.solution.groups) {
    GroupReport r{.producer = base_name(m, b.block, *g.group.producer),
                  .consumers = {},
                  .alpha = g.chosen.ratio,
                  .weight_term = g.chosen.weight_term,
                  .loss = g.loss,
                  .identity_loss = g.identity_loss,
                  .smallest_scale = g.smallest,
                  .largest_scale = g.largest};
    r.dead_channels = g.dead;
    r.mean_abs = rounded(g.mean_abs);
    for (const ChannelResult& c : g.salient) r.salient.push_back({c.channel, rounded(c.mean_abs), rounded(c.scale)});
    for (const auto& readers : {g.group.consumers, g.group.float_readers})
      for (Param p : readers) r.consumers.push_back(base_name(m, b.block, p));
    report.groups.push_back(std::move(r));
  }
  for (const LayerResult& l : b.solution.layers)
    if (!l.kept)
      report.layers.push_back({base_name(m, b.block, l.param), l.error, l.rounding_error, l.clipped, l.tokens, l.codes,
                               l.routed, l.forced});
  report.worst_fold_error = std::max(report.worst_fold_error, b.fold_error);
}

Json blocks_json(const QuantizeReport& r) {
  Json j = {{"worst_fold_error", r.worst_fold_error}};
  for (const GroupReport& g : r.groups) j["scales"].push_back(to_json(g));
  for (const LayerReport& l : r.layers) j["layers"].push_back(to_json(l));
  return j;
}

void read_blocks(const nlohmann::json& j, QuantizeReport& r) {
  r.worst_fold_error = std::max(r.worst_fold_error, j.at("worst_fold_error").get<double>());
  for (const auto& g : j.value("scales", nlohmann::json::array())) r.groups.push_back(group_report(g));
  for (const auto& l : j.value("layers", nlohmann::json::array())) r.layers.push_back(layer_report(l));
  add_stages(j.at("stages"), r.stages);
}

Json stages_json(const std::vector<StageReport>& stages) {
  Json j = Json::array();
  for (const StageReport& s : stages)
    j.push_back({{"name", s.name}, {"seconds", s.seconds}, {"operations", s.operations}, {"bytes", s.bytes}});
  return j;
}

Json judged_json(const QuantizeReport& r, const QuantizeOptions& o) {
  Json j = {{"answers", Json::array()}};
  if (r.gate) j["gate"] = to_json(*r.gate, o);
  for (const AnswerReport& a : r.answers) j["answers"].push_back(to_json(a));
  return j;
}

void read_judged(const nlohmann::json& j, QuantizeReport& r) {
  for (const auto& a : j.at("answers")) r.answers.push_back({a.at("prompt"), a.at("original"), a.at("quantized")});
  if (!j.contains("gate")) return;
  const auto& g = j.at("gate");
  r.gate = {.text = g.at("text"),
            .windows = g.at("windows"),
            .window = g.at("window"),
            .kl = {g.at("kl"), g.at("kl_standard_error")},
            .top1 = {g.at("top1"), g.at("top1_standard_error")},
            .missed = g.at("missed").get<std::vector<std::string>>()};
}

std::string report_text(const Json& report) {
  return report.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json to_json(const GateReport& g, const QuantizeOptions& o) {
  Json j = {{"text", g.text}, {"windows", g.windows}, {"window", g.window}, {"kl", g.kl.value}};
  j["kl_standard_error"] = g.kl.standard_error;
  if (o.max_kl) j["max_kl"] = *o.max_kl;
  j["top1"] = g.top1.value;
  j["top1_standard_error"] = g.top1.standard_error;
  if (o.min_top1) j["min_top1"] = *o.min_top1;
  j["missed"] = g.missed;
  return j;
}

Json to_json(const AnswerReport& a) {
  return {{"prompt", a.prompt}, {"original", a.original}, {"quantized", a.quantized}};
}

Json report_json(const QuantizeReport& r, const QuantizeOptions& o, const ModelSpec& m, std::string_view kernels) {
  Json j;
  j["awq_version"] = version();
  j["model"] = {{"architecture", m.arch}, {"blocks", m.blocks.size()}, {"hidden_size", m.dim}, {"vocabulary", m.vocab}};
  j["method"] = o.method;
  if (o.variant != "ours") j["variant"] = o.variant;
  j["bits"] = o.bits;
  j["group_size"] = r.group_size;
  if (r.symmetric) j["symmetric"] = true;
  if (o.scales != "f16") j["scale_type"] = o.scales;
  if (o.portable_scales) j["portable_scales"] = true;
  j["bits_per_weight"] = r.bits_per_weight;
  if (!r.group_size_reason.empty()) j["group_size_reason"] = r.group_size_reason;
  if (o.quantize_head) j["head"] = {{"bits", o.quantize_head}, {"method", "rtn"}};
  j["seed"] = o.seed;
  j["kernels"] = kernels;
  j["calibration"] = to_json(r.calibration);
  if (!r.search.empty()) j["search"] = r.search;
  for (const KeptReport& k : r.kept)
    j["kept"].push_back({{"name", k.name}, {"kl_if_quantized_alone", k.kl}, {"extra_bytes", k.extra_bytes}});
  if (!r.left_out.empty()) j["left_out"] = r.left_out;
  if (r.gate) j["gate"] = to_json(*r.gate, o);
  for (const AnswerReport& a : r.answers) j["answers"].push_back(to_json(a));
  j.update(blocks_json(r));
  if (!r.search.empty() && j.contains("scales"))  // a search of another time computed the losses
    for (Json& g : j["scales"])
      for (const char* key : {"loss", "loss_without_scales"}) g.erase(key);
  return j;
}

Json run_json(const QuantizeReport& r, std::string_view kernels, int threads) {
  Json j = {{"cpu", cpu_name()},
            {"kernels", kernels},
            {"threads", threads},
            {"seconds", r.seconds},
            {"resumed_blocks", r.resumed_blocks},
            {"peak_memory", r.peak_memory},
            {"planned_memory", r.planned_memory}};
  for (const auto& [stage, bytes] : r.planned_stages)
    if (bytes) j["planned"][stage] = bytes;
  j["stages"] = stages_json(r.stages);
  return j;
}

}  // namespace awq
