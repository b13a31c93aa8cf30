#include "api_format.h"

#include <algorithm>
#include <array>

#include "api_group_size.h"
#include "base/check.h"
#include "formats/params.h"
#include "formats/stored.h"

namespace awq {
namespace {

const std::array<Target, 4> kTargets = {{{"transformers", "autoawq", {32, 64, 128, -1}},
                                         {"vllm", "compressed-tensors", {32, 64, 128, -1}},
                                         {"llama.cpp", "gguf-q4_1", {32, 64, 128, -1}},
                                         {"mlx", "mlx", {32, 64, 128}}}};

const Target& find_target(std::string_view operation, const std::string& name) {
  std::string names;
  for (const Target& t : kTargets) {
    if (t.name == name) return t;
    names += (names.empty() ? "" : ", ") + std::string(t.name);
  }
  fail(operation, "--target {}: awq has been run with {} only; give a --format to write one that other programs read",
       name, names);
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
  const StoredTensors stored(spec);
  for (const StoredTensor& t : stored.all()) {
    const int block = t.parts.front().block;
    if (block < 0 || is_norm(t.first().role) || is_router(t.first().role)) continue;
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
