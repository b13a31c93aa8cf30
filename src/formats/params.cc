#include "formats/params.h"

namespace awq {

std::vector<std::pair<int, Param>> params_of(const ModelSpec& spec) {
  std::vector<std::pair<int, Param>> all = {{-1, {Role::embed}}};
  if (spec.learned_positions) all.emplace_back(-1, Param{Role::positions});
  if (spec.embed_norm) all.emplace_back(-1, Param{Role::embed_norm});
  for (Role role : {Role::own_embed, Role::own_projection, Role::own_norm})
    if (spec.own_input) all.emplace_back(-1, Param{role});
  for (size_t i = 0; i < spec.blocks.size(); ++i)
    for (Param p : spec.blocks[i].params()) all.emplace_back(int(i), p);
  if (spec.final_norm.gain) all.emplace_back(-1, Param{Role::final_norm});
  if (!spec.tied_embeddings) all.emplace_back(-1, Param{Role::head});
  return all;
}

Shape shape_of(const ModelSpec& spec, int block, Param param) {
  if (param.role == Role::embed || param.role == Role::head) return {spec.vocab, spec.dim};
  if (param.role == Role::positions) return {spec.learned_positions, spec.dim};
  const int64_t own = spec.own_input ? spec.own_input->width : 0, all_own = own * int64_t(spec.blocks.size());
  if (param.role == Role::own_embed) return {spec.vocab, all_own};
  if (param.role == Role::own_projection) return {all_own, spec.dim};
  if (param.role == Role::own_norm) return {own};
  if (param.role == Role::final_norm || param.role == Role::embed_norm) return {spec.dim};
  const auto [rows, cols] = spec.blocks.at(size_t(block)).shape(param);
  return is_norm(param.role) ? Shape{rows} : Shape{rows, cols};
}

Param head_param(const ModelSpec& spec) { return {spec.tied_embeddings ? Role::embed : Role::head}; }

bool has_bias(const ModelSpec& spec, int block, Param param) {
  if (block >= 0) return spec.blocks.at(size_t(block)).has_bias(param);
  if (param.role == Role::own_norm) return false;
  return is_norm(param.role) ? spec.final_norm.bias : param.role == Role::head && spec.head_bias;
}

bool is_rounded(Role role) { return !is_norm(role) && !stays_float(role); }

bool is_table(Role role) { return role == Role::embed || role == Role::positions || role == Role::own_embed; }

int64_t parameter_count(const ModelSpec& spec) {
  int64_t n = 0;
  for (const auto& [block, p] : params_of(spec)) {
    const Shape shape = shape_of(spec, block, p);
    n += shape.elements() + (has_bias(spec, block, p) ? shape[0] : 0);
  }
  return n;
}

Source source_of(const ModelSpec& spec, int block, Param param) {
  return find_architecture(spec.arch).source(spec, block, param);
}

std::string base_name(const ModelSpec& spec, int block, Param param) {
  const Source s = source_of(spec, block, param);
  if (s.stack) return s.apart;
  return s.rows.period ? s.name + "." + std::string(name_of(param.role)) : s.name;
}

}  // namespace awq
