#include "text/sentencepiece.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "awq/error.h"
#include "text/base64.h"
#include "text/text_cases.h"
#include "text/tiktoken.h"

namespace awq {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson models() {
  std::ifstream in(AWQ_TEST_DIR "/text/golden/sentencepiece.json");
  return OrderedJson::parse(in).at("models");
}

// Models of every kind, tiny, against the libraries (tools/make_sentencepiece_vectors.py).
TEST(SentencePiece, EqualsTheLibrary) {
  const OrderedJson made = models();
  ASSERT_EQ(made.size(), 9u);
  for (const OrderedJson& m : made) {
    const Tokenizer t = test::model_of(m);
    for (const OrderedJson& c : m.at("cases")) EXPECT_EQ(test::sentencepiece_difference(t, c), "") << m.at("name");
  }
}

TEST(SentencePiece, StreamingEqualsDecoding) {
  for (const OrderedJson& m : models()) {
    const Tokenizer t = test::model_of(m);
    for (const OrderedJson& c : m.at("cases")) {
      const auto ids = c.at("ids").get<std::vector<int32_t>>();
      EXPECT_EQ(test::streamed(t, ids), t.decode(ids)) << m.at("name");
    }
  }
}

TEST(SentencePiece, ConfigSaysWhatIsPutAround) {
  const std::string model = *decode_base64(models().at(1).at("sentencepiece").get<std::string>());
  const Tokenizer plain = parse_sentencepiece(model, nullptr);
  EXPECT_EQ(plain.encode("", true, false), std::vector<int32_t>{});
  EXPECT_EQ(plain.bos(), 1);
  EXPECT_EQ(plain.eos(), 2);
  const Tokenizer t = parse_sentencepiece(model, {{"add_bos_token", true}, {"add_eos_token", true}});
  EXPECT_EQ(t.encode("", true, false), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(t.encode("</s>", false, true), std::vector<int32_t>{2});
  EXPECT_EQ(t.decode(std::vector<int32_t>{1, 2}, true), "");
}

/// Every prefix, and every file with one bit changed, is read or refused.
TEST(SentencePiece, DamagedFiles) {
  const std::string model = *decode_base64(models().at(0).at("sentencepiece").get<std::string>());
  const auto read = [](const std::string& bytes) {
    try {
      parse_sentencepiece(bytes, nullptr).encode("Hello  world", true, true);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(read(model));
  EXPECT_FALSE(read(""));
  EXPECT_FALSE(read("not a model"));
  int refused = 0;
  for (size_t at = 0; at < model.size(); at += 5) {
    read(model.substr(0, at));
    std::string changed = model;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    refused += read(changed) ? 0 : 1;
  }
  EXPECT_GT(refused, 100);
}

std::string tiktoken_error(const std::string& ranks, const char* splitting) {
  try {
    parse_tiktoken(ranks, splitting, nullptr);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Tiktoken, ErrorsNameTheLine) {
  const std::string good = models().at(8).at("tiktoken");
  EXPECT_EQ(tiktoken_error(good, "llama3"), "");
  EXPECT_NE(tiktoken_error(good, "nosuch").find("\"nosuch\" is not known; this version has smollm"), std::string::npos);
  EXPECT_NE(tiktoken_error("IQ== 0\nIg==\n", "llama3").find("line 2"), std::string::npos);
  EXPECT_NE(tiktoken_error("IQ== 0\nIg= 1\n", "llama3").find("line 2"), std::string::npos);
  EXPECT_NE(tiktoken_error("IQ== 0\n", "llama3").find("no token for the byte 00"), std::string::npos);
}

TEST(Base64, IsStrict) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("YQ=="), "a");
  EXPECT_EQ(decode_base64("YWI="), "ab");
  EXPECT_EQ(decode_base64("YWJj"), "abc");
  for (const char* bad : {"Y", "YQ", "YQ=", "YR==", "Y===", "Y!==", "YQ==YQ=="})
    EXPECT_EQ(decode_base64(bad), std::nullopt) << bad;
}

}  // namespace
}  // namespace awq
