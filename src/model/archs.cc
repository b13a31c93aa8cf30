#include <array>

#include "base/check.h"
#include "model/spec.h"

namespace awq {

extern const Architecture kLlama, kMistral, kQwen2, kQwen3, kGemma3;

std::span<const Architecture> architectures() {
  static const std::array table = {kLlama, kMistral, kQwen2, kQwen3, kGemma3};
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
