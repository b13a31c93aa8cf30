// The language in the config of a model of several parts: where it is described, what files leave out, and which of the
// families it is.
#include "model/arch/config.h"

namespace awq {
namespace {

/// What published files leave out because it is the default of the language's own config.
nlohmann::json language_defaults(const std::string& type) {
  if (type == "gemma3_text")
    return {{"vocab_size", 262208},    {"num_attention_heads", 8},       {"num_key_value_heads", 4},
            {"head_dim", 256},         {"rms_norm_eps", 1e-6},           {"hidden_activation", "gelu_pytorch_tanh"},
            {"hidden_size", 2304},     {"intermediate_size", 9216},      {"num_hidden_layers", 26},
            {"sliding_window", 4096},  {"query_pre_attn_scalar", 256},   {"max_position_embeddings", 131072},
            {"rope_theta", 1000000.0}, {"rope_local_base_freq", 10000.0}};
  nlohmann::json d = {{"hidden_size", 4096},
                      {"num_hidden_layers", 32},
                      {"num_attention_heads", 32},
                      {"intermediate_size", 11008},
                      {"hidden_act", "silu"},
                      {"rms_norm_eps", 1e-6},
                      {"max_position_embeddings", 2048},
                      {"vocab_size", 32000}};
  if (type == "mistral") d.update({{"intermediate_size", 14336}, {"num_key_value_heads", 8}});
  return d;
}

/// The object that describes the language: one of its own, or the whole file.
nlohmann::json language_object(const nlohmann::json& json) {
  for (const char* key : {"text_config", "llm_config", "llm_cfg"})
    if (Config(json).has(key)) {
      nlohmann::json text = language_defaults(json.at(key).value("model_type", ""));
      text.update(json.at(key));
      if (!text.contains("tie_word_embeddings") && json.contains("tie_word_embeddings"))
        text["tie_word_embeddings"] = json.at("tie_word_embeddings");
      return text;
    }
  return json;
}

/// For text alone m-rope is what its type without the axes is.
void forget_axes(nlohmann::json& text) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = text.find(key);
    if (rope == text.end() || !rope->is_object() || !rope->contains("mrope_section")) continue;
    for (const char* axes : {"mrope_section", "mrope_interleaved"}) rope->erase(axes);
    for (const char* type : {"type", "rope_type"})
      if (rope->value(type, "") == "mrope") (*rope)[type] = "default";
  }
}

std::string language_of(const std::string& type) {
  static constexpr std::pair<const char*, const char*> kLanguages[] = {
      {"llama", "LlamaForCausalLM"},           {"mistral", "MistralForCausalLM"},
      {"qwen2", "Qwen2ForCausalLM"},           {"qwen3", "Qwen3ForCausalLM"},
      {"gemma3_text", "Gemma3ForCausalLM"},    {"qwen2_vl", "Qwen2ForCausalLM"},
      {"qwen2_vl_text", "Qwen2ForCausalLM"},   {"qwen2_5_vl", "Qwen2ForCausalLM"},
      {"qwen2_5_vl_text", "Qwen2ForCausalLM"}, {"qwen3_vl_text", "Qwen3ForCausalLM"},
      {"qwen3_5_text", "Qwen3_5ForCausalLM"},  {"mpt", "MPTForCausalLM"},
      {"gemma4_text", "Gemma4ForCausalLM"},    {"qwen3_5_moe_text", "Qwen3_5MoeForCausalLM"},
      {"internlm2", "InternLM2ForCausalLM"},   {"phi3", "Phi3ForCausalLM"}};
  for (const auto& [name, language] : kLanguages)
    if (type == name) return language;
  fail("config", "config.json: a language of \"model_type\" \"{}\" in this kind of model is not known", type);
}

}  // namespace

nlohmann::json language_config(const nlohmann::json& json) {
  nlohmann::json text = language_object(json);
  forget_axes(text);
  text["architectures"] = {language_of(Config(text).text("model_type", ""))};
  return text;
}

}  // namespace awq
