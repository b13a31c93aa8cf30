#include "report/page.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "report/chart.h"
#include "report/html.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;
const std::string kHostile = "</style></title><script src=\"http://evil/x.js\">alert('&')</script>";

Json layer(const std::string& name, double error) {
  return {
      {"name", name},  {"relative_error", error}, {"relative_error_of_rounding", 2 * error}, {"groups_clipped", 0.25},
      {"tokens", 512}, {"saturated", 0.0625},     {"codes", std::vector<int>(16, 7)}};
}

Json group(const std::string& producer, const std::string& consumer) {
  return {{"producer", producer},
          {"consumers", {consumer}},
          {"alpha", 0.35},
          {"weight_term", true},
          {"loss", 1.5},
          {"loss_without_scales", 2.5},
          {"smallest", 0.5},
          {"largest", 4},
          {"mean_activation", 0.125},
          {"dead_channels", 3},
          {"salient", {{17, 9.5, 2.25}}}};
}

/// A report in which `text` stands wherever a text can.
Json report(const std::string& text) {
  return {{"awq_version", text},
          {"model", {{"architecture", text}, {"blocks", 2}, {"hidden_size", 64}, {"vocabulary", 96}}},
          {"method", text},
          {"group_size", 32},
          {"bits_per_weight", 4.625},
          {"seed", 7},
          {"kernels", text},
          {"search", text},
          {"calibration",
           {{"sequences", 8},
            {"sequence_tokens", 64},
            {"sha256_of_token_ids", text},
            {"sources",
             {{{"name", text},
               {"weight", 1},
               {"sequences", 8},
               {"texts", 3},
               {"texts_truncated", 1},
               {"texts_dropped", 0},
               {"tokens", 600},
               {"tokens_used", 512},
               {"tokens_counted", 511}}}}}},
          {"kept", {{{"name", text}, {"kl_if_quantized_alone", 0.5}, {"extra_bytes", 1000}}}},
          {"gate",
           {{"text", text},
            {"windows", 4},
            {"window", 64},
            {"kl", 0.1},
            {"kl_standard_error", 0.01},
            {"max_kl", 0.05},
            {"top1", 0.9},
            {"top1_standard_error", 0.02},
            {"missed", {text}}}},
          {"answers", {{{"prompt", text}, {"original", text}, {"quantized", text}}}},
          {"scales", {group(text, "model.layers.0." + text), group("a", "model.layers.1." + text)}},
          {"layers", {layer("model.layers.0." + text, 0.01), layer("model.layers.1." + text, 0.001), layer(text, 0)}}};
}

TEST(Escaped, LeavesNothingThatHtmlWouldRead) {
  EXPECT_EQ(escaped("<a href=\"x\" b='y'>&amp;</a>"), "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;&lt;/a&gt;");
  EXPECT_EQ(escaped("ä\n\t漢"), "ä\n\t漢");
  EXPECT_EQ(escaped(std::string("a\0b\x1b\x7f", 5)), "a\uFFFDb\uFFFD\uFFFD");
  EXPECT_EQ(escaped("x\xff\xc3y"), "x\uFFFD\uFFFDy");
}

TEST(Page, HostileTextsAreText) {
  const Json run = {{"cpu", kHostile},
                    {"threads", 2},
                    {"seconds", 1.5},
                    {"peak_memory", 1e6},
                    {"planned_memory", 2e6},
                    {"resumed_blocks", 0},
                    {"planned", {{kHostile, 5}}},
                    {"stages", {{{"name", kHostile}, {"seconds", 1}, {"operations", 2e9}, {"bytes", 0}}}}};
  const Json hostile = report(kHostile);
  const std::string page = report_page(hostile, &run);
  EXPECT_EQ(page.find("<script"), page.npos);
  EXPECT_EQ(page.find("alert('"), page.npos);
  for (const char* once : {"</style>", "</head>", "</main>", "</body>"})
    EXPECT_EQ(page.find(once), page.rfind(once)) << once;
  EXPECT_NE(page.find("&lt;script src=&quot;http://evil/x.js&quot;&gt;"), page.npos);
}

TEST(Page, ShowsTheNumbersOfTheReport) {
  const std::string page = report_page(report("q_proj"));
  for (const char* cell :
       {"<td>model.layers.1.q_proj</td><td class=\"n\">0.001</td><td class=\"n\">0.002</td><td class=\"n\">25 %</td>"
        "<td class=\"n\">6.25 %</td><td class=\"n\">512</td>",
        "17: 9.5, 2.25", "<td>block 0: q_proj</td><td class=\"n\">3</td>", "<td class=\"n\">511</td>",
        "<td class=\"n\">0.05</td>", "kept aside"})
    EXPECT_NE(page.find(cell), page.npos) << cell;
  EXPECT_EQ(page.find("Time and memory"), page.npos);
}

TEST(Page, IsWrittenForAMethodThatLooksAtNothing) {
  Json bare = report("x");
  for (const char* key : {"calibration", "kept", "gate", "answers", "scales", "search"}) bare.erase(key);
  const std::string page = report_page(bare);
  for (const char* absent : {"Salient", "Dead", "Gates", "Answers", "Calibration text"})
    EXPECT_EQ(page.find(absent), page.npos);
  bare["layers"] = Json::array();  // all kept
  EXPECT_NE(report_page(bare).find("</html>"), std::string::npos);
}

std::vector<double> heights(const std::string& svg) {
  std::vector<double> y;
  for (size_t at = 0; (at = svg.find("cy=\"", at)) != svg.npos; ++at) y.push_back(std::stod(svg.substr(at + 4)));
  return y;
}

TEST(Chart, PutsEqualRatiosAtEqualDistancesOnALogarithmicAxis) {
  const std::vector<double> y = heights(svg(
      {.title = "t", .lines = {{"l", "result", {{0, 1e-4}, {1, 1e-3}, {2, 1e-2}, {3, 0}}}}, .logarithmic = true}, "i"));
  ASSERT_EQ(y.size(), 4u);
  EXPECT_NEAR(y[0] - y[1], y[1] - y[2], 0.11);  // one decimal each
  EXPECT_GT(y[1] - y[2], 10);
  EXPECT_EQ(y[3], 146);  // zero has no logarithm: the lower edge
}

TEST(Chart, IsFiniteWhateverTheValues) {
  for (bool logarithmic : {false, true})
    for (const auto& values : std::vector<std::vector<double>>{{}, {0}, {0.5}, {0, 0}, {1e-300, 1e300}, {-1, 1}}) {
      Line l{"l", "result", {}};
      for (double v : values) l.points.emplace_back(double(l.points.size()), v);
      const std::string s = svg({.title = "t", .lines = {l}, .logarithmic = logarithmic}, "i");
      EXPECT_EQ(s.find("nan"), s.npos);
      EXPECT_EQ(s.find("inf"), s.npos);
      EXPECT_EQ(heights(s).size(), values.size());
      EXPECT_LT(s.size(), 100'000u);
    }
}

TEST(Chart, SaysInWordsWhatItShows) {
  const std::string s = svg({.title = "a < b", .lines = {{"error", "result", {{0, 2}, {1, 8}, {2, 4}}}}}, "i");
  EXPECT_NE(
      s.find(
          "role=\"img\" aria-labelledby=\"i-t i-d\"><title id=\"i-t\">a &lt; b</title><desc id=\"i-d\">error: 2 in the "
          "first block, 4 in the last; lowest 2 in block 0, highest 8 in block 1."),
      s.npos);
}

}  // namespace
}  // namespace awq
