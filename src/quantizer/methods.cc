#include <array>

#include "base/check.h"
#include "quantizer/awq.h"
#include "quantizer/variants.h"

namespace awq {

std::unique_ptr<Method> make_gptq();
std::unique_ptr<Method> make_rtn();

std::vector<float> Solution::scales(const ScaleGroup& g, int64_t channels) const {
  for (const GroupResult& r : groups)
    if (r.group.consumers == g.consumers) return r.scales;
  return std::vector<float>(size_t(channels), 1.f);
}

std::span<const MethodEntry> methods() {
  static constexpr std::array table = {
      MethodEntry{"awq", "activation-aware scales and clipping, searched on calibration text",
                  [] { return make_awq(std::nullopt); }},
      MethodEntry{"awq+",
                  "as awq, then codes and group scales refined together: the same format, closer to the original",
                  [] { return make_awq(Refinement()); }},
      MethodEntry{"gptq", "rounding that makes up for the errors before it, in activation order; no scales", make_gptq},
      MethodEntry{"rtn", "plain rounding to nearest; needs no calibration", make_rtn},
  };
  return table;
}

const MethodEntry& find_method(std::string_view name) {
  std::string known;
  for (const MethodEntry& m : methods()) {
    if (m.name == name) return m;
    known += (known.empty() ? "" : ", ") + std::string(m.name);
  }
  fail("quantize", "the method \"{}\" is not known; this version has: {}", name, known);
}

std::unique_ptr<Method> make_method(std::string_view name, std::string_view variant) {
  const MethodEntry& entry = find_method(name);
  if (name == "awq") return make_awq_variant(variant);
  if (variant != "ours")
    fail("quantize", "--variant {}: variants are of the method awq, not of {}; leave out --method", variant, name);
  return entry.make();
}

}  // namespace awq
