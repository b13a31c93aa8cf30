// A Hugging Face folder with float weights.
#include <algorithm>

#include "base/check.h"
#include "formats/folder.h"
#include "formats/params.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

Json float_config(const fs::path& folder) {
  Json config = read_config(folder);
  for (const char* key : {"quantization_config", "compression_config", "quantization"})
    if (const auto it = config.find(key); it != config.end() && !it->is_null())
      fail(
          "open",
          "{}/config.json: the model is quantized in a way that this version cannot read, \"{}\" is {}; give the float "
          "model that it was made of",
          folder.string(), key, shown(*it));
  return config;
}

class HfCheckpoint : public FolderCheckpoint {
 public:
  explicit HfCheckpoint(const fs::path& folder) : FolderCheckpoint(folder, float_config(folder)) {
    TensorCheck check(folder, spec(), files());
    for (const StoredTensor& t : stored().all()) {
      check.require(weight_name(t), t.shape);
      if (t.bias) check.require(bias_name(t), bias_shape(t));
    }
    check.no_others();
  }
  std::string_view format() const override { return "hf"; }
};

class HfSink : public FolderSink {
 public:
  using FolderSink::FolderSink;

 private:
  void write(const StoredTensor& s, const Weight& w) override {
    const auto* q = std::get_if<QMatrix>(&w);
    const Tensor t = q ? dequantize(*q) : std::get<Tensor>(w);
    if (!is_norm(s.first().role)) types_.insert(t.dtype());
    write_tensor(s.weight(), as_stored(s, t));
  }
  void describe(Json& config) const override {
    config.erase("quantization_config");
    // The type that programs compute in unless told otherwise: that of the matrices, or the one that holds them all.
    const DType type = types_.size() == 1 ? *types_.begin() : DType::f32;
    const char* name = type == DType::f32 ? "float32" : type == DType::f16 ? "float16" : "bfloat16";
    config["torch_dtype"] = name;
    if (config.contains("dtype")) config["dtype"] = name;  // how newer files spell it
  }

  Json seen() const override {
    std::vector<int> types;
    for (DType t : types_) types.push_back(int(t));
    return types;
  }
  void see_again(const Json& seen) override {
    for (const Json& t : seen) types_.insert(DType(t.get<int>()));
  }

  std::set<DType> types_;
};

bool is_hf(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path / "config.json", ignored);
}

std::unique_ptr<Checkpoint> open_hf(const fs::path& path) { return std::make_unique<HfCheckpoint>(path); }

std::unique_ptr<CheckpointSink> new_hf(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                       const QuantSpec&) {
  return create_hf(place, config, spec);
}

}  // namespace

std::unique_ptr<CheckpointSink> create_hf(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                          uint64_t shard_bytes) {
  return std::make_unique<HfSink>(place, config, spec, shard_bytes);
}

extern const Format kHf;
const Format kHf{"hf", is_hf, open_hf, new_hf};

}  // namespace awq
