#include "quantizer/cost.h"

namespace awq {

double block_operations(const BlockSpec& spec, int64_t tokens) {
  return module_operations(spec, Role::q, tokens) + module_operations(spec, Role::gate, tokens);
}

double module_operations(const BlockSpec& spec, Role role, int64_t tokens) {
  const bool attention = in_attention(role);
  double weights = 0;
  for (Param p : spec.params()) {
    if (is_norm(p.role) || in_attention(p.role) != attention) continue;
    const double share = spec.is_routed(p) ? double(spec.experts->active) / spec.experts->count : 1;
    weights += share * double(spec.shape(p).first) * double(spec.shape(p).second);
  }
  return 2 * weights * double(tokens);
}

}  // namespace awq
