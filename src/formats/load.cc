#include "formats/load.h"

#include <cmath>

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

}  // namespace

std::string parameter_name(const ModelSpec& spec, int block, Param p) {
  return find_architecture(spec.arch).source(block, p) + ".weight";
}

BlockWeights load_block(const Checkpoint& model, int block) {
  BlockWeights w{.spec = model.spec().blocks.at(size_t(block)), .at = {}, .bias = {}};
  for (Param p : w.spec.params()) {
    w.at.emplace(p, model.weight(block, p));
    if (w.spec.has_bias(p)) w.bias.emplace(p, model.bias(block, p));
  }
  return w;
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

Model load_model(Backend& dev, const Checkpoint& model, const std::function<void(int, int)>& on_block) {
  Model m;
  m.spec = model.spec();
  m.embed = std::get<Tensor>(model.weight(-1, {Role::embed}));
  m.final_norm = std::get<Tensor>(model.weight(-1, {Role::final_norm})).to(DType::f32);
  m.head = m.spec.tied_embeddings ? dev.linear(m.embed, nullptr) : dev.linear(model.weight(-1, {Role::head}), nullptr);
  const int total = int(m.spec.blocks.size());
  for (int i = 0; i < total; ++i) {
    m.blocks.push_back(upload(dev, load_block(model, i)));
    if (on_block) on_block(i + 1, total);
  }
  return m;
}

}  // namespace awq
