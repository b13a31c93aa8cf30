#include "formats/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "io/gguf_builder.h"

namespace awq {
namespace {

using nlohmann::json;

#define EXPECT_SAYS(message, part) EXPECT_NE((message).find(part), std::string::npos) << (message)

json side_file(const Gguf& file, std::string_view name) {
  for (const SideFile& f : gguf_side_files(file))
    if (f.name == name) return json::parse(f.bytes);
  return nullptr;
}
json side_file(const GgufBuilder& b, std::string_view name) { return side_file(parse_gguf(b), name); }
std::string error(const GgufBuilder& b) {
  return error_of([&] { gguf_side_files(parse_gguf(b)); });
}

GgufBuilder file_with(const std::string& model, const std::vector<std::string>& tokens,
                      const std::vector<int32_t>& types) {
  GgufBuilder b;
  b.text("general.architecture", "llama").u32("llama.context_length", 64).text("tokenizer.ggml.model", model);
  b.texts("tokenizer.ggml.tokens", tokens).numbers("tokenizer.ggml.token_type", GgufType::i32, types);
  return b.floats("token_embd.weight", {1, tokens.size()}, std::vector<float>(tokens.size()));
}

GgufBuilder byte_level() {
  return file_with("gpt2", {"<bos>", "<eos>", "<think>", "a", "b", "ab", "[PAD6]"}, {3, 3, 4, 1, 1, 1, 5})
      .text("tokenizer.ggml.pre", "smollm")
      .texts("tokenizer.ggml.merges", {"a b"})
      .u32("tokenizer.ggml.bos_token_id", 0)
      .u32("tokenizer.ggml.eos_token_id", 1);
}

GgufBuilder sentencepiece() {
  const std::string space = "\u2581";
  return file_with("llama",
                   {"<unk>", "<s>", "<0x41>", "  ", space, "a", "b", "ab", space + "a", space + "ab", "bb", "bbb"},
                   {2, 3, 6, 4, 1, 1, 1, 1, 1, 1, 1, 1})
      .numbers<float>("tokenizer.ggml.scores", GgufType::f32, {0, 0, 0, -1000, -5, -6, -7, -1, -2, -3, -4, -4})
      .u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.unknown_token_id", 0);
}

TEST(GgufTokenizer, ByteLevelVocabularyAndMerges) {
  const json t = side_file(byte_level(), "tokenizer.json");
  EXPECT_EQ(t["model"]["vocab"], json({{"<bos>", 0}, {"<eos>", 1}, {"<think>", 2}, {"a", 3}, {"b", 4}, {"ab", 5}}));
  EXPECT_EQ(t["model"]["merges"], json({"a b"}));
  ASSERT_EQ(t["added_tokens"].size(), 3u);
  EXPECT_EQ(t["added_tokens"][1], json({{"id", 1},
                                        {"content", "<eos>"},
                                        {"single_word", false},
                                        {"lstrip", false},
                                        {"rstrip", false},
                                        {"normalized", false},
                                        {"special", true}}));
  EXPECT_EQ(t["added_tokens"][2]["special"], false);
  EXPECT_EQ(t["post_processor"], nullptr);
}

// Worked by hand: scores fall from "  " (user-defined, so 0) over ab, _a, _ab, to bb and bbb, which share one; of the
// two splits of _ab the one with the longer left part comes first; of bbb and bb the one with the longer left part.
TEST(GgufTokenizer, SentencePieceScoresBecomeMerges) {
  const std::string s = "\u2581";
  const json t = side_file(sentencepiece(), "tokenizer.json");
  EXPECT_EQ(t["model"]["merges"], json({s + " " + s, "a b", s + " a", s + "a b", s + " ab", "bb b", "b bb", "b b"}));
  EXPECT_EQ(t["model"]["vocab"][s + s], 3);
  EXPECT_EQ(t["model"]["unk_token"], "<unk>");
  EXPECT_EQ(t["model"]["byte_fallback"], true);
  ASSERT_EQ(t["added_tokens"].size(), 3u);
  EXPECT_EQ(t["added_tokens"][0]["special"], true);
  EXPECT_EQ(t["added_tokens"][2]["content"], s + s);
}

json template_around(const std::string& bos, const std::string& eos) {
  const json processor = side_file(byte_level()
                                       .flag("tokenizer.ggml.add_bos_token", !bos.empty())
                                       .flag("tokenizer.ggml.add_eos_token", !eos.empty()),
                                   "tokenizer.json")["post_processor"];
  return processor;
}

TEST(GgufTokenizer, PutsSpecialTokensAround) {
  EXPECT_EQ(template_around("", ""), nullptr);
  const json both = template_around("<bos>", "<eos>");
  EXPECT_EQ(both["single"],
            json::parse(R"([{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
    {"SpecialToken": {"id": "<eos>", "type_id": 0}}])"));
  EXPECT_EQ(both["pair"].size(), 6u);
  EXPECT_EQ(both["special_tokens"]["<eos>"], json::parse(R"({"id": "<eos>", "ids": [1], "tokens": ["<eos>"]})"));
  EXPECT_EQ(template_around("<bos>", "")["single"].size(), 2u);
  EXPECT_SAYS(error(byte_level().without("tokenizer.ggml.bos_token_id").flag("tokenizer.ggml.add_bos_token", true)),
              "add_bos_token asks for a token that \"tokenizer.ggml.bos_token_id\" does not name");
}

TEST(GgufTokenizer, ConfigAndGeneration) {
  const GgufBuilder b =
      byte_level().u32("tokenizer.ggml.padding_token_id", 1).text("tokenizer.chat_template", "{{ x }}");
  EXPECT_EQ(
      side_file(b, "tokenizer_config.json"),
      json::parse(
          R"({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false, "model_max_length": 64,
      "add_bos_token": false, "add_eos_token": false, "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": null,
      "pad_token": "<eos>", "chat_template": "{{ x }}"})"));
  EXPECT_EQ(side_file(b, "generation_config.json"),
            json({{"bos_token_id", 0}, {"eos_token_id", 1}, {"pad_token_id", 1}}));
  EXPECT_EQ(side_file(byte_level().u32("tokenizer.ggml.eot_token_id", 2).u32("tokenizer.ggml.eom_token_id", 2),
                      "generation_config.json")["eos_token_id"],
            json({1, 2}));
  const GgufBuilder named = byte_level()
                                .text("tokenizer.chat_template", "{{ x }}")
                                .texts("tokenizer.chat_templates", {"tool_use"})
                                .text("tokenizer.chat_template.tool_use", "{{ y }}");
  EXPECT_EQ(
      side_file(named, "tokenizer_config.json")["chat_template"],
      json::parse(R"([{"name": "default", "template": "{{ x }}"}, {"name": "tool_use", "template": "{{ y }}"}])"));
  EXPECT_TRUE(gguf_side_files(parse_gguf(GgufBuilder().text("tokenizer.ggml.model", "no_vocab"))).empty());
  EXPECT_TRUE(gguf_side_files(parse_gguf(GgufBuilder())).empty());
}

TEST(GgufTokenizer, RefusesWhatItDoesNotKnow) {
  const auto pre = [](const char* name) {
    return byte_level().without("tokenizer.ggml.pre").text("tokenizer.ggml.pre", name);
  };
  EXPECT_SAYS(error(pre("nosuch")),
              "the pre-tokenizer \"nosuch\" (tokenizer.ggml.pre) is not known; this version has smollm, llama-bpe");
  EXPECT_SAYS(error(pre("default")), "does not say how its tokenizer splits text");
  EXPECT_SAYS(error(byte_level().without("tokenizer.ggml.pre")), "does not say how its tokenizer splits text");
  EXPECT_SAYS(error(sentencepiece().text("tokenizer.ggml.pre", "smollm")),
              "the pre-tokenizer \"smollm\" (tokenizer.ggml.pre) is not known for SentencePiece");
  EXPECT_SAYS(error(file_with("t5", {"a"}, {1})), "the tokenizer \"t5\" (tokenizer.ggml.model) is not known");
}

TEST(GgufTokenizer, RefusesVocabulariesThatContradictThemselves) {
  const auto changed = [](GgufBuilder b, std::string_view key) { return b.without(key); };
  const auto merges = [&](const std::vector<std::string>& m) {
    return error(changed(byte_level(), "tokenizer.ggml.merges").texts("tokenizer.ggml.merges", m));
  };
  EXPECT_EQ(merges({}), "");
  for (const char* bad : {"ab", "a c", "c a", "b a", "a b ", " ", ""})
    EXPECT_SAYS(merges({"a b", bad}),
                "tokenizer.ggml.merges: entry 1 is not two tokens of the vocabulary that make a third");
  const auto types = [&](const std::vector<int32_t>& t) {
    return error(
        changed(byte_level(), "tokenizer.ggml.token_type").numbers("tokenizer.ggml.token_type", GgufType::i32, t));
  };
  EXPECT_SAYS(types({1, 1}), "has 2 entries for 7 tokens");
  EXPECT_SAYS(types({3, 3, 7, 1, 1, 1, 5}), "token 2 has the unknown type 7");
  EXPECT_SAYS(types({3, 3, 4, 0, 1, 1, 5}), "token 3 has the unknown type 0");
  const auto tokens = [&](const std::vector<std::string>& t) {
    return error(changed(byte_level(), "tokenizer.ggml.tokens").texts("tokenizer.ggml.tokens", t));
  };
  EXPECT_SAYS(tokens({"<bos>", "<eos>", "<think>", "a", "b", "ab", "a"}), "tokens 3 and 6 are both \"a\"");
  EXPECT_SAYS(tokens({"<bos>", "<eos>", "<think>", "a", "b", "ab", "\xff"}),
              "token 6 is longer than 1024 bytes or no valid UTF-8");
  EXPECT_SAYS(tokens({"<bos>", "<eos>", "<think>", "a", "b", "ab", std::string(2000, 'x')}),
              "token 6 is longer than 1024 bytes");
  EXPECT_SAYS(tokens(std::vector<std::string>(8, "x")), "has 8 entries, but the embedding has 7 rows");
  const auto scores = [&](const std::vector<float>& s) {
    return error(changed(sentencepiece(), "tokenizer.ggml.scores").numbers("tokenizer.ggml.scores", GgufType::f32, s));
  };
  EXPECT_SAYS(scores({1, 2}), "tokenizer.ggml.scores has 2 entries for 12 tokens");
  EXPECT_SAYS(scores({0, 0, 0, NAN, 0, 0, 0, 0, 0, 0, 0, 0}), "tokenizer.ggml.scores: entry 3 is nan");
  EXPECT_SAYS(error(byte_level().u32("tokenizer.ggml.unknown_token_id", 6)),
              "\"tokenizer.ggml.unknown_token_id\" is 6, which is none of the 6 tokens");
  EXPECT_SAYS(error(byte_level().text("tokenizer.chat_template", "\xc3")),
              "\"tokenizer.chat_template\" is no valid UTF-8");
}

// Published tokenizers: what a converter would make of them is built here, and we must find our way back.
struct Published {
  const char *file, *model, *pre;  // pre: null for SentencePiece
  bool space_prefix;
  bool older_order = false;  // of the splits of one piece; it changes nothing but the cut of runs of one character
};

json published(const std::string& name) {
  std::ifstream in(std::string(AWQ_SHARED_DIR) + "/data/tokenizers/" + name);
  return in ? json::parse(in) : json();
}

struct Listed {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;
};

Listed listed(const json& t) {
  std::map<size_t, std::pair<std::string, int32_t>> by_id;
  for (const auto& [token, id] : t["model"]["vocab"].items())
    by_id[id] = {token, token.size() == 6 && token.starts_with("<0x") ? 6 : 1};
  for (const json& a : t["added_tokens"]) by_id[a["id"]] = {a["content"], a["special"] ? 3 : 4};
  Listed l;
  for (const auto& [id, token] : by_id) {
    EXPECT_EQ(id, l.tokens.size());
    l.tokens.push_back(token.first);
    l.types.push_back(token.second);
  }
  for (const json& m : t["model"]["merges"])
    l.merges.push_back(m.is_string() ? m.get<std::string>() : m[0].get<std::string>() + " " + m[1].get<std::string>());
  return l;
}

std::string joined(const std::string& merge) {
  return merge.substr(0, merge.find(' ')) + merge.substr(merge.find(' ') + 1);
}

/// The n-th piece that merges make has score -n; the converter gives special and user-defined ones -1000.
std::vector<float> scores_of(const Listed& l) {
  std::map<std::string, size_t> ids;
  for (size_t i = 0; i < l.tokens.size(); ++i) ids[l.tokens[i]] = i;
  std::vector<float> scores(l.tokens.size(), 1);
  float next = 0;
  for (const std::string& m : l.merges) {
    const size_t id = ids.at(joined(m));
    if (scores[id] == 1 && l.types[id] == 1) scores[id] = next--;
  }
  for (float& s : scores) s = s == 1 ? -1000 : s;
  return scores;
}

GgufBuilder converted(const Published& p, const json& truth) {
  const Listed l = listed(truth);
  GgufBuilder b = file_with(p.model, l.tokens, l.types);
  if (p.pre)
    b.text("tokenizer.ggml.pre", p.pre).texts("tokenizer.ggml.merges", l.merges);
  else
    b.numbers("tokenizer.ggml.scores", GgufType::f32, scores_of(l))
        .flag("tokenizer.ggml.add_space_prefix", p.space_prefix);
  const std::string text = truth["post_processor"].dump();
  for (const char* bos : {"<s>", "<bos>", "<|begin_of_text|>"})
    if (text.find(bos) != text.npos)
      b.u32("tokenizer.ggml.bos_token_id", uint32_t(std::ranges::find(l.tokens, bos) - l.tokens.begin()));
  if (truth["model"]["unk_token"].is_string())
    b.u32("tokenizer.ggml.unknown_token_id",
          uint32_t(std::ranges::find(l.tokens, truth["model"]["unk_token"].get<std::string>()) - l.tokens.begin()));
  return b;
}

class PublishedTokenizer : public testing::TestWithParam<Published> {};

TEST_P(PublishedTokenizer, IsFoundAgain) {
  const json truth = published(GetParam().file);
  if (truth.is_null()) GTEST_SKIP() << "the shared data have no tokenizers/" << GetParam().file;
  json ours = side_file(converted(GetParam(), truth), "tokenizer.json");
  for (const json& a : truth["added_tokens"]) {  // not all are in the published vocabulary; in ours they are
    EXPECT_EQ(ours["model"]["vocab"][a["content"].get<std::string>()], a["id"]);
    if (!truth["model"]["vocab"].contains(a["content"])) ours["model"]["vocab"].erase(a["content"].get<std::string>());
  }
  for (const char* part :
       {"version", "truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    json want = truth[part];
    if (want.is_object() && want["type"] == "ByteLevel" && !want.contains("use_regex"))
      want["use_regex"] = true;  // older files rely on the default
    EXPECT_EQ(ours[part], want) << part;
  }
  json model = truth["model"];
  model.erase("merges");
  for (const auto& [key, value] : model.items()) EXPECT_TRUE(ours["model"][key] == value) << key;
  Listed want = listed(truth), got = listed(ours);
  if (!GetParam().older_order) {
    EXPECT_TRUE(got.merges == want.merges);
    return;
  }
  ASSERT_EQ(got.merges.size(), want.merges.size());
  for (size_t i = 0; i < got.merges.size(); ++i) ASSERT_EQ(joined(got.merges[i]), joined(want.merges[i])) << i;
  std::ranges::sort(got.merges);
  std::ranges::sort(want.merges);
  EXPECT_TRUE(got.merges == want.merges);
}

std::string name_of(const testing::TestParamInfo<Published>& tokenizer) {
  std::string name(tokenizer.param.file);
  name.resize(name.find_first_of("./"));
  return name;
}
INSTANTIATE_TEST_SUITE_P(, PublishedTokenizer,
                         testing::Values(Published{"gpt2.tokenizer.json", "gpt2", "gpt-2", false},
                                         Published{"llama2.tokenizer.json", "llama", nullptr, true, true}),
                         name_of);
// Files of 9 to 33 MB, or of no other kind than those above: without optimization and under sanitizers they take
// minutes and show nothing more.
INSTANTIATE_TEST_SUITE_P(RealModel, PublishedTokenizer,
                         testing::Values(Published{"llama3_1/tokenizer.json", "gpt2", "llama-bpe", false},
                                         Published{"qwen3/tokenizer.json", "gpt2", "qwen2", false},
                                         Published{"mpt.tokenizer.json", "gpt2", "mpt", false},
                                         Published{"falcon/tokenizer.json", "gpt2", "falcon", false},
                                         Published{"mistral03.tokenizer.json", "llama", nullptr, true, true},
                                         Published{"gemma3/tokenizer.json", "llama", nullptr, false}),
                         name_of);

// The real file against the published tokenizer. The published one has a token for images besides, and does not call
// its placeholders <unused0>, <unused1>, ... special.
TEST(GgufRealModel, Gemma3TokenizerIsThePublishedOne) {
  const char* path = std::getenv("AWQ_GEMMA3_GGUF");
  if (!path) GTEST_SKIP() << "set AWQ_GEMMA3_GGUF to gemma-3-270m-q4_k_m.gguf";
  const json truth = published("gemma3/tokenizer.json");
  if (truth.is_null()) GTEST_SKIP() << "the shared data have no tokenizers/gemma3/tokenizer.json";
  const json ours = side_file(Gguf{std::filesystem::path(path)}, "tokenizer.json");
  for (const char* part :
       {"version", "truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"})
    EXPECT_EQ(ours[part], truth[part]) << part;
  json model = truth["model"];
  model.erase("merges");
  for (const auto& [key, value] : model.items()) EXPECT_TRUE(ours["model"][key] == value) << key;
  EXPECT_TRUE(listed(ours).merges == listed(truth).merges);
  ASSERT_EQ(ours["added_tokens"].size() + 1, truth["added_tokens"].size());
  for (size_t i = 0; i < ours["added_tokens"].size(); ++i) {
    json a = ours["added_tokens"][i], b = truth["added_tokens"][i];
    a.erase("special");
    b.erase("special");
    ASSERT_EQ(a, b);
  }
}

}  // namespace
}  // namespace awq
