// The families whose GGUF files are read and written.
#include <algorithm>

#include "model/arch/gguf.h"

namespace awq {

std::span<const GgufFamily> gguf_llama_families();
std::span<const GgufFamily> gguf_mixture_families();
std::span<const GgufFamily> gguf_dense_families();

std::span<const GgufFamily> gguf_families() {
  static const std::vector<GgufFamily> table = [] {
    std::vector<GgufFamily> all;
    for (const auto& some : {gguf_llama_families(), gguf_mixture_families(), gguf_dense_families()})
      all.insert(all.end(), some.begin(), some.end());
    return all;
  }();
  return table;
}

const GgufFamily* find_gguf_family(std::string_view name) {
  const auto all = gguf_families();
  const auto it = std::ranges::find(all, name, &GgufFamily::name);
  return it == all.end() ? nullptr : &*it;
}

}  // namespace awq
