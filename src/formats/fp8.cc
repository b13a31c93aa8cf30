// A Hugging Face folder with matrices of 8-bit floats and a scale for each block of them, in which DeepSeek-V3's and
// Qwen3's "FP8" models are published. Read as the float model that it stands for: a weight is its float times the scale
// of its block, rounded once to f32.
#include "formats/fp8.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "formats/float_blocks.h"
#include "formats/packed_folder.h"
#include "formats/params.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// E4M3 as in "FP8 Formats for Deep Learning" (arXiv 2209.05433): bias 7, no infinity, NaN where all bits but the sign
/// are set.
const std::array<float, 256> kE4m3 = [] {
  std::array<float, 256> values{};
  for (int i = 0; i < 256; ++i) {
    const int exponent = i >> 3 & 15, mantissa = i & 7;
    const float size = exponent ? std::ldexp(float(8 + mantissa), exponent - 10) : std::ldexp(float(mantissa), -9);
    values[size_t(i)] = (i & 0x7f) == 0x7f ? NAN : i & 0x80 ? -size : size;
  }
  return values;
}();

struct ScaleBlock {
  int64_t rows, cols;
};

class Fp8Config {
 public:
  explicit Fp8Config(const fs::path& folder) : file_((folder / "config.json").string()), config_(read_config(folder)) {
    const Json q = config_.at("quantization_config");
    for (const auto& [key, value] : q.items())
      if (std::ranges::find(kKnown, key) == kKnown.end()) bad(key, "absent (this version does not know it)", value);
    if (const Json type = q.value("fmt", Json("e4m3")); type != "e4m3") bad("fmt", "\"e4m3\"", type);
    size_ = q.value("weight_block_size", Json());
    if (!size_.is_array() || size_.size() != 2 || !is_size(size_[0]) || !is_size(size_[1]))
      bad("weight_block_size", "two positive numbers", size_);
  }
  ScaleBlock block() const { return {size_[0].get<int64_t>(), size_[1].get<int64_t>()}; }
  /// Of the float model.
  Json config() const {
    Json c = config_;
    c.erase("quantization_config");
    return c;
  }

 private:
  // What is done with activations, and which matrices are floats of 16 bits, which the tensors say too.
  static constexpr std::array<std::string_view, 8> kKnown = {"quant_method",      "fmt",       "weight_block_size",
                                                             "activation_scheme", "scale_fmt", "modules_to_not_convert",
                                                             "ignored_layers",    "dequantize"};
  static bool is_size(const Json& v) { return v.is_number_integer() && v > 0 && v <= INT32_MAX; }
  [[noreturn]] void bad(std::string_view key, std::string_view expected, const Json& got) const {
    fail("open", "{}: \"{}\" should be {}, but is {}", file_, key, expected, shown(got));
  }

  std::string file_;
  Json config_, size_;
};

class Fp8Checkpoint final : public FloatBlocks {
 public:
  explicit Fp8Checkpoint(const fs::path& folder) : Fp8Checkpoint(folder, Fp8Config(folder)) {}
  std::string_view format() const override { return "fp8"; }

 private:
  Fp8Checkpoint(const fs::path& folder, const Fp8Config& described)
      : FloatBlocks(folder, described.config(), DType::f32), block_(described.block()) {
    check_tensors();
  }

  bool in_blocks(const StoredTensor& t) const override {
    const std::string tensor = name(t) + ".weight";
    const SafetensorsFile* file = files().find(tensor);
    return file && !is_norm(t.first().role) && !t.transposed &&
           file->entries().find(tensor)->second.dtype == DType::f8_e4m3;
  }
  void require_blocks(TensorCheck& check, const StoredTensor& t) const override {
    const std::string base = name(t);
    check.require(base + ".weight", t.shape, {DType::f8_e4m3});
    check.require(base + kScales, {(t.shape[0] - 1) / block_.rows + 1, (t.shape[1] - 1) / block_.cols + 1});
    for (const char* unused : kOfActivations)
      if (const SafetensorsFile* file = files().find(base + unused))
        check.require(base + unused, file->entries().find(base + unused)->second.shape);
  }
  std::string why_unused(std::string_view tensor) const override {
    for (const char* end : kOfActivations)
      if (tensor.ends_with(end)) return "for activations of 8 bits; they stay in floats";
    return "";
  }

  Tensor values(const StoredTensor& t, int64_t begin, int64_t end) const override {
    const std::string base = name(t);
    const Tensor scales = files().tensor(base + kScales).to(DType::f32);
    const Tensor codes = files().rows(base + ".weight", begin, end);
    const int64_t cols = codes.shape()[1];
    Tensor out = Tensor::empty(codes.shape(), DType::f32);
    const auto* from = reinterpret_cast<const uint8_t*>(codes.data());
    float* to = out.as<float>().data();
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < cols; c += block_.cols) {
        const float s = scale(base, scales, r / block_.rows, c / block_.cols);
        for (int64_t i = c; i < std::min(c + block_.cols, cols); ++i) *to++ = kE4m3[*from++] * s;
      }
    return out;
  }
  /// Of block [r, c].
  float scale(const std::string& base, const Tensor& scales, int64_t r, int64_t c) const {
    const float s = scales.as<float>()[size_t(r * scales.shape()[1] + c)];
    if (!std::isfinite(s))
      fail("open", "{}: the scale of block {}, {} of {} is {}; the file is damaged", folder().string(), r, c, base, s);
    return s;
  }

  static constexpr const char* kScales = ".weight_scale_inv";
  static constexpr std::array kOfActivations = {".input_scale", ".activation_scale"};
  ScaleBlock block_;
};

std::unique_ptr<Checkpoint> open_fp8(const fs::path& path) { return std::make_unique<Fp8Checkpoint>(path); }

}  // namespace

bool is_fp8(const fs::path& folder) { return quant_method(folder) == "fp8"; }
Json float_config_of_fp8(const fs::path& folder) { return Fp8Config(folder).config(); }

extern const Format kFp8;
const Format kFp8{"fp8", is_fp8, open_fp8, nullptr};

}  // namespace awq
