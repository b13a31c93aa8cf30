// Models that see: a language of a known family under a prefix, whose other parts are carried along. What they make of
// pictures enters the language as embeddings, which no scale reaches. Text has the same position on all axes of m-rope,
// which is then plain rope.
#include <array>

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
nlohmann::json language_config(const nlohmann::json& json) {
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
      {"internlm2", "InternLM2ForCausalLM"},   {"phi3", "Phi3ForCausalLM"}};
  for (const auto& [name, language] : kLanguages)
    if (type == name) return language;
  fail("config", "config.json: a language of \"model_type\" \"{}\" in this kind of model is not known", type);
}

ModelSpec parse_seeing(const nlohmann::json& json) {
  nlohmann::json text = language_config(json);
  forget_axes(text);
  const std::string language = language_of(Config(text).text("model_type", ""));
  text["architectures"] = {language};
  ModelSpec m = find_architecture(language).parse(text);
  m.arch = json.at("architectures").at(0).get<std::string>();
  m.language_arch = language;
  m.layouts = {{"model.language_model.", ""},
               {"language_model.model.", "language_model."},
               {"model.", ""},
               {"llm.model.", "llm."}};
  for (const char* part :
       {"visual.", "vision_tower.", "vision_model.", "multi_modal_projector.", "mm_projector.", "mlp1."})
    for (const char* outer : {"", "model."}) m.other_parts.push_back(std::string(outer) + part);
  return m;
}

/// OpenFlamingo's: each block of the language stands behind a layer that sees, which text alone does not pass.
ModelSpec parse_flamingo(const nlohmann::json& json) {
  ModelSpec m = parse_seeing(json);
  m.layouts = {{"lang_encoder.model.", "lang_encoder.", "decoder_layer."}};
  m.other_parts = {"vision_encoder.", "perceiver.", "lang_encoder.gated_cross_attn_layers."};
  for (size_t i = 0; i < m.blocks.size(); ++i)
    m.other_parts.push_back(fmt::format("lang_encoder.transformer.blocks.{}.gated_cross_attn_layer.", i));
  return m;
}

std::string name_in(const NameLayout& layout, int block, const std::string& name) {
  const std::string_view inner = "model.";
  std::string full = name.starts_with(inner) ? layout.model + name.substr(inner.size()) : layout.outer + name;
  const std::string number = fmt::format(".{}.", block);
  if (block >= 0 && !layout.block.empty()) full.insert(full.find(number) + number.size(), layout.block);
  return full;
}

Source seeing_source(const ModelSpec& m, int block, Param p) {
  Source s = find_architecture(m.language_arch).source(m, block, p);
  for (std::string* name : {&s.name, &s.weight, &s.bias, &s.apart})
    if (!name->empty()) *name = name_in(m.layouts.front(), block, *name);
  return s;
}

constexpr Architecture seeing(std::string_view name) { return {name, "", parse_seeing, seeing_source}; }

}  // namespace

extern const Architecture kLlava, kQwen2Vl, kQwen25Vl, kQwen3Vl, kInternVl, kInternVlOfTransformers, kGemma3Seeing,
    kQwen35Seeing, kVila, kVilaForCausal, kFlamingo;
const Architecture kLlava = seeing("LlavaForConditionalGeneration");
const Architecture kQwen2Vl = seeing("Qwen2VLForConditionalGeneration");
const Architecture kQwen25Vl = seeing("Qwen2_5_VLForConditionalGeneration");
const Architecture kQwen3Vl = seeing("Qwen3VLForConditionalGeneration");
const Architecture kInternVl = seeing("InternVLChatModel");
const Architecture kInternVlOfTransformers = seeing("InternVLForConditionalGeneration");
const Architecture kGemma3Seeing = seeing("Gemma3ForConditionalGeneration");
const Architecture kQwen35Seeing = seeing("Qwen3_5ForConditionalGeneration");
const Architecture kVila = seeing("LlavaLlamaModel");
const Architecture kVilaForCausal = seeing("VILAForCausalLM");
const Architecture kFlamingo{"FlamingoForConditionalGeneration", "", parse_flamingo, seeing_source};

}  // namespace awq
