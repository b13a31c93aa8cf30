#include "formats/load.h"

#include <algorithm>
#include <cmath>

#include "formats/params.h"

namespace awq {
namespace {

[[noreturn]] void fail_not_finite(const std::string& name, int64_t element, float value) {
  fail("quantize",
       "{}: element {} is {}; the source model is damaged (or overflowed when it was converted to 16 bits). "
       "Download or convert it again",
       name, element, value);
}

/// `first` is the place of the first element in the parameter.
void require_finite(const Tensor& t, const std::string& name, int64_t first = 0) {
  const auto v = t.as<float>();
  for (size_t i = 0; i < v.size(); ++i)
    if (!std::isfinite(v[i])) fail_not_finite(name, first + int64_t(i), v[i]);
}

bool has_exponent_of_infinity(const Tensor& half) {
  const int mask = half.dtype() == DType::f16 ? 0x7c00 : 0x7f80;
  return std::ranges::any_of(half.bits16(), [mask](uint16_t v) { return (v & mask) == mask; });
}

void check_band(const Piece& band, const std::string& name, int64_t cols) {
  const auto& t = std::get<Tensor>(band.weight);
  if (t.dtype() == DType::f32)
    require_finite(t, name, band.row * cols);
  else if (has_exponent_of_infinity(t))
    require_finite(t.to(DType::f32), name, band.row * cols);
}

Pieces float_pieces(const Checkpoint& model, int block, Param p) {
  Pieces w = model.float_pieces(block, p);
  if (!std::holds_alternative<DType>(w.type))
    fail("quantize", "{} is quantized already. Start from the float model that it was made of",
         parameter_name(model.spec(), block, p));
  return w;
}

/// Checked, in memory of its own.
Tensor load_matrix(const Checkpoint& model, int block, Param p, ThreadPool& pool) {
  const Pieces w = float_pieces(model, block, p);
  return whole(w, pool, [&, name = parameter_name(model.spec(), block, p)](const Piece& band) {
    check_band(band, name, w.shape[1]);
  });
}

/// In memory of its own.
NormWeights load_norm(const Checkpoint& model, int block, Param p) {
  const Tensor t = std::get<Tensor>(model.weight(block, p));
  return {t.dtype() == DType::f32 ? t.clone() : t.to(DType::f32),
          has_bias(model.spec(), block, p) ? model.bias(block, p) : Tensor()};
}

std::unique_ptr<Linear> load_head(Backend& dev, const Checkpoint& model) {
  const ModelSpec& spec = model.spec();
  const Tensor bias = spec.head_bias ? model.bias(-1, {Role::head}) : Tensor();
  return dev.linear(load_head_pieces(model), bias ? &bias : nullptr);
}

void unit_rows(Tensor& t) {
  const auto cols = size_t(t.shape()[1]);
  for (size_t begin = 0; begin < t.as<float>().size(); begin += cols) {
    const auto row = t.as<float>().subspan(begin, cols);
    double squares = 0;
    for (float v : row) squares += double(v) * double(v);
    const double length = std::max(std::sqrt(squares), 1e-12);  // torch.nn.functional.normalize's least
    for (float& v : row) v = float(double(v) / length);
  }
}

void load_parameter(Backend& dev, const Checkpoint& model, int block, Param p, Block& to) {
  if (is_norm(p.role)) {
    to.norm[p] = load_norm(model, block, p);
    return;
  }
  const Tensor bias = to.spec.has_bias(p) ? model.bias(block, p) : Tensor();
  const bool corrects = bias && p.role == Role::router && to.spec.experts->correction;
  if (corrects) to.correction.assign(bias.as<float>().begin(), bias.as<float>().end());
  to.linear[p] = dev.linear(model.pieces(block, p), bias && !corrects ? &bias : nullptr);
}

/// `like`: another block's, of the same tables, which some checkpoints make anew for who asks.
std::optional<OwnInput> load_own_input(const Checkpoint& model, int block, const std::optional<OwnInput>& like = {}) {
  const auto& spec = model.spec().own_input;
  if (!spec) return {};
  const auto tensor = [&](Role role) { return std::get<Tensor>(model.weight(-1, {role})); };
  OwnInput own = like.value_or(OwnInput{});
  own.spec = *spec;
  if (!like) {
    const Tensor table = tensor(Role::own_embed);
    own.blocks = int(table.shape()[1] / spec->width);
    own.rows = table.reshaped({table.shape()[0] * own.blocks, spec->width});
    own.embed = tensor(Role::embed);
    own.gain = load_norm(model, -1, {Role::own_norm}).gain;
  }
  own.block = block;
  own.projection = tensor(Role::own_projection).rows(int64_t(block) * spec->width, int64_t(block + 1) * spec->width);
  return own;
}

std::string text_of(const QuantSpec& q) { return fmt::format("{} bits, groups of {}", q.bits, q.group_size); }

}  // namespace

std::string parameter_name(const ModelSpec& spec, int block, Param p) { return base_name(spec, block, p) + ".weight"; }

Embedding load_embedding(const Checkpoint& model) {
  const ModelSpec& spec = model.spec();
  Embedding e{.table = std::get<Tensor>(model.weight(-1, {Role::embed})), .positions = {}, .norm = {}};
  if (spec.learned_positions) e.positions = std::get<Tensor>(model.weight(-1, {Role::positions}));
  if (spec.embed_norm) e.norm = load_norm(model, -1, {Role::embed_norm});
  return e;
}

NormWeights load_final_norm(const Checkpoint& model) {
  return model.spec().final_norm.gain ? load_norm(model, -1, {Role::final_norm}) : NormWeights{};
}

Pieces load_head_pieces(const Checkpoint& model) {
  Pieces w = model.pieces(-1, head_param(model.spec()));
  if (!model.spec().head_unit_rows) return w;
  if (!std::holds_alternative<DType>(w.type))
    fail("open", "{}: the head is quantized, but {} divides each of its rows by its length, which codes cannot do",
         model.described_in(), model.spec().arch);
  w.read = [read = w.read](int64_t i) {
    Piece band = read(i);
    Tensor rows = std::get<Tensor>(band.weight).to(DType::f32).clone();
    unit_rows(rows);
    band.weight = rows;
    return band;
  };
  w.type = DType::f32;
  return w;
}

BlockWeights load_float_block(const Checkpoint& model, int block, ThreadPool& pool) {
  BlockWeights w{.spec = model.spec().blocks.at(size_t(block)), .at = {}, .bias = {}, .index = block};
  w.own = load_own_input(model, block);
  for (Param p : w.spec.params()) {
    const std::string name = parameter_name(model.spec(), block, p);
    if (is_norm(p.role))
      require_finite(std::get<Tensor>(w.at[p] = load_norm(model, block, p).gain), name);
    else
      w.at[p] = load_matrix(model, block, p, pool);
    if (w.spec.has_bias(p)) require_finite(w.bias[p] = model.bias(block, p).clone(), name + " (bias)");
  }
  return w;
}

Pieces load_float_pieces(const Checkpoint& model, int block, Param p) {
  Pieces w = float_pieces(model, block, p);
  w.read = [read = w.read, cols = w.shape[1], name = parameter_name(model.spec(), block, p)](int64_t i) {
    Piece band = read(i);
    check_band(band, name, cols);
    band.weight = std::get<Tensor>(band.weight).to(DType::f32);
    return band;
  };
  w.type = DType::f32;
  return w;
}

namespace {

Block load_block(Backend& dev, const Checkpoint& model, int block, const std::function<void()>& on_parameter,
                 const std::optional<OwnInput>& like) {
  const BlockSpec& spec = model.spec().blocks.at(size_t(block));
  Block b{.spec = spec, .norm = {}, .linear = {}, .rope = spec.attention.rope.frequencies()};
  b.own = load_own_input(model, block, like);
  if (b.own) b.linear[{Role::own_projection}] = dev.linear(b.own->projection, nullptr);
  for (Param p : spec.params()) {
    load_parameter(dev, model, block, p, b);
    if (on_parameter) on_parameter();
  }
  return b;
}

}  // namespace

Block load_block(Backend& dev, const Checkpoint& model, int block, const std::function<void()>& on_parameter) {
  return load_block(dev, model, block, on_parameter, {});
}

Model load_outer(Backend& dev, const Checkpoint& model) {
  return {.spec = model.spec(),
          .embed = load_embedding(model),
          .blocks = {},
          .final_norm = load_final_norm(model),
          .head = load_head(dev, model)};
}

Model load_model(Backend& dev, const Checkpoint& model, const std::function<void(int, int)>& on_parameter) {
  ModelSpec placed = model.spec();
  dev.place(placed, [&](int block, Param p) { return block < 0 ? load_head_pieces(model) : model.pieces(block, p); });
  dev.enter(false);
  Model m = load_outer(dev, model);
  m.spec = std::move(placed);
  int done = 0, total = 1;
  for (const BlockSpec& b : m.spec.blocks) total += int(b.params().size());
  const auto loaded = [&] {
    if (on_parameter) on_parameter(++done, total);
  };
  loaded();
  for (int i = 0; i < int(m.spec.blocks.size()); ++i) {
    const bool on_host = m.spec.blocks[size_t(i)].on_host;
    dev.enter(on_host);
    m.blocks.push_back(load_block(dev, model, i, loaded, i ? m.blocks.front().own : std::nullopt));
    m.blocks.back().spec.on_host = on_host;
  }
  dev.enter(false);
  m.recordings = dev.recordings();
  return m;
}

std::string quantization_of(const Checkpoint& model) {
  std::string quantized;
  int in_floats = 0;
  for (const auto& [block, p] : params_of(model.spec())) {
    if (block < 0 || !is_rounded(p.role)) continue;
    const Pieces w = model.pieces(block, p);
    const auto* q = std::get_if<QuantSpec>(&w.type);
    if (q && quantized.empty()) quantized = text_of(*q);
    in_floats += !q;
  }
  if (quantized.empty() || !in_floats) return quantized;
  return fmt::format("{}, {} layer{} in floats", quantized, in_floats, in_floats == 1 ? "" : "s");
}

std::string head_type(const Checkpoint& model) {
  const Pieces w = load_head_pieces(model);
  const auto* q = std::get_if<QuantSpec>(&w.type);
  return q ? text_of(*q) : std::string(name_of(std::get<DType>(w.type)));
}

int64_t loaded_bytes(const Backend& dev, const Checkpoint& model) {
  int64_t bytes = dev.linear_bytes(load_head_pieces(model));
  for (const auto& [block, p] : params_of(model.spec()))
    if ((block >= 0 && !is_norm(p.role)) || p.role == Role::own_projection)
      bytes += dev.linear_bytes(model.pieces(block, p));
  return bytes;
}

}  // namespace awq
