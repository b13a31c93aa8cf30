#pragma once
// One case of the vectors that tools/make_*_vectors.py write.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "awq/error.h"
#include "text/base64.h"
#include "text/chat_template.h"
#include "text/sentencepiece.h"
#include "text/tiktoken.h"
#include "text/tokenizer.h"

namespace awq::test {

/// 2024-07-26 13:05:09, which the vectors were made with.
inline std::tm moment() {
  std::tm t{};
  t.tm_year = 124;
  t.tm_mon = 6;
  t.tm_mday = 26;
  t.tm_hour = 13;
  t.tm_min = 5;
  t.tm_sec = 9;
  t.tm_wday = 5;
  t.tm_yday = 207;
  return t;
}

inline ChatTemplate::Options options_of(const nlohmann::ordered_json& variables) {
  ChatTemplate::Options o;
  o.add_generation_prompt = variables.value("add_generation_prompt", false);
  o.bos_token = variables.value("bos_token", "");
  o.eos_token = variables.value("eos_token", "");
  o.tools = variables.value("tools", nlohmann::ordered_json());
  o.documents = variables.value("documents", nlohmann::ordered_json());
  o.extra = variables.value("extra", nlohmann::ordered_json());
  o.now = moment();
  return o;
}

/// Empty if the template does what `expected` ("output" or "error") says, else what is different.
inline std::string template_difference(const std::string& source, const nlohmann::ordered_json& variables,
                                       const nlohmann::ordered_json& expected) {
  std::string got;
  try {
    got = ChatTemplate(source).render(variables.at("messages"), options_of(variables));
  } catch (const Error& e) {
    return expected.contains("error") ? "" : fmt::format("refused: {}", e.what());
  }
  if (expected.contains("error"))
    return fmt::format("expected {}, got \"{}\"", expected.at("error").get<std::string>(), got);
  const auto& want = expected.at("output").get_ref<const std::string&>();
  return got == want ? "" : fmt::format("expected \"{}\", got \"{}\"", want, got);
}

inline std::string streamed(const Tokenizer& t, const std::vector<int32_t>& ids) {
  StreamDecoder decoder(t);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.flush();
}

/// Empty if ids and decoded texts are those of the case, else what is different.
inline std::string tokenizer_difference(const Tokenizer& t, const nlohmann::ordered_json& c) {
  const std::vector<int32_t> ids =
      t.encode(c.at("text").get<std::string>(), c.at("add_special").get<bool>(), c.at("parse_special").get<bool>());
  const nlohmann::ordered_json got = {{"ids", ids}, {"decoded", t.decode(ids)}, {"spoken", t.decode(ids, true)}};
  for (const auto& [key, value] : got.items())
    if (c.at(key) != value)
      return fmt::format("\"{}\": {} should be {}, is {}", c.at("text").get<std::string>(), key, c.at(key).dump(),
                         value.dump());
  return streamed(t, ids) == c.at("decoded")
             ? ""
             : fmt::format("\"{}\": streaming differs from decoding", c.at("text").get<std::string>());
}

inline Tokenizer model_of(const nlohmann::ordered_json& made) {
  if (made.contains("tiktoken"))
    return parse_tiktoken(made.at("tiktoken").get<std::string>(), made.at("splitting").get<std::string>(), nullptr);
  return parse_sentencepiece(*decode_base64(made.at("sentencepiece").get<std::string>()), nullptr);
}

/// The same for a case of the sentencepiece and tiktoken libraries. One without a text is decoded only.
inline std::string sentencepiece_difference(const Tokenizer& t, const nlohmann::ordered_json& c) {
  const auto want = c.at("ids").get<std::vector<int32_t>>();
  if (c.contains("text") || c.contains("bytes")) {
    const std::string text =
        c.contains("text") ? c.at("text").get<std::string>() : *decode_base64(c.at("bytes").get<std::string>());
    const std::vector<int32_t> ids = t.encode(text, true, false);
    if (ids != want) return fmt::format("\"{}\": {} should be {}", text, fmt::join(ids, " "), fmt::join(want, " "));
  }
  const std::string decoded = t.decode(want, true), wanted = c.at("decoded").get<std::string>();
  return decoded == wanted ? "" : fmt::format("{}: \"{}\" should be \"{}\"", fmt::join(want, " "), decoded, wanted);
}

}  // namespace awq::test
