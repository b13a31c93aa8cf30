// Models that see: a language of a known family under a prefix, whose other parts are carried along. What they make of
// pictures enters the language as embeddings, which no scale reaches. Text has the same position on all axes of m-rope,
// which is then plain rope.
#include "model/arch/config.h"

namespace awq {
namespace {

std::string name_in(const NameLayout& layout, int block, const std::string& name) {
  const std::string_view inner = "model.";
  std::string full = name.starts_with(inner) ? layout.model + name.substr(inner.size()) : layout.outer + name;
  const std::string number = fmt::format(".{}.", block);
  if (block >= 0 && !layout.block.empty()) full.insert(full.find(number) + number.size(), layout.block);
  return full;
}

ModelSpec parse_seeing(const nlohmann::json& json) {
  const nlohmann::json text = language_config(json);
  const Architecture& language = find_architecture(text["architectures"][0].get<std::string>());
  ModelSpec m = language.parse(text);
  m.arch = json.at("architectures").at(0).get<std::string>();
  m.language_arch = language.hf_name;
  m.layouts = {{"model.language_model.", ""},
               {"language_model.model.", "language_model."},
               {"model.", ""},
               {"llm.model.", "llm."}};
  for (const char* part : {"visual.", "vision_tower.", "vision_model.", "multi_modal_projector.", "mm_projector.",
                           "mlp1.", "audio_tower.", "embed_vision.", "embed_audio."})
    for (const char* outer : {"", "model."}) m.other_parts.push_back(std::string(outer) + part);
  const std::vector<UnusedTensors> unused = m.unused;
  for (const NameLayout& layout : m.layouts)
    for (const UnusedTensors& u : unused) m.unused.push_back({name_in(layout, -1, u.begin), u.reason});
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

Source seeing_source(const ModelSpec& m, int block, Param p) {
  Source s = find_architecture(m.language_arch).source(m, block, p);
  for (std::string* name : {&s.name, &s.weight, &s.bias, &s.apart})
    if (!name->empty()) *name = name_in(m.layouts.front(), block, *name);
  return s;
}

constexpr Architecture seeing(std::string_view name) { return {name, "", parse_seeing, seeing_source}; }

}  // namespace

extern const Architecture kLlava, kQwen2Vl, kQwen25Vl, kQwen3Vl, kInternVl, kInternVlOfTransformers, kGemma3Seeing,
    kQwen35Seeing, kVila, kVilaForCausal, kFlamingo, kGemma4Seeing, kQwen35MoeSeeing;
const Architecture kLlava = seeing("LlavaForConditionalGeneration");
const Architecture kQwen2Vl = seeing("Qwen2VLForConditionalGeneration");
const Architecture kQwen25Vl = seeing("Qwen2_5_VLForConditionalGeneration");
const Architecture kQwen3Vl = seeing("Qwen3VLForConditionalGeneration");
const Architecture kInternVl = seeing("InternVLChatModel");
const Architecture kInternVlOfTransformers = seeing("InternVLForConditionalGeneration");
const Architecture kGemma3Seeing = seeing("Gemma3ForConditionalGeneration");
const Architecture kQwen35Seeing = seeing("Qwen3_5ForConditionalGeneration");
const Architecture kQwen35MoeSeeing = seeing("Qwen3_5MoeForConditionalGeneration");
const Architecture kGemma4Seeing = seeing("Gemma4ForConditionalGeneration");
const Architecture kVila = seeing("LlavaLlamaModel");
const Architecture kVilaForCausal = seeing("VILAForCausalLM");
const Architecture kFlamingo{"FlamingoForConditionalGeneration", "", parse_flamingo, seeing_source};

}  // namespace awq
