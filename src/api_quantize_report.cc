#include "api_quantize_report.h"

#include <algorithm>

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

std::string module_name(const ModelSpec& m, int block, Param p) { return find_architecture(m.arch).source(block, p); }

Json to_json(const GroupReport& g) {
  return {{"producer", g.producer},
          {"consumers", g.consumers},
          {"alpha", g.alpha},
          {"weight_term", g.weight_term},
          {"loss", g.loss},
          {"loss_without_scales", g.identity_loss},
          {"smallest", g.smallest_scale},
          {"largest", g.largest_scale}};
}

GroupReport group_report(const nlohmann::json& j) {
  return {.producer = j.at("producer"),
          .consumers = j.at("consumers").get<std::vector<std::string>>(),
          .alpha = j.at("alpha"),
          .weight_term = j.at("weight_term"),
          .loss = j.at("loss"),
          .identity_loss = j.at("loss_without_scales"),
          .smallest_scale = j.at("smallest"),
          .largest_scale = j.at("largest")};
}

Json to_json(const LayerReport& l) {
  return {{"name", l.name},
          {"relative_error", l.error},
          {"relative_error_of_rounding", l.rounding_error},
          {"groups_clipped", l.clipped},
          {"tokens", l.tokens}};
}

LayerReport layer_report(const nlohmann::json& j) {
  return {.name = j.at("name"),
          .error = j.at("relative_error"),
          .rounding_error = j.at("relative_error_of_rounding"),
          .clipped = j.at("groups_clipped"),
          .tokens = j.at("tokens")};
}

}  // namespace

void add_block(const ModelSpec& m, const BlockResult& b, QuantizeReport& report) {
  for (const GroupResult& g : b.solution.groups) {
    GroupReport r{.producer = module_name(m, b.block, g.group.producer),
                  .consumers = {},
                  .alpha = g.chosen.ratio,
                  .weight_term = g.chosen.weight_term,
                  .loss = g.loss,
                  .identity_loss = g.identity_loss,
                  .smallest_scale = g.smallest,
                  .largest_scale = g.largest};
    for (Param p : g.group.consumers) r.consumers.push_back(module_name(m, b.block, p));
    report.groups.push_back(std::move(r));
  }
  for (const LayerResult& l : b.solution.layers)
    if (!l.kept)
      report.layers.push_back({module_name(m, b.block, l.param), l.error, l.rounding_error, l.clipped, b.tokens});
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
}

Json report_json(const QuantizeReport& r, const QuantizeOptions& o, std::string_view kernels) {
  Json j;
  j["awq_version"] = version();
  j["method"] = o.method;
  j["group_size"] = r.group_size;
  if (!r.group_size_reason.empty()) j["group_size_reason"] = r.group_size_reason;
  if (o.quantize_head) j["head"] = {{"bits", o.quantize_head}, {"method", "rtn"}};
  j["seed"] = o.seed;
  j["kernels"] = kernels;
  j["calibration"] = to_json(r.calibration);
  if (!r.search.empty()) j["search"] = r.search;
  for (const KeptReport& k : r.kept)
    j["kept"].push_back({{"name", k.name}, {"kl_if_quantized_alone", k.kl}, {"extra_bytes", k.extra_bytes}});
  if (!r.left_out.empty()) j["left_out"] = r.left_out;
  j.update(blocks_json(r));
  if (!r.search.empty() && j.contains("scales"))  // a search of another time computed the losses
    for (Json& g : j["scales"])
      for (const char* key : {"loss", "loss_without_scales"}) g.erase(key);
  return j;
}

}  // namespace awq
