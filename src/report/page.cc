#include "report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "report/chart.h"
#include "report/html.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

const Json& list(const Json& j, const char* key) {
  static const Json none = Json::array();
  return j.contains(key) ? j.at(key) : none;
}

/// "model.layers.3.mlp.up_proj" is "mlp.up_proj" of block 3.
struct Place {
  std::string kind;
  int block = 0;
};
Place place_of(const std::string& name) {
  for (size_t begin = 0, end = 0; begin < name.size(); begin = end + 1) {
    end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    const bool digits = !part.empty() && part.size() < 7 && part.find_first_not_of("0123456789") == part.npos;
    if (digits && end < name.size()) return {name.substr(end + 1), std::stoi(part)};
  }
  return {name, 0};
}

/// What the layers of a kind, or groups of the same kinds, have in each block; kinds in the order they come in.
struct Kind {
  std::string name;
  std::vector<std::pair<int, const Json*>> blocks;
  Line line(const std::string& label, const std::string& style, const char* key) const {
    Line l{label, style, {}};
    for (const auto& [block, j] : blocks) l.points.emplace_back(block, j->at(key).get<double>());
    return l;
  }
};

std::string kind_of_group(const Json& group) {
  std::string name;
  for (const auto& c : group.at("consumers")) {
    const std::string kind = place_of(c).kind;
    name += (name.empty() ? "" : ", ") + kind.substr(kind.rfind('.') + 1);
  }
  return name;
}

template <class Name>
std::vector<Kind> kinds_of(const Json& all, const Name& name_of) {
  std::vector<Kind> kinds;
  for (const Json& j : all) {
    const Place p = name_of(j);
    auto k = std::ranges::find(kinds, p.kind, &Kind::name);
    if (k == kinds.end()) k = kinds.insert(kinds.end(), Kind{p.kind, {}});
    k->blocks.emplace_back(p.block, &j);
  }
  return kinds;
}
std::vector<Kind> layer_kinds(const Json& report) {
  return kinds_of(list(report, "layers"), [](const Json& l) { return place_of(l.at("name")); });
}
std::vector<Kind> group_kinds(const Json& report) {
  return kinds_of(list(report, "scales"), [](const Json& g) {
    return Place{kind_of_group(g), place_of(g.at("consumers").at(0)).block};
  });
}

std::string figure(const std::string& title, const std::string& chart) {
  return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(title), chart);
}

std::string heading(std::string_view title, std::string_view lead) {
  return fmt::format("<h2>{}</h2>\n<p>{}</p>\n", title, lead);
}

std::string key(std::string_view result, std::string_view reference) {
  return fmt::format("<p class=\"quiet\"><span class=\"key\"></span>{}<span class=\"key dashed\"></span>{}</p>\n",
                     result, reference);
}

double mean(const Json& all, const char* field) {
  double sum = 0;
  for (const Json& j : all) sum += j.at(field).get<double>();
  return all.empty() ? 0 : sum / double(all.size());
}

std::string fact(std::string_view name, const std::string& value) {
  return fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", name, escaped(value));
}

/// "4 bits, groups of 64, symmetric, scales in bf16"
std::string codes_of(const Json& r) {
  const int group = r.at("group_size").get<int>();
  std::string s =
      fmt::format("{} bits, {}", r.value("bits", 4), group < 0 ? "whole rows" : fmt::format("groups of {}", group));
  if (r.value("symmetric", false)) s += ", symmetric";
  if (r.contains("scale_type")) s += ", scales in " + r.at("scale_type").get<std::string>();
  if (r.value("portable_scales", false)) s += ", portable scales";
  return s;
}

std::string facts(const Json& r) {
  const Json& layers = list(r, "layers");
  const double error = mean(layers, "relative_error"), rounding = mean(layers, "relative_error_of_rounding");
  std::string s = "<dl>\n" + fact("method", r.at("method")) + fact("weights", codes_of(r)) +
                  fact("bits per weight", number(r.at("bits_per_weight"))) +
                  fact("mean error of a layer", number(error)) + fact("by plain rounding", number(rounding));
  if (rounding > 0) s += fact("error left of rounding's", percent(error / rounding));
  if (r.contains("head")) s += fact("head", fmt::format("{} bits", r.at("head").at("bits").get<int>()));
  if (r.contains("search")) s += fact("scales from", r.at("search"));
  return s + fact("kernels", r.at("kernels")) + fact("seed", fmt::format("{}", r.at("seed").get<uint64_t>())) +
         "</dl>\n";
}

std::string gate(const Json& r) {
  if (!r.contains("gate")) return "";
  const Json& g = r.at("gate");
  std::string s =
      heading("Gates", g.at("missed").empty() ? "<span class=\"good\">Passed.</span>"
                                              : "<span class=\"bad\">Missed: the result was kept aside.</span>");
  HtmlTable t(
      fmt::format("{} windows of {} tokens of {}", g.at("windows").get<int>(), g.at("window").get<int>(),
                  g.at("text") == "self" ? "text that the model wrote itself" : g.at("text").get<std::string>()),
      {"measure", "value", "standard error", "limit"});
  const auto limit = [&](const char* name) { return g.contains(name) ? number(g.at(name)) : std::string("none"); };
  t.row({"KL to the original, nats a token", number(g.at("kl")), number(g.at("kl_standard_error")), limit("max_kl")});
  t.row({"top-1 agreement, share of positions", number(g.at("top1")), number(g.at("top1_standard_error")),
         limit("min_top1")});
  return s + t.html();
}

/// One of each kind of layer.
template <class F>
std::string charts(const Json& r, const char* id, const F& chart) {
  std::string s = "<div class=\"charts\">\n";
  int n = 0;
  for (const Kind& k : layer_kinds(r)) s += figure(k.name, svg(chart(k), fmt::format("{}{}", id, n++)));
  return s + "</div>\n";
}

/// That a layer was judged on: of an expert that the router sent too few, others among them.
std::string judged_tokens(const Json& layer) {
  const auto forced = layer.value("forced_tokens", int64_t(0));
  return fmt::format("{}{}", layer.at("tokens").get<int64_t>(), forced ? fmt::format(", {} forced", forced) : "");
}

std::string errors(const Json& r) {
  if (list(r, "layers").empty()) return "";
  std::string s = heading("Error of each layer",
                          "Relative squared error of a layer&#39;s output over the calibration tokens, or of its "
                          "weights where there were none. Logarithmic; lower is better.") +
                  key("as quantized", "plain rounding") + charts(r, "error", [](const Kind& k) {
                    return LineChart{.title = "Error of " + k.name,
                                     .lines = {k.line("plain rounding", "reference", "relative_error_of_rounding"),
                                               k.line("as quantized", "result", "relative_error")},
                                     .logarithmic = true};
                  });
  HtmlTable t("Every layer",
              {"layer", "error", "by rounding", "groups clipped", "at the first and last code", "tokens"});
  for (const Json& l : list(r, "layers"))
    t.row({l.at("name"), number(l.at("relative_error")), number(l.at("relative_error_of_rounding")),
           percent(l.at("groups_clipped")), percent(l.at("saturated")), judged_tokens(l)});
  return s + folded("Table of every layer", t.html());
}

std::string ranges(const Json& r) {
  if (list(r, "layers").empty()) return "";
  return heading("Clipping and saturation",
                 "The share of groups whose range was cut, and of weights on the first "
                 "or the last code. The table above has the numbers.") +
         key("groups clipped", "weights at the first and last code") + charts(r, "range", [](const Kind& k) {
           return LineChart{.title = "Clipping and saturation of " + k.name,
                            .lines = {k.line("weights at the first and last code", "reference", "saturated"),
                                      k.line("groups clipped", "result", "groups_clipped")},
                            .percent = true};
         });
}

/// Weights by code, in at most 16 columns of equally many codes.
std::vector<int64_t> columns_of(const Json& layer) {
  const auto codes = layer.at("codes").get<std::vector<int64_t>>();
  const size_t each = std::max<size_t>(1, codes.size() / 16);
  std::vector<int64_t> columns((codes.size() + each - 1) / each);
  for (size_t c = 0; c < codes.size(); ++c) columns[c / each] += codes[c];
  return columns;
}

std::vector<int64_t> sums_of(const std::vector<std::vector<int64_t>>& layers) {
  std::vector<int64_t> total(layers.front().size());
  for (const auto& l : layers)
    for (size_t c = 0; c < total.size(); ++c) total[c] += l.at(c);
  return total;
}

std::vector<std::string> names_of_columns(size_t columns, size_t codes) {
  const size_t each = codes / columns;
  std::vector<std::string> names;
  for (size_t c = 0; c < columns; ++c)
    names.push_back(each == 1 ? std::to_string(c) : fmt::format("{}-{}", c * each, (c + 1) * each - 1));
  return names;
}

std::string codes(const Json& r) {
  const Json& layers = list(r, "layers");
  if (layers.empty()) return "";
  std::vector<std::vector<int64_t>> columns;
  for (const Json& l : layers) columns.push_back(columns_of(l));
  const std::vector<int64_t> total = sums_of(columns);
  const auto all = double(std::accumulate(total.begin(), total.end(), int64_t(0)));
  if (all == 0) return "";
  const size_t kinds = layers.front().at("codes").size();
  const std::vector<std::string> names = names_of_columns(total.size(), kinds);
  BarChart chart{.title = "Weights by code", .bars = {}};
  for (size_t c = 0; c < total.size(); ++c)
    chart.bars.push_back({names[c], double(total[c]), percent(double(total[c]) / all)});
  std::vector<std::string> heads = {"layer"};
  heads.insert(heads.end(), names.begin(), names.end());
  HtmlTable t("Weights that have each code", heads);
  for (size_t i = 0; i < columns.size(); ++i) {
    std::vector<std::string> cells = {layers.at(i).at("name")};
    for (const int64_t n : columns[i]) cells.push_back(fmt::format("{}", n));
    t.row(cells);
  }
  return heading("Histogram of codes",
                 fmt::format("How many weights of all quantized layers have each of the {} codes.", kinds)) +
         "<div class=\"charts\">" + figure("all layers", columns_svg(chart, "codes")) + "</div>\n" +
         folded("Table of every layer", t.html());
}

std::string group_name(const Json& g) {
  return fmt::format("block {}: {}", place_of(g.at("consumers").at(0)).block, kind_of_group(g));
}

std::string scales(const Json& r) {
  if (list(r, "scales").empty()) return "";
  std::string s =
      heading("Scales",
              "The chosen exponent of the activations&#39; magnitude for each group of layers that share an "
              "input; 0 without the weight term is no scaling.") +
      "<div class=\"charts\">\n";
  int id = 0;
  for (const Kind& k : group_kinds(r))
    s += figure("input of " + k.name,
                svg({.title = "Chosen ratio at the input of " + k.name, .lines = {k.line("ratio", "result", "alpha")}},
                    fmt::format("ratio{}", id++)));
  HtmlTable t("Every group",
              {"group", "folded into", "ratio", "weight term", "loss", "without scales", "smallest scale", "largest"},
              2);
  for (const Json& g : list(r, "scales"))
    t.row({group_name(g), g.at("producer"), number(g.at("alpha")), g.at("weight_term").get<bool>() ? "yes" : "no",
           g.contains("loss") ? number(g.at("loss")) : "",
           g.contains("loss") ? number(g.at("loss_without_scales")) : "", number(g.at("smallest")),
           number(g.at("largest"))});
  return s + "</div>\n" + folded("Table of every group", t.html());
}

bool observed(const Json& r) { return !list(r, "scales").empty() && r.at("scales").at(0).contains("salient"); }

Line salience(const Kind& k) {
  Line l{"largest channel, times the mean", "result", {}};
  for (const auto& [block, g] : k.blocks) {
    const double mean = g->at("mean_activation"), largest = g->at("salient").at(0).at(1);
    l.points.emplace_back(block, mean > 0 ? largest / mean : 0);
  }
  return l;
}

std::string channels(const Json& r) {
  if (!observed(r)) return "";
  std::string s =
      heading("Salient channels",
              "How far the largest input channel&#39;s mean magnitude is above that of all channels: what AWQ "
              "protects. Logarithmic.") +
      "<div class=\"charts\">\n";
  int id = 0;
  for (const Kind& k : group_kinds(r))
    s += figure("input of " + k.name,
                svg({.title = "Largest channel at the input of " + k.name, .lines = {salience(k)}, .logarithmic = true},
                    fmt::format("salient{}", id++)));
  HtmlTable t("The five channels with the largest activations of each group: channel, mean magnitude, scale",
              {"group", "mean of all", "first", "second", "third", "fourth", "fifth"});
  for (const Json& g : list(r, "scales")) {
    std::vector<std::string> cells = {group_name(g), number(g.at("mean_activation"))};
    for (const Json& c : g.at("salient"))
      cells.push_back(fmt::format("{}: {}, {}", c.at(0).get<int64_t>(), number(c.at(1)), number(c.at(2))));
    t.row(cells);
  }
  return s + "</div>\n" + folded("Table of every group", t.html());
}

std::string dead(const Json& r) {
  if (!observed(r)) return "";
  HtmlTable t("Groups with dead input channels", {"group", "channels"});
  int64_t all = 0;
  for (const Json& g : list(r, "scales"))
    if (const int64_t n = g.at("dead_channels"); n > 0) {
      t.row({group_name(g), fmt::format("{}", n)});
      all += n;
    }
  return heading(
             "Dead channels",
             all ? "Input channels that were zero at every calibration token: other text may use them, and this one "
                   "says nothing about their weights."
                 : "None: every input channel of every layer was used by the calibration text.") +
         (all ? t.html() : "");
}

std::string calibration(const Json& r) {
  const Json& c = r.contains("calibration") ? r.at("calibration") : Json::object();
  if (list(c, "sources").empty()) return "";
  BarChart chart{.title = "Tokens of each source", .bars = {}};
  HtmlTable t(fmt::format("{} sequences of {} tokens; SHA-256 of their ids {}", c.at("sequences").get<int>(),
                          c.at("sequence_tokens").get<int>(), c.at("sha256_of_token_ids").get<std::string>()),
              {"source", "", "weight", "sequences", "tokens used", "in the statistics", "tokens read", "texts",
               "cut short", "not needed"},
              2);
  for (const Json& s : list(c, "sources")) {
    const auto count = [&](const char* key) { return fmt::format("{}", s.at(key).get<int64_t>()); };
    const std::string label = fmt::format("source {}", chart.bars.size() + 1);
    chart.bars.push_back({label, s.at("tokens_used"), count("tokens_used")});
    t.row({s.at("name") == "self" ? "written by the model itself" : s.at("name").get<std::string>(), label,
           number(s.at("weight")), count("sequences"), count("tokens_used"), count("tokens_counted"), count("tokens"),
           count("texts"), count("texts_truncated"), count("texts_dropped")});
  }
  return heading("Calibration text", "Where the tokens came from.") + "<div class=\"charts\">" +
         figure("tokens used", bars_svg(chart, "sources")) + "</div>\n" + t.html();
}

std::string kept(const Json& r) {
  if (list(r, "kept").empty()) return "";
  HtmlTable t("Layers in 16 bits", {"layer", "KL if it alone were quantized", "more than in 4 bits"});
  for (const Json& k : list(r, "kept"))
    t.row({k.at("name"), number(k.at("kl_if_quantized_alone")), amount(k.at("extra_bytes"))});
  return heading("Kept layers", "The most sensitive layers stay in 16 bits.") + t.html();
}

std::string said(std::string_view title, const std::string& text) {
  return fmt::format("<div><h3>{}</h3><div class=\"said\" dir=\"auto\">{}</div></div>\n", title, escaped(text));
}

std::string answers(const Json& r) {
  if (list(r, "answers").empty()) return "";
  std::string s =
      heading("Answers",
              "The same prompts, the likeliest token each time, up to 48 of them. Words may differ where both are "
              "as good; broken text would be a fault.");
  for (const Json& a : list(r, "answers"))
    s += "<div class=\"answer\">" + said("prompt", a.at("prompt")) + "<div class=\"pair\">" +
         said("original", a.at("original")) + said("quantized", a.at("quantized")) + "</div></div>\n";
  return s;
}

// Operations where arithmetic is what a stage does, otherwise bytes.
std::string speed(const Json& stage) {
  const double seconds = stage.at("seconds"), operations = stage.at("operations"), bytes = stage.at("bytes");
  if (seconds <= 0) return "";
  if (operations > 0) return number(operations / seconds / 1e9) + " GFLOP/s";
  return bytes > 0 ? number(bytes / seconds / 1e9) + " GB/s" : "";
}

std::string times(const Json& run) {
  const Json& planned = run.contains("planned") ? run.at("planned") : Json::object();
  BarChart chart{.title = "Seconds of each stage", .bars = {}};
  HtmlTable t("All blocks together; stages overlap where one writes while the next block is loaded",
              {"stage", "seconds", "speed", "memory planned"});
  for (const Json& s : list(run, "stages")) {
    const std::string name = s.at("name");
    chart.bars.push_back({name, s.at("seconds"), number(s.at("seconds")) + " s"});
    t.row({name, number(s.at("seconds")), speed(s), planned.contains(name) ? amount(planned.at(name)) : ""});
  }
  for (const auto& [name, bytes] : planned.items())
    if (std::ranges::none_of(chart.bars, [&, n = name](const Bar& b) { return b.label == n; }))
      t.row({name, "", "", amount(bytes)});
  return heading("Time and memory",
                 "Of this run; these are not in the output, whose bytes are the same for every run.") +
         "<dl>\n" + fact("seconds", number(run.at("seconds"))) + fact("most memory", amount(run.at("peak_memory"))) +
         fact("planned", amount(run.at("planned_memory"))) +
         fact("threads", fmt::format("{}", run.at("threads").get<int>())) + fact("CPU", run.at("cpu")) +
         fact("blocks done before", fmt::format("{}", run.at("resumed_blocks").get<int>())) + "</dl>\n" +
         "<div class=\"charts\">" + figure("seconds", bars_svg(chart, "times")) + "</div>\n" + t.html();
}

}  // namespace

std::string report_page(const Json& r, const Json* run) {
  const Json& m = r.at("model");
  const std::string model =
      fmt::format("{}: {} blocks, hidden size {}, vocabulary {}", m.at("architecture").get<std::string>(),
                  m.at("blocks").get<int>(), m.at("hidden_size").get<int>(), m.at("vocabulary").get<int>());
  return fmt::format(
             "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<title>AWQ report</title><style>{}</style></head>\n<body><main>\n<h1>AWQ report</h1>\n"
             "<p class=\"quiet\">{}. Made by awq {}.</p>\n",
             page_style(), escaped(model), escaped(r.at("awq_version").get<std::string>())) +
         facts(r) + gate(r) + errors(r) + ranges(r) + scales(r) + channels(r) + dead(r) + codes(r) + kept(r) +
         calibration(r) + answers(r) + (run ? times(*run) : "") + "</main></body></html>\n";
}

}  // namespace awq
