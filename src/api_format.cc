#include "api_format.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "api_group_size.h"
#include "base/check.h"
#include "formats/params.h"
#include "formats/stored.h"

namespace awq {
namespace {

/// Marlin's kernels, which repack AutoAWQ's tensors.
bool fits_marlin(const Share& s) {
  return (s.cols % 128 == 0 && s.rows % 64 == 0) || (s.cols % 64 == 0 && s.rows % 128 == 0);
}

const std::array<Target, 8> kTargets = {
    {{.name = "transformers", .format = "autoawq", .groups = {32, 64, 128, -1}},
     {.name = "vllm", .format = "compressed-tensors", .groups = {32, 64, 128, -1}},
     {.name = "llama.cpp", .format = "gguf-q4_1", .groups = {32, 64, 128, -1}},
     {.name = "mlx", .format = "mlx", .groups = {32, 64, 128}},
     {.name = "sglang", .format = "autoawq", .groups = {32, 64, 128}, .scales = {DType::f16, DType::bf16}},
     {.name = "tgi",
      .format = "autoawq",
      .groups = {32, 64, 128},
      .scales = {DType::f16, DType::bf16},
      .runs = fits_marlin,
      .shapes = "multiples of 64 and 128"},
     {.name = "tensorrt-llm",
      .format = "modelopt",
      .groups = {64, 128},
      .scales = {DType::f16, DType::bf16},
      .fused_inputs = false},
     {.name = "lmdeploy", .format = "autoawq", .groups = {128}, .scales = {DType::f16}, .powers_of_two = true}}};

const Target& find_target(std::string_view operation, const std::string& name) {
  std::string names;
  for (const Target& t : kTargets) {
    if (t.name == name) return t;
    names += (names.empty() ? "" : ", ") + std::string(t.name);
  }
  fail(operation,
       "--target {}: what it loads is known of {} only; give a --format to write one that other programs read", name,
       names);
}

bool splits_columns(Role role) { return role == Role::o || role == Role::down; }

/// Heads stay whole; those of keys and values are repeated where there are fewer than devices.
void check_heads(std::string_view operation, const BlockSpec& b, int devices) {
  const AttentionSpec& a = b.attention;
  if (b.delta && (b.delta->key_heads % devices || b.delta->value_heads % devices))
    fail(operation, "--tp {}: a delta net's {} heads with {} of values cannot be split over so many devices", devices,
         b.delta->key_heads, b.delta->value_heads);
  if (a.heads % devices || (a.kv_heads % devices && devices % a.kv_heads))
    fail(operation, "--tp {}: {} heads with {} of keys and values cannot be split over so many devices", devices,
         a.heads, a.kv_heads);
}

/// Rows and columns of a matrix on each device.
std::pair<int64_t, int64_t> part_of(const BlockSpec& b, Param p, int devices) {
  const auto [rows, cols] = b.shape(p);
  if (splits_columns(p.role)) return {rows, cols / devices};
  constexpr Role kOnEach[] = {Role::q_a, Role::kv_a, Role::k_rope, Role::own_gate, Role::own_out};
  if (std::ranges::count(kOnEach, p.role)) return {rows, cols};
  const bool repeated = !b.delta && (p.role == Role::k || p.role == Role::v) && b.attention.kv_heads < devices;
  return {repeated ? b.attention.head_dim : rows / devices, cols};
}

/// What the program makes one of several matrices is listed under the first.
std::vector<Share> shares_of(const ModelSpec& model, int block, int devices) {
  const BlockSpec& b = model.blocks[size_t(block)];
  std::vector<Share> shares;
  for (Param p : b.params()) {
    if (!is_rounded(p.role)) continue;
    const auto [rows, cols] = part_of(b, p, devices);
    const bool with_q = p.role == Role::k && !b.attention.latent;
    if (with_q || p.role == Role::v || p.role == Role::o_gate || p.role == Role::k_rope ||
        (p.role == Role::up && b.mlp.gated))
      shares.back().rows += rows;
    else
      shares.push_back({base_name(model, block, p), rows, cols});
  }
  return shares;
}

void check_parts(std::string_view operation, const Format& format, const ModelSpec& model, int block, Param p,
                 int devices, const std::optional<QuantSpec>& spec) {
  const BlockSpec& b = model.blocks[size_t(block)];
  const bool columns = splits_columns(p.role);
  const Shape whole = shape_of(model, block, p);
  const auto part = part_of(b, p, devices);
  const int64_t rows = std::lcm(8, format.holds ? format.holds->rows : 1),
                cols = std::lcm(spec ? spec->group_size : 1, format.holds ? format.holds->cols : 1);
  const bool fits = columns ? part.second * devices == whole[1] && part.second % cols == 0
                            : part.first * devices >= whole[0] && part.first % rows == 0;
  if (!fits)
    fail(operation, "--tp {}: {} of {} cannot be split into {} parts of whole {}", devices,
         base_name(model, block, p) + ".weight", whole.text(), devices,
         columns ? fmt::format("groups of {} columns", cols) : fmt::format("words of {} rows", rows));
}

class FittingSink final : public CheckpointSink {
 public:
  FittingSink(std::unique_ptr<CheckpointSink> sink, const Capacity& holds, const ModelSpec& spec)
      : sink_(std::move(sink)), holds_(holds), spec_(spec) {}
  void put(int block, Param p, const Weight& w) override {
    const auto* q = std::get_if<QMatrix>(&w);
    sink_->put(block, p,
               q && block >= 0 ? fitted(*q, holds_, {.rounded_offsets = true}, base_name(spec_, block, p)) : w);
  }
  void put_bias(int block, Param p, const Tensor& b) override { sink_->put_bias(block, p, b); }
  void put_carried(const std::string& name, const Tensor& t) override { sink_->put_carried(name, t); }
  void put_side_file(const SideFile& file) override { sink_->put_side_file(file); }
  void begin() override { sink_->begin(); }
  void finish() override { sink_->finish(); }
  nlohmann::json state() const override { return sink_->state(); }
  void resume(const nlohmann::json& state) override { sink_->resume(state); }
  void sync() override { sink_->sync(); }

 private:
  std::unique_ptr<CheckpointSink> sink_;
  const Capacity& holds_;
  ModelSpec spec_;
};

}  // namespace

void FormatChoice::check_group(std::string_view operation, const std::string& of, int group_size) const {
  if (target && std::ranges::find(target->groups, group_size) == target->groups.end())
    fail(operation, "{}: {}, but {} runs groups of {}", of, text_of_group(group_size), target->name,
         fmt::join(target->groups, ", "));
}

void FormatChoice::check_devices(std::string_view operation, const ModelSpec& model, int devices,
                                 const std::function<std::optional<QuantSpec>(int, Param)>& spec) const {
  if (devices < 1) fail(operation, "--tp {}: at least 1 device is needed", devices);
  if (target && target->powers_of_two && !std::has_single_bit(unsigned(devices)))
    fail(operation, "--tp {}: {} is split over 1, 2, 4, 8 or more devices by twos", devices, target->name);
  for (int i = 0; i < int(model.blocks.size()); ++i) {
    const BlockSpec& b = model.blocks[size_t(i)];
    check_heads(operation, b, devices);
    for (Param p : b.params())
      if (devices > 1 && is_rounded(p.role)) check_parts(operation, *format, model, i, p, devices, spec(i, p));
    if (!target || !target->runs) continue;
    for (const Share& s : shares_of(model, i, devices))
      if (!target->runs(s))
        fail(operation, "--target {}: {} has {} rows and {} columns on a device, but its kernels run {} alone",
             target->name, s.name, s.rows, s.cols, target->shapes);
  }
}

void FormatChoice::check_matrix(const std::string& name, Role role, const Pieces& w) const {
  const auto* q = std::get_if<QuantSpec>(&w.type);
  if (!target || !q) return;
  const DType scales = stored_type(*format->holds, q->scale_dtype);
  if (std::ranges::find(target->scales, scales) == target->scales.end())
    fail("convert", "{}: scales of {}; {} computes in 16 bits and would round them", name, name_of(scales),
         target->name);
  if (w.inputs && !target->fused_inputs && !splits_columns(role))
    fail("convert",
         "{}: its inputs are multiplied by scales of their own (pre_quant_scale), which {} leaves out for matrices "
         "that it "
         "makes one of: q, k and v, gate and up. Export the model with them folded into the norms",
         name, target->name);
}

FormatChoice choose_format(std::string_view operation, const std::string& format, const std::string& target,
                           std::string_view otherwise) {
  if (format.empty() && target.empty() && !otherwise.empty()) return {&find_format(otherwise), nullptr};
  if (format.empty() == target.empty()) fail(operation, "give either --format or --target");
  if (target.empty()) return {&find_format(format), nullptr};
  const Target& t = find_target(operation, target);
  return {&find_format(t.format), &t};
}

DType scale_type(std::string_view operation, const std::string& name) {
  if (name == "f16") return DType::f16;
  if (name == "bf16") return DType::bf16;
  fail(operation, "--scales {}: expected f16 or bf16", name);
}

namespace {

/// Names of the formats that hold codes in the way of `of`.
std::string formats_with(bool Capacity::*of) {
  std::string names;
  for (const Format& f : formats())
    if (f.create && f.holds && f.holds->*of) names += (names.empty() ? "" : ", ") + std::string(f.name);
  return names;
}

void require_group(const Format& format, int size) {
  const Capacity& c = *format.holds;
  if (size == QuantSpec::kWholeRow) {
    if (!c.whole_rows)
      fail("quantize",
           "--group-size -1: the format {} does not hold whole rows; take --group-size 128, 64 or 32, or one of {}",
           format.name, formats_with(&Capacity::whole_rows));
    return;
  }
  const bool held = c.groups.empty() || std::ranges::find(c.groups, size) != c.groups.end();
  if (!held || (c.part && size % c.part))
    fail("quantize", "--format {}: it does not hold groups of {} columns; take --group-size {}", format.name, size,
         c.part ? c.part : c.groups.front());
}

void require_portable(const QuantSpec& spec) {
  constexpr int kLeastDigits = 7;  // a scale then moves by 0.8 % at most
  if (spec.symmetric)
    fail("quantize", "--portable-scales: all zero points are the middle here, whose products are exact; leave it out");
  if (spec.scale_digits() < kLeastDigits)
    fail("quantize",
         "--portable-scales: scales in {} for {} bits would keep {} significant bits, and at least {} are needed; take "
         "--bits 4 and --scales f16, or leave it out",
         name_of(spec.scale_dtype), spec.bits, spec.scale_digits(), kLeastDigits);
}

}  // namespace

QuantSpec spec_to_quantize(const Format& format, QuantSpec spec) {
  const Capacity* c = format.holds;
  if (!c) fail("quantize", "--format {}: it holds floats; `awq convert` writes it", format.name);
  require_bits(format, spec.bits, "quantize");
  spec.symmetric = spec.symmetric || c->symmetric;
  if (!c->zero_zero && !spec.symmetric)
    fail("quantize",
         "--format {}: a zero point may become 0, which it does not hold; take gptq, or --symmetric, with which none "
         "does",
         format.name);
  if (spec.scale_dtype == DType::bf16 && !c->bf16)
    fail("quantize", "--scales bf16: the format {} has scales in F16; leave it out, or take one of {}", format.name,
         formats_with(&Capacity::bf16));
  require_group(format, spec.group_size);
  if (spec.portable_scales) require_portable(spec);
  return spec;
}

QuantSpec stored_spec(const Format& format, QuantSpec spec) {
  spec.offsets = format.holds->offsets;
  if (format.holds->part) spec.group_size = format.holds->part;
  return spec;
}

void require_units(const Format& format, const ModelSpec& spec) {
  const Capacity& c = *format.holds;
  const StoredTensors stored(spec, Experts::apart);
  for (const StoredTensor& t : stored.all()) {
    const int block = t.parts.front().block;
    if (block < 0 || is_norm(t.first().role) || stays_float(t.first().role)) continue;
    const int64_t cols = shape_of(spec, block, t.first())[1];
    if (t.rows % c.rows || cols % c.cols)
      fail("quantize", "--format {}: {} has {} rows and {} columns, but the format packs {} and {} together",
           format.name, t.name, t.rows, cols, c.rows, c.cols);
  }
}

std::unique_ptr<CheckpointSink> fitting_sink(const Format& format, const OutputPlace& place,
                                             const nlohmann::json& config, const ModelSpec& spec,
                                             const QuantSpec& quant) {
  QuantSpec in_file = quant;
  in_file.offsets = format.holds->offsets;
  return std::make_unique<FittingSink>(format.create(place, config, spec, in_file), *format.holds, spec);
}

}  // namespace awq
