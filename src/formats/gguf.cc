#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>

#include "base/check.h"
#include "formats/gguf_config.h"
#include "formats/gguf_layout.h"
#include "formats/gguf_tokenizer.h"
#include "formats/params.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRopeFrequencies = "rope_freqs.weight";

/// GGUF holds a norm's full gain g; a checkpoint of a family with gain_offset holds w = g - offset. For offset 1 and
/// g >= 1/2 the difference is exact, so w + 1 gives g back bit by bit; below, w is off by at most 2^-25.
Tensor without_offset(const Tensor& gain, float offset) {
  Tensor w = gain.dtype() == DType::f32 ? gain.clone() : gain.to(DType::f32);
  for (float& v : w.as<float>()) v -= offset;
  return w;
}

QuantSpec spec_of(const GgmlType& type) {
  return {.bits = type.codes.bits,
          .group_size = type.codes.group,
          .scale_dtype = type.codes.half_scales ? DType::f16 : DType::f32,
          .offsets = type.codes.zero < 0,
          .symmetric = type.codes.zero == 1 << (type.codes.bits - 1)};
}

class GgufCheckpoint final : public Checkpoint {
 public:
  explicit GgufCheckpoint(Gguf file)
      : file_(std::move(file)),
        config_(gguf_config(file_)),
        spec_(find_architecture(config_["architectures"][0].get<std::string>()).parse(config_)),
        arch_(file_.text("general.architecture")) {
    check_tensors();
  }
  std::string_view format() const override { return "gguf"; }
  const nlohmann::json& config() const override { return config_; }
  const ModelSpec& spec() const override { return spec_; }
  std::string described_in() const override { return file_.path().string(); }

  Weight weight(int block, Param p) const override {
    const std::string name = gguf_name(spec_, block, p) + ".weight";
    if (is_stacked(spec_, block, p)) {
      const Part part = part_of(block, p);
      return file_.rows(part.tensor, part.first, part.first + part.shape[0]);
    }
    if (!is_norm(p.role)) return ordered(file_.tensor(name).reshaped(shape_of(spec_, block, p)), block, p);
    const float offset = spec_.final_norm.gain_offset;
    return offset != 0 ? without_offset(vector(name), offset) : vector(name);
  }
  Pieces pieces(int block, Param p) const override {
    const Part part = part_of(block, p);
    const GgmlType& type = *part.tensor.type;
    if (!type.codes.group) return float_pieces(block, p);
    return in_bands(part.shape, spec_of(type), part.shape[1], row_step(block, p),
                    [=, this](int64_t begin, int64_t end) {
                      return ordered(quantized(part.tensor, part.first + begin, part.first + end), block, p);
                    });
  }
  /// What a GGUF holds counts as an original: many models are published in nothing else.
  Pieces float_pieces(int block, Param p) const override {
    const Part part = part_of(block, p);
    const DType dtype = file_.rows(part.tensor, 0, 0).dtype();
    return in_bands(part.shape, dtype, part.shape[1] * int64_t(size_of(dtype)), row_step(block, p),
                    [=, this](int64_t begin, int64_t end) {
                      return ordered(file_.rows(part.tensor, part.first + begin, part.first + end), block, p);
                    });
  }
  Tensor bias(int block, Param p) const override {
    return ordered(vector(gguf_name(spec_, block, p) + ".bias").to(DType::f32), block, p);
  }
  std::vector<TensorInfo> tensors() const override {
    std::map<std::string, TensorUse> uses;
    for (const auto& [block, p] : params_of(spec_))
      uses[gguf_name(spec_, block, p) + ".weight"] = use_of(*this, block, p);
    std::vector<TensorInfo> list;
    for (const GgufTensor& t : file_.tensors()) {
      TensorInfo& info =
          list.emplace_back(TensorInfo{std::string(t.name), std::string(t.type->name), t.shape, t.data.size()});
      if (const auto it = uses.find(info.name); it != uses.end())
        info.use = it->second;
      else if (info.name == kRopeFrequencies)
        info.use = TensorUse::dropped, info.reason = "read as rope scaling of the configuration";
    }
    return list;
  }
  std::vector<std::filesystem::path> weight_files() const override { return {file_.path()}; }
  std::vector<SideFile> side_files() const override {
    std::call_once(side_files_made_, [this] { side_files_ = gguf_side_files(file_); });
    return side_files_;
  }

 private:
  /// A matrix and the rows in which it lies.
  struct Part {
    GgufTensor tensor;
    Shape shape;
    int64_t first = 0;
  };
  Part part_of(int block, Param p) const {
    Part part{file_.at(gguf_name(spec_, block, p) + ".weight"), shape_of(spec_, block, p)};
    part.tensor.shape = {part.tensor.shape.elements() / part.shape[1], part.shape[1]};
    if (is_stacked(spec_, block, p)) part.first = p.expert * part.shape[0];
    return part;
  }
  /// A fault maps up to 2 MB around it: what is small and converted at once must not keep them.
  Tensor vector(const std::string& name) const {
    const GgufTensor& t = file_.at(name);
    return file_.rows(t, 0, t.shape[0]);
  }
  bool reordered(Param p) const { return has_pairs(arch_, p.role); }
  /// What is put in another order stays within heads.
  int64_t row_step(int block, Param p) const {
    return reordered(p) ? spec_.blocks.at(size_t(block)).attention.head_dim : 1;
  }
  Tensor ordered(const Tensor& t, int block, Param p) const {
    if (!reordered(p) || !t) return t;
    return halves_from_pairs(t, spec_.blocks.at(size_t(block)).attention.head_dim);
  }
  QMatrix ordered(const QMatrix& q, int block, Param p) const {
    return {q.spec, ordered(q.codes, block, p), ordered(q.scales, block, p), ordered(q.zeros, block, p),
            ordered(q.offsets, block, p)};
  }
  QMatrix quantized(const GgufTensor& t, int64_t begin, int64_t end) const;
  std::map<std::string, Shape> expected_tensors() const;
  void check_tensors() const;

  Gguf file_;
  nlohmann::json config_;
  ModelSpec spec_;
  std::string_view arch_;  // as the file spells it
  mutable std::once_flag side_files_made_;
  mutable std::vector<SideFile> side_files_;
};

QMatrix GgufCheckpoint::quantized(const GgufTensor& t, int64_t begin, int64_t end) const {
  QMatrix q = QMatrix::empty({end - begin, t.shape[1]}, spec_of(*t.type));
  const Tensor blocks = file_.blocks(t, begin, end);
  t.type->codes.split(blocks.data(), int64_t(blocks.bytes()) / t.type->bytes, q.codes.as<uint8_t>().data(),
                      q.scales.as<float>().data(), q.offsets ? q.offsets.as<float>().data() : nullptr);
  if (q.zeros) std::ranges::fill(q.zeros.as<uint8_t>(), uint8_t(t.type->codes.zero));
  if (const auto bad = first_bad_grid(q))
    fail("gguf", "{}: {}: the scale of row {}, group {} is not finite; the file is damaged", file_.path().string(),
         t.name, begin + *bad / q.groups(), *bad % q.groups());
  return q;
}

std::map<std::string, Shape> GgufCheckpoint::expected_tensors() const {
  std::map<std::string, Shape> expected = {{"token_embd.weight", {spec_.vocab, spec_.dim}},
                                           {"output_norm.weight", {spec_.dim}}};
  if (!spec_.tied_embeddings) expected["output.weight"] = {spec_.vocab, spec_.dim};
  if (arch_ == "llama" && file_.find(kRopeFrequencies))
    expected[kRopeFrequencies] = file_.at(kRopeFrequencies).shape;  // checked for config()
  for (int i = 0; i < int(spec_.blocks.size()); ++i) {
    const BlockSpec& b = spec_.blocks[size_t(i)];
    for (Param p : b.params()) {
      expected[gguf_name(spec_, i, p) + ".weight"] = gguf_shape(spec_, i, p);
      if (b.has_bias(p)) expected[gguf_name(spec_, i, p) + ".bias"] = {b.shape(p).first};
    }
  }
  return expected;
}

void GgufCheckpoint::check_tensors() const {
  const std::string path = file_.path().string();
  const auto expected = expected_tensors();
  for (const auto& [name, shape] : expected) {
    const GgufTensor& t = file_.at(name);
    if (t.shape != shape)
      fail("gguf", "{}: {} has the shape {}, expected {} from the metadata", path, name, t.shape.text(), shape.text());
    if (!t.type->dequantize)
      fail("gguf", "{}: {} is stored as {}; this version reads {}", path, name, t.type->name, readable_ggml_types());
  }
  for (const GgufTensor& t : file_.tensors())
    if (!expected.contains(std::string(t.name)))
      fail("gguf", "{}: the tensor {} {} is not part of {}; a model with extra parts cannot be read without them", path,
           t.name, t.shape.text(), spec_.arch);
}

/// A damaged file with the right ending is ours too: the message is then about the damage.
bool is_gguf(const fs::path& path) {
  const fs::path file = gguf_file(path);
  std::array<char, 4> magic{};
  std::ifstream(file, std::ios::binary).read(magic.data(), magic.size());
  return file.extension() == ".gguf" || std::string_view(magic.data(), magic.size()) == "GGUF";
}

std::unique_ptr<Checkpoint> open_gguf(const fs::path& path) { return open_gguf(Gguf(gguf_file(path))); }

}  // namespace

fs::path gguf_file(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return path;
  fs::path found;
  for (const auto& entry : fs::directory_iterator(path, ignored)) {
    if (entry.path().filename() == "config.json" || (entry.path().extension() == ".gguf" && !found.empty())) return {};
    if (entry.path().extension() == ".gguf") found = entry.path();
  }
  return found;
}

std::unique_ptr<Checkpoint> open_gguf(Gguf file) { return std::make_unique<GgufCheckpoint>(std::move(file)); }

extern const Format kGguf;
const Format kGguf{"gguf", is_gguf, open_gguf, nullptr};

}  // namespace awq
