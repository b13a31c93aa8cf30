#include <array>

#include "base/check.h"
#include "model/spec.h"

namespace awq {

extern const Architecture kLlama, kMistral, kMinistral, kQwen2, kQwen3, kGemma, kGemma2, kGemma3, kPhi3, kOlmo, kOlmo2,
    kOlmo3, kStableLm, kGranite, kSmolLm3, kCohere, kCohere2, kStarCoder2, kNemotron, kGlm, kGlm4, kChatGlm,
    kChatGlmCausal, kExaone, kMiniCpm, kInternLm2, kInternLm3, kBaichuan, kQwen1, kPhi, kGpt2, kBigCode, kGptJ, kNeoX,
    kFalcon, kRefinedWeb, kOpt, kBloom, kMpt, kMptOfTransformers, kMixtral, kQwen2Moe, kQwen3Moe, kOlmoE, kQwen3Next,
    kQwen35, kGraniteMoe, kGraniteMoeShared, kGlm4Moe, kDeepSeek2, kDeepSeek3, kMiniCpm3, kGptOss, kLlava, kQwen2Vl,
    kQwen25Vl, kQwen3Vl, kInternVl, kInternVlOfTransformers, kGemma3Seeing, kQwen35Seeing, kVila, kVilaForCausal,
    kFlamingo, kGemma4, kGemma4Seeing, kQwen35Moe, kQwen35MoeSeeing;

std::span<const Architecture> architectures() {
  static const std::array table = {kLlama,
                                   kMistral,
                                   kMinistral,
                                   kQwen2,
                                   kQwen3,
                                   kGemma,
                                   kGemma2,
                                   kGemma3,
                                   kPhi3,
                                   kOlmo,
                                   kOlmo2,
                                   kOlmo3,
                                   kStableLm,
                                   kGranite,
                                   kSmolLm3,
                                   kCohere,
                                   kCohere2,
                                   kStarCoder2,
                                   kNemotron,
                                   kGlm,
                                   kGlm4,
                                   kChatGlm,
                                   kChatGlmCausal,
                                   kExaone,
                                   kMiniCpm,
                                   kInternLm2,
                                   kInternLm3,
                                   kBaichuan,
                                   kQwen1,
                                   kPhi,
                                   kGpt2,
                                   kBigCode,
                                   kGptJ,
                                   kNeoX,
                                   kFalcon,
                                   kRefinedWeb,
                                   kOpt,
                                   kBloom,
                                   kMpt,
                                   kMptOfTransformers,
                                   kMixtral,
                                   kQwen2Moe,
                                   kQwen3Moe,
                                   kQwen3Next,
                                   kQwen35,
                                   kOlmoE,
                                   kGraniteMoe,
                                   kGraniteMoeShared,
                                   kGlm4Moe,
                                   kDeepSeek2,
                                   kDeepSeek3,
                                   kMiniCpm3,
                                   kGptOss,
                                   kLlava,
                                   kQwen2Vl,
                                   kQwen25Vl,
                                   kQwen3Vl,
                                   kInternVl,
                                   kInternVlOfTransformers,
                                   kGemma3Seeing,
                                   kQwen35Seeing,
                                   kVila,
                                   kVilaForCausal,
                                   kFlamingo,
                                   kGemma4,
                                   kGemma4Seeing,
                                   kQwen35Moe,
                                   kQwen35MoeSeeing};
  return table;
}

const Architecture& find_architecture(std::string_view hf_name) {
  std::string known;
  for (const Architecture& a : architectures()) {
    if (a.hf_name == hf_name) return a;
    known += (known.empty() ? "" : ", ") + std::string(a.hf_name);
  }
  fail("open",
       "config.json: the architecture \"{}\" is not known; this version has: {}. A new family is one file, see "
       "docs/adding-a-model.md",
       hf_name, known);
}

}  // namespace awq
