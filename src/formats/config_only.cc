#include "formats/config_only.h"

#include "base/check.h"
#include "formats/folder.h"
#include "formats/fp8.h"
#include "formats/mxfp4.h"
#include "formats/params.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

DType type_named(const nlohmann::json& config) {
  std::string name = "bfloat16";
  for (const char* key : {"dtype", "torch_dtype"})
    if (const auto it = config.find(key); it != config.end() && it->is_string()) name = it->get<std::string>();
  for (const auto& [text, type] :
       {std::pair("bfloat16", DType::bf16), {"float16", DType::f16}, {"float32", DType::f32}})
    if (name == text) return type;
  fail("open", "config.json: \"torch_dtype\": \"{}\" is not known; there are bfloat16, float16 and float32", name);
}

class ConfigOnly final : public Checkpoint {
 public:
  explicit ConfigOnly(const fs::path& folder)
      : folder_(folder),
        config_(is_fp8(folder)     ? float_config_of_fp8(folder)
                : is_mxfp4(folder) ? float_config_of_mxfp4(folder)
                                   : read_config(folder)),
        spec_(parse_spec(config_, folder)),
        type_(type_named(config_)),
        type_of_rounded_(is_fp8(folder) ? DType::f32 : type_) {
    if (config_.contains("quantization_config"))
      fail("open", "{}: the model is quantized already; take the float model that it was made of", described_in());
  }
  std::string_view format() const override { return "config"; }
  const nlohmann::json& config() const override { return config_; }
  const ModelSpec& spec() const override { return spec_; }
  std::string described_in() const override { return (folder_ / "config.json").string(); }
  std::vector<TensorInfo> tensors() const override { return {}; }
  std::vector<SideFile> side_files() const override { return {}; }
  Weight weight(int, Param) const override { no_weights(); }
  Tensor bias(int, Param) const override { no_weights(); }
  Pieces pieces(int block, Param p) const override {
    const Shape shape = shape_of(spec_, block, p);
    const DType type = is_rounded(p.role) ? type_of_rounded_ : type_;
    return in_bands(shape, type, shape[1] * int64_t(size_of(type)), 1,
                    [this](int64_t, int64_t) -> Tensor { no_weights(); });
  }

 private:
  [[noreturn]] void no_weights() const {
    fail("open", "{}: there are no weights beside it; is the download complete?", described_in());
  }

  fs::path folder_;
  nlohmann::json config_;
  ModelSpec spec_;
  DType type_, type_of_rounded_;  // 8-bit floats are read as f32
};

}  // namespace

bool is_config_only(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / "config.json", ignored)) return false;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    for (const char* mark : {".safetensors", ".bin", ".pt", ".pth", ".gguf"})
      if (entry.path().filename().string().find(mark) != std::string::npos) return false;
  return true;
}

std::unique_ptr<Checkpoint> open_config_only(const fs::path& folder) { return std::make_unique<ConfigOnly>(folder); }

}  // namespace awq
