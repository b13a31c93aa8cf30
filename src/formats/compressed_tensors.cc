// A Hugging Face folder in the layout "pack-quantized" of compressed-tensors: codes of each row one after the other
// from the low end of its words, scales as [rows, groups], zero points packed like codes but down the rows.
#include <algorithm>
#include <array>

#include "base/check.h"
#include "formats/bit_fields.h"
#include "formats/packed_folder.h"
#include "formats/packed_sink.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// What one of config.json's config_groups says about the weights of its targets.
struct Scheme {
  int bits = 4;
  int group_size = 0;  // -1: one group a row
  bool symmetric = false;
};

class CompressedTensors final : public PackedFolder {
 public:
  explicit CompressedTensors(const fs::path& folder) : PackedFolder(folder, read_config(folder)) {
    read_schemes(config().at("quantization_config"));
    check_tensors();
  }
  std::string_view format() const override { return "compressed-tensors"; }

 private:
  void read_schemes(const Json& q);
  Scheme scheme_of(const Json& group) const;
  bool fits(const Scheme& s, const std::string& base, const Shape& shape) const;
  const Scheme& scheme_of(const std::string& base, const Shape& shape) const;

  std::optional<QuantSpec> quant_of(Param, const std::string& base, const Shape& shape) const override;
  void require(TensorCheck& check, const PackedPlace& at) const override;
  QMatrix read(const PackedPlace& at, int64_t begin, int64_t end) const override;
  Tensor order(const PackedPlace& at) const override {
    const std::string g_idx = at.base + ".weight_g_idx";
    return files().find(g_idx) ? order_of(at, g_idx) : Tensor();
  }
  Tensor zeros(const PackedPlace& at, int64_t begin, int64_t end) const;

  std::vector<Scheme> schemes_;
};

bool is_null_or_empty(const Json& v) { return v.is_null() || ((v.is_object() || v.is_array()) && v.empty()); }

void CompressedTensors::read_schemes(const Json& q) {
  if (const Json format = q.value("format", Json("pack-quantized")); format != "pack-quantized")
    bad_config("format", "\"pack-quantized\" (what this version reads)", format);
  for (const char* key : {"sparsity_config", "transform_config", "kv_cache_scheme"})
    if (const Json v = q.value(key, Json()); !is_null_or_empty(v) && v.value("format", Json()) != "dense")
      bad_config(key, "absent (this version would compute another model)", v);
  const Json groups = q.value("config_groups", Json());
  if (!groups.is_object() || groups.empty()) bad_config("config_groups", "an object with a group", groups);
  for (const auto& [name, group] : groups.items()) schemes_.push_back(scheme_of(group));
}

Scheme CompressedTensors::scheme_of(const Json& group) const {
  const Json weights = group.is_object() ? group.value("weights", Json()) : Json();
  if (!weights.is_object()) bad_config("weights", "an object", weights);
  const auto value = [&](const char* key, const Json& otherwise) { return weights.value(key, otherwise); };
  for (const char* key : {"input_activations", "output_activations"})
    if (const Json v = group.value(key, Json()); !v.is_null()) bad_config(key, "null (weights alone are quantized)", v);
  if (const Json type = value("type", "int"); type != "int") bad_config("type", "\"int\"", type);
  if (const Json dynamic = value("dynamic", false); dynamic != false) bad_config("dynamic", "false", dynamic);
  const Json bits = value("num_bits", Json()), size = value("group_size", Json()), strategy = value("strategy", Json());
  if (bits != 4 && bits != 8) bad_config("num_bits", "4 or 8", bits);
  const Json symmetric = value("symmetric", true);
  if (!symmetric.is_boolean()) bad_config("symmetric", "true or false", symmetric);
  if (strategy == "channel") return {bits.get<int>(), -1, symmetric.get<bool>()};
  if (!strategy.is_null() && strategy != "group") bad_config("strategy", "\"group\" or \"channel\"", strategy);
  if (!size.is_number_integer() || size < 1 || size > INT32_MAX) bad_config("group_size", "a positive number", size);
  return {bits.get<int>(), size.get<int>(), symmetric.get<bool>()};
}

bool CompressedTensors::fits(const Scheme& s, const std::string& base, const Shape& shape) const {
  const int64_t group = s.group_size == -1 ? shape[1] : s.group_size;
  return files().find(base + ".weight_scale") && shape[1] % group == 0 &&
         entry(base + ".weight_packed").shape == Shape{shape[0], shape[1] * s.bits / 32} &&
         entry(base + ".weight_scale").shape == Shape{shape[0], shape[1] / group} &&
         s.symmetric == !files().find(base + ".weight_zero_point");
}

/// Which scheme a layer has follows from its tensors: names and patterns of targets need not be understood for that.
const Scheme& CompressedTensors::scheme_of(const std::string& base, const Shape& shape) const {
  const auto it = std::ranges::find_if(schemes_, [&](const Scheme& s) { return fits(s, base, shape); });
  return it == schemes_.end() ? schemes_.front() : *it;  // `require` then says what does not fit
}

std::optional<QuantSpec> CompressedTensors::quant_of(Param, const std::string& base, const Shape& shape) const {
  if (!files().find(base + ".weight_packed")) return std::nullopt;
  const Scheme& s = scheme_of(base, shape);
  return QuantSpec{.bits = s.bits,
                   .group_size = int(s.group_size == -1 ? shape[1] : s.group_size),
                   .scale_dtype = type_of(base + ".weight_scale"),
                   .symmetric = s.symmetric};
}

void CompressedTensors::require(TensorCheck& check, const PackedPlace& at) const {
  const int64_t fields = 32 / at.spec.bits, rows = at.shape[0], cols = at.shape[1], groups = cols / at.spec.group_size;
  require_multiple(at, "columns", cols, fields);
  check.require(at.base + ".weight_packed", {rows, cols / fields}, {DType::i32});
  check.require(at.base + ".weight_scale", {rows, groups});
  check.require(at.base + ".weight_shape", {2}, {DType::i64, DType::i32});
  const Tensor stored = files().rows(at.base + ".weight_shape", 0, 2);
  const bool wide = stored.dtype() == DType::i64;
  for (int i = 0; i < 2; ++i)
    if (const int64_t n = wide ? stored.as<int64_t>()[size_t(i)] : stored.as<int32_t>()[size_t(i)]; n != at.shape[i])
      fail("open", "{}: tensor {}.weight_shape says {} for dimension {} of {}", folder().string(), at.base, n, i,
           at.shape.text());
  if (!scheme_of(at.base, at.shape).symmetric)
    check.require(at.base + ".weight_zero_point", {(rows + fields - 1) / fields, groups}, {DType::i32});
  if (files().find(at.base + ".weight_g_idx")) check.require(at.base + ".weight_g_idx", {cols}, {DType::i32});
}

QMatrix CompressedTensors::read(const PackedPlace& at, int64_t begin, int64_t end) const {
  QMatrix q{at.spec, unpack_rows(files().rows(at.base + ".weight_packed", begin, end), at.spec.bits),
            scales(at.base + ".weight_scale", begin, end), zeros(at, begin, end)};
  if (const Tensor by = order(at)) q.codes = columns_in_order(q.codes, by);
  return q;
}

Tensor CompressedTensors::zeros(const PackedPlace& at, int64_t begin, int64_t end) const {
  const std::string tensor = at.base + ".weight_zero_point";
  if (!files().find(tensor)) return middle_zeros({end - begin, at.shape[1] / at.spec.group_size}, at.spec.bits);
  const int64_t fields = 32 / at.spec.bits;
  const Tensor words = files().rows(tensor, begin / fields, (end + fields - 1) / fields);
  return transposed(unpack_rows(transposed(words), at.spec.bits)).rows(0, end - begin);
}

class CompressedTensorsSink final : public PackedSink {
 public:
  using PackedSink::PackedSink;

 private:
  std::vector<Part> pack(const QMatrix& q) const override {
    const int64_t fields = 32 / q.spec.bits;
    if (q.cols() % fields) fail("write", "{} columns; this format packs {} together", q.cols(), fields);
    std::vector<Part> parts = {{"weight_packed", pack_rows_to(q.codes, q.spec.bits, DType::i32)},
                               {"weight_scale", q.scales.to(q.spec.scale_dtype)},
                               {"weight_shape", Tensor::of<int64_t>(std::array{q.rows(), q.cols()}, {2})}};
    if (!quant().symmetric) parts.push_back({"weight_zero_point", packed_zeros(q, fields)});
    return parts;
  }
  /// Down the rows, filled up to whole words.
  static Tensor packed_zeros(const QMatrix& q, int64_t fields) {
    Tensor down = Tensor::zeros({q.groups(), (q.rows() + fields - 1) / fields * fields}, DType::u8);
    const Tensor zeros = transposed(q.zeros);
    for (int64_t g = 0; g < q.groups(); ++g)
      std::copy_n(zeros.as<uint8_t>().data() + g * q.rows(), q.rows(), down.as<uint8_t>().data() + g * down.shape()[1]);
    return transposed(pack_rows_to(down, q.spec.bits, DType::i32));
  }
  void describe(Json& config) const override {
    const bool rows = quant().group_size == -1;
    std::vector<std::string> ignore = left_float();
    ignore.emplace_back("lm_head");
    for (const std::string& part : carried_parts()) ignore.push_back("re:" + part + "[.].*");
    Json weights = {{"num_bits", quant().bits},
                    {"type", "int"},
                    {"symmetric", quant().symmetric},
                    {"strategy", rows ? "channel" : "group"}};
    weights["group_size"] = rows ? Json() : Json(quant().group_size);
    Json group;
    group["targets"] = Json::array({"Linear"});
    group["weights"] = weights;
    Json q = {{"quant_method", "compressed-tensors"},
              {"format", "pack-quantized"},
              {"quantization_status", "compressed"},
              {"ignore", ignore}};
    q["config_groups"]["group_0"] = group;
    config.erase("quantization");
    config["quantization_config"] = q;
  }
};

std::unique_ptr<CheckpointSink> new_compressed_tensors(const OutputPlace& place, const Json& config,
                                                       const ModelSpec& spec, const QuantSpec& quant) {
  return std::make_unique<CompressedTensorsSink>(place, config, spec, quant);
}

bool is_compressed_tensors(const fs::path& path) { return quant_method(path) == "compressed-tensors"; }

std::unique_ptr<Checkpoint> open_compressed_tensors(const fs::path& path) {
  return std::make_unique<CompressedTensors>(path);
}

}  // namespace

const Capacity kCompressedTensorsHolds{.bits = {4, 8}, .bf16 = true};
extern const Format kCompressedTensors;
const Format kCompressedTensors{"compressed-tensors", is_compressed_tensors, open_compressed_tensors,
                                new_compressed_tensors, &kCompressedTensorsHolds};

}  // namespace awq
