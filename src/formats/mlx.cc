// A folder of MLX: codes of each row one after the other from the low end of its words, a scale and a bias for each
// group; a weight is code * scale + bias. Embedding and head may be quantized too.
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

class Mlx final : public PackedFolder {
 public:
  explicit Mlx(const fs::path& folder) : PackedFolder(folder, read_config(folder)) {
    const Json mode = config().at("quantization").value("mode", Json("affine"));
    if (mode != "affine") bad_config("mode", "\"affine\" (what this version reads)", mode);
    check_tensors();
  }
  std::string_view format() const override { return "mlx"; }

 private:
  std::optional<QuantSpec> quant_of(Param, const std::string& base, const Shape& shape) const override;
  void require(TensorCheck& check, const PackedPlace& at) const override;
  QMatrix read(const PackedPlace& at, int64_t begin, int64_t end) const override;
};

/// mlx-lm allows other bits and groups for single layers; shapes say them without the rules by which it names layers.
std::optional<QuantSpec> Mlx::quant_of(Param, const std::string& base, const Shape& shape) const {
  if (!files().find(base + ".scales")) return std::nullopt;
  const SafetensorsEntry &words = entry(base + ".weight"), &scales = entry(base + ".scales");
  const int64_t width = words.shape.rank() == 2 ? words.shape[1] : 0;
  const int64_t groups = scales.shape.rank() == 2 ? scales.shape[1] : 0;
  const int64_t bits = width <= shape[1] / 4 ? width * 32 / shape[1] : 0;  // no product before it fits
  if (bits < 2 || bits > 8 || bits == 7 || bits * shape[1] != width * 32 || groups < 1 || shape[1] % groups)
    fail(
        "open",
        "{}: {} has {} columns by config.json, which weight {} and scales {} are not those of: 2, 3, 4, 5, 6 or 8 bits "
        "a column and whole groups are expected",
        folder().string(), base, shape[1], words.shape.text(), scales.shape.text());
  return QuantSpec{.bits = int(bits),
                   .group_size = int(shape[1] / groups),
                   .scale_dtype = scales.dtype.value_or(DType::f32),
                   .offsets = true};
}

void Mlx::require(TensorCheck& check, const PackedPlace& at) const {
  const int64_t rows = at.shape[0], cols = at.shape[1], groups = cols / at.spec.group_size;
  check.require(at.base + ".weight", {rows, cols * at.spec.bits / 32}, {DType::u32});
  check.require(at.base + ".scales", {rows, groups});
  check.require(at.base + ".biases", {rows, groups}, {at.spec.scale_dtype});
}

QMatrix Mlx::read(const PackedPlace& at, int64_t begin, int64_t end) const {
  return {at.spec, unpack_rows(files().rows(at.base + ".weight", begin, end), at.spec.bits),
          scales(at.base + ".scales", begin, end), Tensor(), scales(at.base + ".biases", begin, end)};
}

class MlxSink final : public PackedSink {
 public:
  using PackedSink::PackedSink;

 private:
  std::vector<Part> pack(const QMatrix& q) const override {
    if (q.cols() * q.spec.bits % 32)
      fail("write", "{} columns of {} bits are no whole words of 32", q.cols(), q.spec.bits);
    return {{"weight", pack_rows_to(q.codes, q.spec.bits, DType::u32)},
            {"scales", q.scales.to(q.spec.scale_dtype)},
            {"biases", q.offsets.to(q.spec.scale_dtype)}};
  }
  void describe(Json& config) const override {
    config["quantization"] = {{"group_size", quant().group_size}, {"bits", quant().bits}};
    config["quantization_config"] = config["quantization"];
  }
};

std::unique_ptr<CheckpointSink> new_mlx(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                        const QuantSpec& quant) {
  return std::make_unique<MlxSink>(place, config, spec, quant);
}

/// The key alone would do; what other tools put beside it is a copy under Hugging Face's key, without a method.
bool is_mlx(const fs::path& path) {
  try {
    const Json config = read_config(path);
    const auto q = config.find("quantization");
    return q != config.end() && q->is_object() && q->contains("bits") && quant_method(path).empty();
  } catch (const Error&) {
    return false;  // whatever is wrong is reported by the format that opens it
  }
}

std::unique_ptr<Checkpoint> open_mlx(const fs::path& path) { return std::make_unique<Mlx>(path); }

}  // namespace

const Capacity kMlxHolds{
    .bits = {2, 3, 4, 5, 6, 8}, .groups = {32, 64, 128}, .offsets = true, .whole_rows = false, .bf16 = true};
extern const Format kMlx;
const Format kMlx{"mlx", is_mlx, open_mlx, new_mlx, &kMlxHolds};

}  // namespace awq
