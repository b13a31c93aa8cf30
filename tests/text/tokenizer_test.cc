#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "awq/error.h"
#include "sanitized.h"
#include "text/text_cases.h"
#include "text/utf8.h"

namespace awq {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Bytes a to e and some merges, in the byte alphabet.
Json tiny() {
  return Json::parse(R"({
    "added_tokens": [{"id": 9, "content": "<s>", "special": true, "normalized": false},
                     {"id": 10, "content": "<tool>", "special": false, "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "bc": 5, "Ã": 6, "©": 7, "Ġ": 8},
              "merges": ["a b", "ab c", "b c"]}})");
}

Tokenizer tokenizer_of(const Json& j) { return Tokenizer::from_json(j, nullptr); }

std::string error_of(const Json& j, const Json& config = nullptr) {
  try {
    Tokenizer::from_json(j, config);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  const Tokenizer t = tokenizer_of(tiny());
  EXPECT_EQ(t.encode("abc", false, false), (Ids{4}));
  EXPECT_EQ(t.encode("bcabab", false, false), (Ids{5, 3, 3}));
  EXPECT_EQ(t.encode("aabb", false, false), (Ids{0, 3, 1}));
  EXPECT_EQ(t.encode("", true, true), Ids{});
  EXPECT_EQ(t.encode("axb", false, false), (Ids{3}));  // without an unknown token, x vanishes, as in the reference
}

TEST(Tokenizer, SpecialTokensAreParsedOnlyWhenAsked) {
  Json j = tiny();
  j["model"]["vocab"]["<"] = 11;
  j["model"]["vocab"]["s"] = 12;
  j["model"]["vocab"][">"] = 13;
  const Tokenizer t = tokenizer_of(j);
  EXPECT_EQ(t.encode("a<s>b<tool>", false, true), (Ids{0, 9, 1, 10}));
  EXPECT_EQ(t.encode("a<s>b<tool>", false, false), (Ids{0, 11, 12, 13, 1, 10}));
  EXPECT_EQ(t.decode(Ids{0, 9, 1, 10}, true), "ab<tool>");
  EXPECT_EQ(t.decode(Ids{0, 9, 1, 10}), "a<s>b<tool>");
  EXPECT_TRUE(t.is_special(9));
  EXPECT_FALSE(t.is_special(10));
  EXPECT_FALSE(t.is_special(0));
}

TEST(Tokenizer, KnowsItsTokens) {
  const Json config = {{"bos_token", "<s>"}, {"eos_token", {{"content", "abc"}}}};
  const Tokenizer t = Tokenizer::from_json(tiny(), config);
  EXPECT_EQ(t.vocab_size(), 11);
  EXPECT_EQ(t.bos(), 9);
  EXPECT_EQ(t.eos(), 4);
  EXPECT_EQ(t.id_of("<tool>"), 10);
  EXPECT_EQ(t.id_of("nope"), std::nullopt);
  EXPECT_EQ(t.token_text(4), "abc");
  EXPECT_EQ(t.token_text(99), "");
  EXPECT_EQ(t.decode(Ids{-1, 0, 99, 1}), "ab");  // ids of a padded head
  EXPECT_EQ(tokenizer_of(tiny()).bos(), std::nullopt);
}

TEST(Tokenizer, ConfigAddsTokensAndWins) {
  const Json config = Json::parse(R"({"added_tokens_decoder": {"20": {"content": "<new>", "special": true},
                                      "10": {"content": "<tool>", "special": true}}})");
  const Tokenizer t = Tokenizer::from_json(tiny(), config);
  EXPECT_EQ(t.encode("a<new><tool>", false, true), (Ids{0, 20, 10}));
  EXPECT_TRUE(t.is_special(10));
  EXPECT_EQ(t.vocab_size(), 21);
}

TEST(Tokenizer, InvalidUtf8CountsAsReplacementCharacters) {
  Json j = tiny();
  j["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  for (const char* byte : {"ï", "¿", "½"}) j["model"]["vocab"][byte] = 20 + int(j["model"]["vocab"].size());
  const Tokenizer t = tokenizer_of(j);
  EXPECT_EQ(t.encode("a\xC3z\xF0\x9F", false, false), t.encode("a\xEF\xBF\xBDz\xEF\xBF\xBD", false, false));
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const Tokenizer t = tokenizer_of(tiny());
  StreamDecoder d(t);
  EXPECT_EQ(d.push(6), "");
  EXPECT_EQ(d.push(7), "é");
  EXPECT_EQ(d.push(6), "");
  EXPECT_EQ(d.push(0),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(d.push(6), "");
  EXPECT_EQ(d.flush(), "\xEF\xBF\xBD");
}

TEST(StreamDecoder, ByteFallbackWaitsForTheRunToEnd) {
  Json j = tiny();
  j["decoder"] = Json::parse(
      R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": "a", "start": 1, "stop": 2}]})");
  j["model"]["vocab"] = {{"<0xC3>", 0}, {"<0xA9>", 1}, {"a", 2}, {"b", 3}};
  j["model"]["merges"] = Json::array();
  const Tokenizer t = tokenizer_of(j);
  EXPECT_EQ(t.decode(Ids{2, 2, 0, 1, 3}), "aéb");
  EXPECT_EQ(t.decode(Ids{0, 1, 0, 3}),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
            "b");  // one bad byte spoils its run
  EXPECT_EQ(t.decode(Ids{2, 3, 2, 2, 2}), "ba");
  EXPECT_EQ(t.decode(Ids{2, 2}), "");
  StreamDecoder d(t);
  EXPECT_EQ(d.push(0), "");
  EXPECT_EQ(d.push(1), "");
  EXPECT_EQ(d.push(3), "éb");
  EXPECT_EQ(d.push(2), "");  // may be the end that Strip takes
  EXPECT_EQ(d.push(3), "ab");
}

TEST(Tokenizer, ErrorsNameTheComponent) {
  const auto with = [](const char* key, const char* value) {
    Json j = tiny();
    j[key] = Json::parse(value);
    return error_of(j);
  };
  EXPECT_NE(with("normalizer", R"({"type": "Nosuch"})").find("normalizer Nosuch is not implemented"),
            std::string::npos);
  EXPECT_NE(with("normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "AAAA"})").find("is damaged"),
            std::string::npos);
  EXPECT_NE(with("pre_tokenizer", R"({"type": "UnicodeScripts"})").find("pre_tokenizer UnicodeScripts"),
            std::string::npos);
  EXPECT_NE(with("post_processor", R"({"type": "BertProcessing", "sep": ["x"], "cls": ["y", 2]})")
                .find("\"sep\" of post_processor BertProcessing should be a token and its id"),
            std::string::npos);
  EXPECT_NE(with("pre_tokenizer", R"({"type": "FixedLength", "length": 0})").find("a positive number"),
            std::string::npos);
  EXPECT_NE(with("decoder", R"({"type": "Nosuch"})").find("decoder Nosuch"), std::string::npos);
  EXPECT_NE(with("model", R"({"type": "Nosuch", "vocab": {}})").find("\"Nosuch\" is not implemented"),
            std::string::npos);
  EXPECT_NE(
      with("model", R"({"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1})").find("\"unk_id\" of model Unigram"),
      std::string::npos);
  EXPECT_NE(
      with("model", R"({"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]"})").find("\"[UNK]\" is not in"),
      std::string::npos);
  EXPECT_NE(
      with("model", R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})").find("names \"b\", which is no token"),
      std::string::npos);
  EXPECT_NE(with("model", R"({"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1})").find("dropout"),
            std::string::npos);
  EXPECT_NE(with("pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated"})")
                .find("intersection"),
            std::string::npos);
  EXPECT_NE(with("pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Nope"})")
                .find("behavior Nope"),
            std::string::npos);
  EXPECT_NE(with("added_tokens", R"([{"id": 0, "content": "<x>"}])").find("which the vocabulary gives \"a\""),
            std::string::npos);
  EXPECT_NE(with("added_tokens", R"([{"id": 30, "content": "ab"}])").find("but the vocabulary gives it 3"),
            std::string::npos);
  EXPECT_NE(error_of(tiny(), {{"eos_token", "</s>"}}).find("eos_token is \"</s>\""), std::string::npos);
}

// Every one of these must be an Error, none may crash or be read as something else.
TEST(Tokenizer, DamagedFiles) {
  for (const char* text : {"null", "[]", "3", "{}", R"({"model": 5})", R"({"model": {}})", R"({"model": {"type": 1}})",
                           R"({"model": {"type": "BPE"}})", R"({"model": {"type": "BPE", "vocab": [], "merges": []}})",
                           R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})",
                           R"({"model": {"type": "BPE", "vocab": {"a": 99999999}, "merges": []}})",
                           R"({"model": {"type": "BPE", "vocab": {"a": 1.5}, "merges": []}})",
                           R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})",
                           R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}})",
                           R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a a"]}})",
                           R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}})"})
    EXPECT_NE(error_of(Json::parse(text)), "") << text;
}

class Golden : public testing::Test {
 protected:
  static nlohmann::ordered_json load() {
    return nlohmann::ordered_json::parse(read_file(AWQ_TEST_DIR "/text/golden/tokenizers.json")).at("tokenizers");
  }
};

// Every shape of tokenizer, tiny, against the reference library (tools/make_tokenizer_vectors.py).
TEST_F(Golden, TinyTokenizersEqualTheReference) {
  const auto made = load();
  ASSERT_EQ(made.size(), 28u);
  for (const auto& m : made) {
    const Tokenizer t = tokenizer_of(Json::parse(m.at("tokenizer").dump()));
    for (const auto& c : m.at("cases")) EXPECT_EQ(test::tokenizer_difference(t, c), "") << m.at("name");
  }
}

TEST_F(Golden, StreamingNeverCutsACharacter) {
  for (const auto& m : load()) {
    const Tokenizer t = tokenizer_of(Json::parse(m.at("tokenizer").dump()));
    StreamDecoder d(t);
    Ids ids;
    std::string text;
    for (int32_t i = 0; i < 4 * t.vocab_size(); ++i) {
      ids.push_back(int32_t(uint32_t(i) * 2654435761u % uint32_t(t.vocab_size())));
      const std::string part = d.push(ids.back());
      ASSERT_TRUE(utf8::valid(part)) << m.at("name");
      text += part;
    }
    EXPECT_EQ(text + d.flush(), t.decode(ids)) << m.at("name");
  }
}

TEST_F(Golden, ThreadsShareATokenizer) {
  const auto made = load();
  const Tokenizer t = tokenizer_of(Json::parse(made.at(2).at("tokenizer").dump()));
  const auto check = [&] {
    for (const auto& c : made.at(2).at("cases")) ASSERT_EQ(test::tokenizer_difference(t, c), "");
  };
  std::thread other(check);
  check();
  other.join();
}

TEST(Tokenizer, AWordThatNothingCoversIsAnError) {
  const Json model = Json::parse(R"({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"})");
  const Tokenizer t = tokenizer_of({{"model", model}, {"pre_tokenizer", {{"type", "FixedLength"}}}});
  EXPECT_EQ(t.encode("a", false, false), Ids{0});
  EXPECT_THROW(t.encode("aaaaaa", false, false), Error);
}

/// What makes careless code quadratic.
std::vector<std::string> hostile_texts(size_t size) {
  std::vector<std::string> texts;
  for (const std::string_view part :
       {"e", " ", "\u200d\u2764\ufe0f", "([{<", "e\u0301\u0323", "<|im_start|", " \n", "\u0323\u0301"}) {
    std::string& text = texts.emplace_back();
    while (text.size() < size) text.append(part);
  }
  std::string& random = texts.emplace_back(size, '\0');
  uint32_t state = 1;
  for (char& c : random) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return texts;
}

// In each of these a step that looks at all that is left for each character, or at each pair again for each merge,
// takes minutes.
TEST_F(Golden, HostileTextsTakeLinearTime) {
  const std::vector<std::string> texts = hostile_texts(kSanitized ? 20000 : 300000);
  for (const auto& m : load()) {
    const Tokenizer t = tokenizer_of(Json::parse(m.at("tokenizer").dump()));
    for (const std::string& text : texts) {
      const auto begin = std::chrono::steady_clock::now();
      const Ids ids = t.encode(text, false, true);
      t.decode(ids);
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
      EXPECT_LT(spent.count(), 10) << m.at("name") << ": "
                                   << text.substr(0, 12);  // ten times what a quiet machine takes
    }
  }
}

// --- published vectors

struct Published {
  const char *name, *file;
};

class PublishedVectors : public testing::TestWithParam<Published> {
 protected:
  static std::filesystem::path data() { return std::filesystem::path(AWQ_SHARED_DIR) / "data"; }

  static Ids numbers(const std::string& line) {
    Ids ids;
    std::stringstream in(line);
    for (std::string number; std::getline(in, number, ',');) ids.push_back(std::stoi(number));
    return ids;
  }

  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> out;
    std::stringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }

  /// In these inputs \n and \s stand for a newline and a blank.
  static std::string unescaped(std::string line) {
    for (const auto& [from, to] : {std::pair{"\\n", "\n"}, std::pair{"\\s", " "}})
      for (size_t at; (at = line.find(from)) != std::string::npos;) line.replace(at, 2, to);
    return line;
  }
};

TEST_P(PublishedVectors, Exact) {
  const auto tokenizer = data() / "tokenizers" / GetParam().file;
  if (!std::filesystem::exists(tokenizer)) GTEST_SKIP() << "needs the shared data: " << tokenizer;
  const Tokenizer t = Tokenizer::parse(read_file(tokenizer), nullptr);
  const auto vectors = [&](const std::string& what) {
    return read_file(data() / "tokenizer-vectors" / (what + ".txt"));
  };
  for (const std::string part : {"small", "mixed"}) {
    const auto texts = lines(vectors(part + "_input")), ids = lines(vectors(part + "_tokens_" + GetParam().name));
    ASSERT_EQ(texts.size(), ids.size());
    ASSERT_GE(texts.size(), 20u);
    for (size_t i = 0; i < texts.size(); ++i)
      EXPECT_EQ(t.encode(unescaped(texts[i]), false, true), numbers(ids[i])) << texts[i];
  }
  const std::string text = vectors("utf8_input");
  const Ids want = numbers(vectors(std::string("utf8_tokens_") + GetParam().name));
  EXPECT_EQ(t.encode(text, false, true), want);
  EXPECT_EQ(test::streamed(t, want), t.decode(want));
}

std::string name_of(const testing::TestParamInfo<Published>& p) { return p.param.name; }
INSTANTIATE_TEST_SUITE_P(Text, PublishedVectors,
                         testing::Values(Published{"gpt2", "gpt2.tokenizer.json"},
                                         Published{"gpt_neox", "gpt_neox.tokenizer.json"},
                                         Published{"llama2", "llama2.tokenizer.json"},
                                         Published{"mistral01", "mistral01.tokenizer.json"}),
                         name_of);
// Files of 9 and 33 MB: parsing them without optimization and under sanitizers takes a minute and shows nothing more.
INSTANTIATE_TEST_SUITE_P(RealModel, PublishedVectors,
                         testing::Values(Published{"gemma3", "gemma3/tokenizer.json"},
                                         Published{"llama32", "llama3_1/tokenizer.json"}),
                         name_of);

// The processor's time, to which other programs on the machine add little: what shares its core and caches. Where it is
// more than a second, the least of three.
double least_seconds(const std::function<void()>& work) {
  double least = 1;
  for (int i = 0; i < 3 && least >= 1; ++i) {
    const std::clock_t begin = std::clock();
    work();
    const double now = double(std::clock() - begin) / CLOCKS_PER_SEC;
    least = i ? std::min(least, now) : now;
  }
  return least;
}

TEST(RealModelTokenizers, AMegabyteOfHostileTextTakesLessThanASecond) {
  const auto folder = std::filesystem::path(AWQ_SHARED_DIR) / "data" / "tokenizers";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "needs the shared data: " << folder;
  const std::vector<std::string> texts = hostile_texts(kSanitized ? 20000 : 1000000);
  int tokenizers = 0;
  double slowest = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(folder)) {
    if (!file.path().filename().string().ends_with("tokenizer.json")) continue;
    const Tokenizer t = Tokenizer::parse(read_file(file.path()), nullptr);
    ++tokenizers;
    for (const std::string& text : texts) {
      Ids ids;
      const double encoded = least_seconds([&] { ids = t.encode(text, false, true); });
      const double decoded = least_seconds([&] { t.decode(ids); });
      EXPECT_LT(encoded, 1) << file.path() << ": " << text.substr(0, 12);
      EXPECT_LT(decoded, 1) << file.path() << ": " << text.substr(0, 12);
      slowest = std::max({slowest, encoded, decoded});
    }
  }
  EXPECT_GE(tokenizers, 10);
  RecordProperty("slowest_seconds", std::to_string(slowest));
}

}  // namespace
}  // namespace awq
