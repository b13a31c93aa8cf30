#include "formats/params.h"

namespace awq {

std::vector<std::pair<int, Param>> params_of(const ModelSpec& spec) {
  std::vector<std::pair<int, Param>> all = {{-1, {Role::embed}}};
  for (size_t i = 0; i < spec.blocks.size(); ++i)
    for (Param p : spec.blocks[i].params()) all.emplace_back(int(i), p);
  all.emplace_back(-1, Param{Role::final_norm});
  if (!spec.tied_embeddings) all.emplace_back(-1, Param{Role::head});
  return all;
}

Shape shape_of(const ModelSpec& spec, int block, Param param) {
  if (param.role == Role::embed || param.role == Role::head) return {spec.vocab, spec.dim};
  if (param.role == Role::final_norm) return {spec.dim};
  const auto [rows, cols] = spec.blocks.at(size_t(block)).shape(param);
  return is_norm(param.role) ? Shape{rows} : Shape{rows, cols};
}

Param head_param(const ModelSpec& spec) { return {spec.tied_embeddings ? Role::embed : Role::head}; }

bool has_bias(const ModelSpec& spec, int block, Param param) {
  return block >= 0 && spec.blocks.at(size_t(block)).has_bias(param);
}

std::string base_name(const ModelSpec& spec, int block, Param param) {
  return find_architecture(spec.arch).source(block, param);
}

}  // namespace awq
