// A folder of ModelOpt's int4_awq, which TensorRT-LLM reads: signed nibbles of two rows in a byte, no zero points.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "formats/bit_fields.h"
#include "formats/packed_folder.h"
#include "formats/packed_sink.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Byte (r, c) has row 2 r in its low half and 2 r + 1 in its high half; flipping the top bit of a code gives code - 8.
Tensor pack_pairs(const Tensor& codes) {
  const int64_t rows = codes.shape()[0], cols = codes.shape()[1];
  Tensor out = Tensor::empty({rows / 2, cols}, DType::u8);
  const uint8_t* from = codes.as<uint8_t>().data();
  for (int64_t i = 0; i < rows / 2 * cols; ++i) {
    const uint8_t* low = from + i / cols * 2 * cols + i % cols;
    out.as<uint8_t>()[size_t(i)] = uint8_t((low[0] | low[cols] << 4) ^ 0x88);
  }
  return out;
}

Tensor unpack_pairs(const Tensor& bytes) {
  const int64_t rows = bytes.shape()[0] * 2, cols = bytes.shape()[1];
  Tensor out = Tensor::empty({rows, cols}, DType::u8);
  for (int64_t i = 0; i < rows / 2 * cols; ++i) {
    const int byte = bytes.as<uint8_t>()[size_t(i)] ^ 0x88;
    uint8_t* low = out.as<uint8_t>().data() + i / cols * 2 * cols + i % cols;
    low[0] = uint8_t(byte & 15);
    low[cols] = uint8_t(byte >> 4);
  }
  return out;
}

class ModelOpt final : public PackedFolder {
 public:
  explicit ModelOpt(const fs::path& folder) : PackedFolder(folder, read_config(folder)) {
    const Json& q = config().at("quantization_config");
    const Json algorithm = q.value("quant_algo", Json()), group = q.value("group_size", Json());
    if (algorithm != "W4A16_AWQ") bad_config("quant_algo", "\"W4A16_AWQ\" (what this version reads)", algorithm);
    if (!group.is_number_integer() || group < 1 || group > INT32_MAX)
      bad_config("group_size", "a positive number", group);
    if (const Json zero = q.value("has_zero_point", Json(false)); zero != false)
      bad_config("has_zero_point", "false", zero);
    group_size_ = group.get<int>();
    check_tensors();
  }
  std::string_view format() const override { return "modelopt"; }

 private:
  std::optional<QuantSpec> quant_of(Param, const std::string& base, const Shape&) const override {
    if (!files().find(base + ".weight_scale")) return std::nullopt;
    return QuantSpec{
        .bits = 4, .group_size = group_size_, .scale_dtype = type_of(base + ".weight_scale"), .symmetric = true};
  }
  void require(TensorCheck& check, const PackedPlace& at) const override {
    const int64_t rows = at.shape[0], cols = at.shape[1];
    require_multiple(at, "rows", rows, 2);
    check.require(at.base + ".weight", {rows / 2, cols}, {DType::u8});
    check.require(at.base + ".weight_scale", {rows, cols / at.spec.group_size});
    if (files().find(factors(at))) check.require(factors(at), {cols});
  }
  static std::string factors(const PackedPlace& at) { return at.base + ".pre_quant_scale"; }
  Tensor inputs(const PackedPlace& at) const override {
    if (!files().find(factors(at))) return {};
    const Tensor s = files().tensor(factors(at)).to(DType::f32);
    const auto v = s.as<float>();
    if (const auto bad = std::ranges::find_if(v, [](float x) { return !std::isfinite(x); }); bad != v.end())
      fail("open", "{}: element {} of tensor {} is {}; the file is damaged or the model was quantized badly",
           folder().string(), bad - v.begin(), factors(at), *bad);
    return std::ranges::all_of(v, [](float x) { return x == 1; }) ? Tensor() : s;
  }
  QMatrix read(const PackedPlace& at, int64_t begin, int64_t end) const override {
    QMatrix q{at.spec, unpack_pairs(files().rows(at.base + ".weight", begin / 2, (end + 1) / 2)).rows(0, end - begin),
              scales(at.base + ".weight_scale", begin, end), Tensor()};
    q.zeros = middle_zeros(q.scales.shape(), 4);
    return q;
  }

  int group_size_ = 0;
};

class ModelOptSink final : public PackedSink {
 public:
  using PackedSink::PackedSink;

 private:
  std::vector<Part> pack(const QMatrix& q) const override {
    if (q.rows() % 2) fail("write", "{} rows; this format packs two together", q.rows());
    Tensor inputs = q.inputs;
    if (!inputs) std::ranges::fill((inputs = Tensor::empty({q.cols()}, DType::f32)).as<float>(), 1.f);
    return {{"weight", pack_pairs(q.codes)},
            {"weight_scale", q.scales.to(q.spec.scale_dtype)},
            {"pre_quant_scale", narrowed(inputs)}};
  }
  Json quantization() const {
    std::vector<std::string> excluded = left_float();
    excluded.emplace_back("lm_head");
    for (const std::string& part : carried_parts()) excluded.push_back(part + "*");
    return {{"quant_algo", "W4A16_AWQ"}, {"kv_cache_quant_algo", nullptr}, {"group_size", quant().group_size},
            {"has_zero_point", false},   {"pre_quant_scale", true},        {"exclude_modules", excluded}};
  }
  void describe(Json& config) const override {
    config.erase("quantization");
    Json q = quantization();
    q["quant_method"] = "modelopt";
    config["quantization_config"] = q;
  }
  std::vector<SideFile> descriptions() const override {
    const Json j = {{"producer", {{"name", "modelopt"}}}, {"quantization", quantization()}};
    return {{"hf_quant_config.json", j.dump(2) + "\n", {}}};
  }
};

bool is_modelopt(const fs::path& path) { return quant_method(path) == "modelopt"; }

std::unique_ptr<Checkpoint> open_modelopt(const fs::path& path) { return std::make_unique<ModelOpt>(path); }

std::unique_ptr<CheckpointSink> new_modelopt(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                             const QuantSpec& quant) {
  if (quant.group_size == -1) fail("write", "ModelOpt's int4_awq has one size of groups a model, not whole rows");
  return std::make_unique<ModelOptSink>(place, config, spec, quant);
}

}  // namespace

const Capacity kModelOptHolds{
    .bits = {4}, .symmetric = true, .inputs = true, .rows = 2, .whole_rows = false, .bf16 = true};
extern const Format kModelOpt;
const Format kModelOpt{"modelopt", is_modelopt, open_modelopt, new_modelopt, &kModelOptHolds};

}  // namespace awq
