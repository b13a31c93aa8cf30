// Bodies of all endpoints, through the parser, the request and the engine's check of it, and the reply to some tokens.
// The first byte chooses the endpoint. What the API accepts, the engine must accept, and every reply must be JSON.
#include <cstdint>
#include <cstdlib>

#include "awq/error.h"
#include "bench/random_model.h"
#include "serve/messages.h"
#include "serve/text_model.h"

namespace {

using Json = nlohmann::ordered_json;

struct Server {
  awq::Device device{1, "", awq::Activations::int16, awq::Tiles::never};
  std::unique_ptr<awq::Checkpoint> checkpoint = awq::random_model({{"architectures", {"LlamaForCausalLM"}},
                                                                   {"hidden_size", 64},
                                                                   {"intermediate_size", 64},
                                                                   {"num_hidden_layers", 1},
                                                                   {"num_attention_heads", 2},
                                                                   {"num_key_value_heads", 1},
                                                                   {"vocab_size", awq::test::TextModel::kVocab},
                                                                   {"max_position_embeddings", 512},
                                                                   {"rms_norm_eps", 1e-5},
                                                                   {"hidden_act", "silu"},
                                                                   {"tie_word_embeddings", false}},
                                                                  awq::groups_of(32), {}, 1, device.pool);
  awq::Model model = awq::load_model(*device.backend, *checkpoint);
  awq::Batcher batcher{device, model, {.kv_bytes = 1 << 20}};
  awq::TextSide text{awq::test::TextModel()};
  awq::ApiModel api{"m", text, {}, batcher.longest()};
};

void require_json(const std::string& text) {
  if (!Json::accept(text)) abort();
}

/// Each line "data: ..." of a stream is JSON, or [DONE].
void require_events(std::string_view events) {
  for (size_t at; (at = events.find("data: ")) != std::string_view::npos;) {
    events.remove_prefix(at + 6);
    const std::string_view data = events.substr(0, events.find('\n'));
    if (data != "[DONE]") require_json(std::string(data));
    events.remove_prefix(data.size());
  }
}

void answer(const awq::AnswerCall& call, const Server& s, std::string_view tokens) {
  for (const auto& prompt : call.prompts) {
    awq::ServeRequest r = call.request;
    r.prompt = prompt;
    s.batcher.check(r);
  }
  const auto form = call.messages ? awq::messages_form(s.api) : awq::openai_form(call, s.api);
  awq::Choice choice(call, s.api, 0, 0);
  const awq::Choice* const given = &choice;
  const awq::Usage usage{1, 1};
  require_events(form->begin(usage));
  for (char c : tokens.substr(0, 200)) {
    const bool on = choice.token({.token = uint8_t(c), .top = {{1, -1.f}}});
    require_events(form->part(choice, choice.take(), usage));
    if (!on) break;
  }
  choice.end(awq::ServeEnd::stop);
  require_events(form->part(choice, choice.take(), usage) + form->end(usage));
  require_json(awq::dumped(form->whole({&given, 1}, usage)));
}

void run(uint8_t endpoint, const Json& body, const Server& s, std::string_view tokens) {
  switch (endpoint % 6) {
    case 0:
      return answer(awq::completion_call(body, s.api), s, tokens);
    case 1:
      return answer(awq::chat_call(body, s.api), s, tokens);
    case 2: {
      awq::AnswerCall call = awq::chat_call(awq::chat_body(body), s.api);
      call.messages = true;
      return answer(call, s, tokens);
    }
    case 3:
      return void(awq::embedding_call(body, s.api));
    case 4:
      return void(awq::tokenize_ids(body, s.api));
    default:
      return void(s.text.tokenizer().decode(awq::detokenize_ids(body, s.api)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Server server;
  if (!size) return 0;
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    run(data[0], awq::parsed_body(body), server, body);
  } catch (const awq::ApiError& e) {
    require_json(awq::dumped(e.json()));
    require_json(awq::dumped(awq::messages_error(e)));
  }
  return 0;
}
