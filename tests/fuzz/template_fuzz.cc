// The source of a chat template, rendered with a conversation and a tool.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "awq/error.h"
#include "text/chat_template.h"
#include "text/utf8.h"

namespace {

awq::ChatTemplate::Options small_options() {
  awq::ChatTemplate::Options o;
  o.add_generation_prompt = true;
  o.bos_token = "<s>";
  o.tools = nlohmann::ordered_json::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"x": [1, 2.5, null]}}}])");
  o.extra = {{"s", "Hello World"}, {"t", {{"a", {1, 2}}, {"b", "c"}}}};
  o.now = std::tm{};
  o.max_work = 200000;
  o.max_output = 20000;
  return o;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const awq::ChatTemplate::Options options = small_options();
  static const auto messages = nlohmann::ordered_json::parse(
      R"([{"role": "system", "content": " Be terse. "}, {"role": "user", "content": "Hi <b>\u00e9"},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}])");
  try {
    const awq::ChatTemplate t(std::string(reinterpret_cast<const char*>(data), size));
    if (!awq::utf8::valid(t.render(messages, options))) abort();
  } catch (const awq::Error&) {
  }
  return 0;
}
