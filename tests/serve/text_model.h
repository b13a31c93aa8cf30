#pragma once
#include "formats/format.h"
#include "text/byte_alphabet.h"

namespace awq::test {

/// The text side of a model without weights: a token each byte, and a chat template that knows tools and thinking.
class TextModel final : public Checkpoint {
 public:
  static constexpr int kVocab = 260;
  static constexpr std::string_view kTemplate =
      R"({% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>)"
      R"({{ c.function.arguments | tojson }}</tool_call>{% endfor %}{% endfor %}{% if tools %}{{ tools | tojson }})"
      R"({% endif %}{% if add_generation_prompt %}<|assistant|>{% if enable_thinking %}<think>{% endif %}{% endif %})";

  explicit TextModel(std::string_view chat_template = kTemplate) : template_(chat_template) {}
  std::string_view format() const override { return "text"; }
  const nlohmann::json& config() const override { return config_; }
  const ModelSpec& spec() const override { return spec_; }
  std::string described_in() const override { return "text_model.h"; }
  std::vector<TensorInfo> tensors() const override { return {}; }
  Weight weight(int, Param) const override { return Tensor(); }
  Tensor bias(int, Param) const override { return {}; }
  std::vector<SideFile> side_files() const override {
    return {{"tokenizer.json", tokenizer().dump(), {}},
            {"tokenizer_config.json", nlohmann::json{{"chat_template", template_}}.dump(), {}}};
  }

 private:
  static nlohmann::json tokenizer() {
    nlohmann::json vocab = nlohmann::json::object();
    for (int b = 0; b < 256; ++b) {
      std::string character;
      const char byte = static_cast<char>(b);
      append_as_characters(character, std::string_view(&byte, 1));
      vocab[character] = b;
    }
    return {{"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
            {"decoder", {{"type", "ByteLevel"}}},
            {"added_tokens", {{{"id", kEnd}, {"content", "<|end|>"}, {"special", true}}}},
            {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  }

  static constexpr int kEnd = 259;
  const std::string template_;
  const nlohmann::json config_ = {{"eos_token_id", kEnd}};
  const ModelSpec spec_{};
};

}  // namespace awq::test
