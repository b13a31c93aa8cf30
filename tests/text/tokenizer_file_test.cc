#include "text/tokenizer_file.h"

#include <gtest/gtest.h>

#include "awq/error.h"

namespace awq {
namespace {

using nlohmann::json;

bool reads(const std::string& text) {
  try {
    parse_tokenizer_file(text);
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(TokenizerFile, KeepsTheListsFlat) {
  const std::string text = R"( {"a": [1, {"model": {"vocab": {}}}], "model" : {"type": "BPE",
      "vocab": {"x": 0, "\u00e9\ud83d\ude00\n": 12, "\"]}": 3}, "merges": ["a b", ["c ", "d"]], "unk": null}, "z": "}"} )";
  const TokenizerFile f = parse_tokenizer_file(text);
  EXPECT_EQ(f.rest, json::parse(R"({"a": [1, {"model": {"vocab": {}}}], "z": "}"})"));
  EXPECT_EQ(f.model.options, json::parse(R"({"type": "BPE", "vocab": null, "merges": null, "unk": null})"));
  ASSERT_EQ(f.model.vocab.size(), 3u);
  EXPECT_EQ(f.model.vocab[1].text, "\u00e9\U0001f600\n");
  EXPECT_EQ(f.model.vocab[1].value, 12);
  EXPECT_EQ(f.model.vocab[2].text, "\"]}");
  ASSERT_EQ(f.model.merges.size(), 2u);
  EXPECT_EQ(f.model.merges[1].first, "c ");
  EXPECT_TRUE(f.model.has_ids && f.model.has_merges && !f.model.has_scores);
}

// Whatever a JSON parser refuses is refused here, in the lists too.
TEST(TokenizerFile, IsAsStrictAsAParser) {
  for (const char* bad : {"",
                          "{",
                          "{}x",
                          "[]",
                          "null",
                          R"({"model": {"vocab": {"a": 01}}})",
                          R"({"model": {"vocab": {"a": 1,}}})",
                          R"({"model": {"vocab": {"a" 1}}})",
                          R"({"model": {"vocab": {"a": 1}]})",
                          R"({"model": {"vocab": {"a\x": 1}}})",
                          R"({"model": {"vocab": {"\ud800": 1}}})",
                          R"({"model": {"vocab": {"\udc00": 1}}})",
                          R"({"model": {"vocab": {"\ud800\u0041": 1}}})",
                          R"({"model": {"vocab": {"\u00g0": 1}}})",
                          R"({"model": {"vocab": [["a", .5]]}})",
                          R"({"model": {"vocab": [["a", 1e]]}})",
                          R"({"model": {"vocab": [["a", -]]}})",
                          R"({"model": {"merges": ["a b" "c d"]}})",
                          R"({"model": {"merges": ["a b"], "merges": []}})",
                          R"({"model": {}, "x": [}})",
                          R"({"model": {}, "x": tru})",
                          "{\"model\": {\"vocab\": {\"\xff\": 1}}}",
                          "{\"model\": {\"vocab\": {\"a\nb\": 1}}}"})
    EXPECT_FALSE(reads(bad)) << bad;
  EXPECT_TRUE(reads(R"({"model": {"vocab": [["a", -1.5e-3], ["b", 0]]}})"));
  EXPECT_TRUE(reads("{}"));
}

}  // namespace
}  // namespace awq
