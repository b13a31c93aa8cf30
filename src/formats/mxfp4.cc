// A Hugging Face folder whose experts are 4-bit floats, 32 of them with a power of 2 (OCP Microscaling Formats 1.0), in
// which gpt-oss is published. Read as the float model that it stands for: every product is exact in bfloat16.
#include "formats/mxfp4.h"

#include <array>
#include <cmath>

#include "base/check.h"
#include "base/numeric.h"
#include "formats/float_blocks.h"
#include "formats/packed_folder.h"
#include "formats/params.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int64_t kBlock = 32;
constexpr std::array<float, 8> kE2m1 = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

float value_of(uint8_t code, int power) {
  const float size = std::ldexp(kE2m1[code & 7], power - 127);
  return code & 8 ? -size : size;
}

class Mxfp4Checkpoint final : public FloatBlocks {
 public:
  explicit Mxfp4Checkpoint(const fs::path& folder) : FloatBlocks(folder, float_config_of_mxfp4(folder), DType::bf16) {
    check_tensors();
  }
  std::string_view format() const override { return "mxfp4"; }

 private:
  bool in_blocks(const StoredTensor& t) const override { return t.stack && files().find(t.name + kBlocks); }
  void require_blocks(TensorCheck& check, const StoredTensor& t) const override {
    const int64_t rows = t.rows / t.stack, cols = t.shape.elements() / t.rows;
    if (cols % kBlock)
      fail("open", "{}: {} has {} columns, which is no multiple of the {} of a block; is config.json of this model?",
           folder().string(), t.name, cols, kBlock);
    check.require(t.name + kBlocks, {t.stack, rows, cols / kBlock, kBlock / 2}, {DType::u8});
    check.require(t.name + kScales, {t.stack, rows, cols / kBlock}, {DType::u8});
  }

  // Of two values in a byte the lower bits are the first.
  Tensor values(const StoredTensor& t, int64_t begin, int64_t end) const override {
    const Tensor codes = files().rows(t.name + kBlocks, begin, end),
                 scales = files().rows(t.name + kScales, begin, end);
    Tensor out = Tensor::empty({end - begin, scales.shape()[1] * kBlock}, DType::bf16);
    auto* to = reinterpret_cast<uint16_t*>(out.data());
    const auto *code = codes.as<uint8_t>().data(), *power = scales.as<uint8_t>().data();
    for (int64_t i = 0; i < scales.shape().elements(); ++i)
      for (int64_t j = 0; j < kBlock / 2; ++j, ++code) {
        *to++ = f32_to_bf16(value_of(*code & 15, power[i]));
        *to++ = f32_to_bf16(value_of(*code >> 4, power[i]));
      }
    return out;
  }

  static constexpr const char *kBlocks = "_blocks", *kScales = "_scales";
};

std::unique_ptr<Checkpoint> open_mxfp4(const fs::path& path) { return std::make_unique<Mxfp4Checkpoint>(path); }

}  // namespace

bool is_mxfp4(const fs::path& folder) { return quant_method(folder) == "mxfp4"; }

Json float_config_of_mxfp4(const fs::path& folder) {
  Json config = read_config(folder);
  for (const auto& [key, value] : config.at("quantization_config").items())
    if (key != "quant_method" && key != "modules_to_not_convert")
      fail("open", "{}/config.json: \"{}\" should be absent (this version does not know it), but is {}",
           folder.string(), key, shown(value));
  config.erase("quantization_config");
  return config;
}

extern const Format kMxfp4;
const Format kMxfp4{"mxfp4", is_mxfp4, open_mxfp4, nullptr};

}  // namespace awq
