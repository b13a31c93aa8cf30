#pragma once
// One case of the vectors that tools/make_*_vectors.py write.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "awq/error.h"
#include "text/chat_template.h"
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

}  // namespace awq::test
