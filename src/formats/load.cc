#include "formats/load.h"

#include <cmath>

#include "formats/params.h"

namespace awq {
namespace {

void require_finite(const Tensor& t, const std::string& name) {
  const auto v = t.as<float>();
  for (size_t i = 0; i < v.size(); ++i)
    if (!std::isfinite(v[i]))
      fail("quantize",
           "{}: element {} is {}; the source model is damaged (or overflowed when it was converted to 16 bits). "
           "Download or convert it again",
           name, i, v[i]);
}

/// One block as stored.
BlockWeights load_block(const Checkpoint& model, int block) {
  BlockWeights w{.spec = model.spec().blocks.at(size_t(block)), .at = {}, .bias = {}};
  for (Param p : w.spec.params()) {
    w.at.emplace(p, model.weight(block, p));
    if (w.spec.has_bias(p)) w.bias.emplace(p, model.bias(block, p));
  }
  return w;
}

/// A norm's gain, in memory of its own.
Tensor load_norm(const Checkpoint& model, int block, Param p) {
  const Tensor t = std::get<Tensor>(model.weight(block, p));
  return t.dtype() == DType::f32 ? t.clone() : t.to(DType::f32);
}

void load_parameter(Backend& dev, const Checkpoint& model, int block, Param p, Block& to) {
  if (is_norm(p.role)) {
    to.norm[p] = load_norm(model, block, p);
    return;
  }
  const Tensor bias = to.spec.has_bias(p) ? model.bias(block, p) : Tensor();
  to.linear[p] = dev.linear(model.pieces(block, p), bias ? &bias : nullptr);
}

Pieces head_of(const Checkpoint& model) {
  return model.pieces(-1, {model.spec().tied_embeddings ? Role::embed : Role::head});
}

}  // namespace

std::string parameter_name(const ModelSpec& spec, int block, Param p) {
  return find_architecture(spec.arch).source(block, p) + ".weight";
}

BlockWeights load_float_block(const Checkpoint& model, int block) {
  BlockWeights w = load_block(model, block);
  for (auto& [p, weight] : w.at) {
    const std::string name = parameter_name(model.spec(), block, p);
    auto* t = std::get_if<Tensor>(&weight);
    if (!t) fail("quantize", "{} is quantized already. Start from the float model that it was made of", name);
    *t = t->dtype() == DType::f32 ? t->clone() : t->to(DType::f32);
    require_finite(*t, name);
  }
  for (auto& [p, bias] : w.bias) {
    bias = bias.clone();
    require_finite(bias, parameter_name(model.spec(), block, p) + " (bias)");
  }
  return w;
}

Model load_model(Backend& dev, const Checkpoint& model, const std::function<void(int, int)>& on_parameter) {
  Model m;
  m.spec = model.spec();
  int done = 0, total = 1;
  for (const BlockSpec& b : m.spec.blocks) total += int(b.params().size());
  const auto loaded = [&] {
    if (on_parameter) on_parameter(++done, total);
  };
  m.embed = std::get<Tensor>(model.weight(-1, {Role::embed}));
  m.final_norm = load_norm(model, -1, {Role::final_norm});
  m.head = dev.linear(head_of(model), nullptr);
  loaded();
  for (int i = 0; const BlockSpec& spec : m.spec.blocks) {
    Block b{.spec = spec, .norm = {}, .linear = {}, .rope = spec.attention.rope.frequencies()};
    for (Param p : spec.params()) {
      load_parameter(dev, model, i, p, b);
      loaded();
    }
    m.blocks.push_back(std::move(b));
    ++i;
  }
  return m;
}

std::string quantization_of(const Checkpoint& model) {
  const Pieces w = model.pieces(0, {Role::down});
  const auto* q = std::get_if<QuantSpec>(&w.type);
  return q ? fmt::format("{} bits, groups of {}", q->bits, q->group_size) : "";
}

int64_t loaded_bytes(const Backend& dev, const Checkpoint& model) {
  int64_t bytes = dev.linear_bytes(head_of(model));
  for (const auto& [block, p] : params_of(model.spec()))
    if (block >= 0 && !is_norm(p.role)) bytes += dev.linear_bytes(model.pieces(block, p));
  return bytes;
}

}  // namespace awq
