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
#include "model/arch/gguf.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

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
        family_(*find_gguf_family(file_.text("general.architecture"))),
        stored_(gguf_tensors(family_, spec_, gguf_layout(file_))) {
    check_tensors();
  }
  std::string_view format() const override { return "gguf"; }
  const nlohmann::json& config() const override { return config_; }
  const ModelSpec& spec() const override { return spec_; }
  std::string described_in() const override { return file_.path().string(); }

  Weight weight(int block, Param p) const override {
    const Shape shape = shape_of(spec_, block, p);
    if (!is_norm(p.role))
      return is_whole(block, p) ? ordered(file_.tensor(stored_.holding(block, p).weight()).reshaped(shape), block, p)
                                : floats(block, p, 0, shape[0]);
    const float offset = gguf_gain_offset(spec_, block, p);
    const Tensor gain = vector(stored_.holding(block, p).weight()).reshaped(shape);
    return offset != 0 ? without_offset(gain, offset) : gain;
  }
  Pieces pieces(int block, Param p) const override {
    const GgufTensor tensor = flat(block, p);
    const Shape shape = shape_of(spec_, block, p);
    if (!tensor.type->codes.group || stored_.holding(block, p).transposed) return float_pieces(block, p);
    return in_bands(shape, spec_of(*tensor.type), shape[1], row_step(block, p), [=, this](int64_t begin, int64_t end) {
      return ordered(quantized(tensor, stored_.rows(block, p), begin, end), block, p);
    });
  }
  /// What a GGUF holds counts as an original: many models are published in nothing else.
  Pieces float_pieces(int block, Param p) const override {
    const Shape shape = shape_of(spec_, block, p);
    const DType dtype = file_.rows(flat(block, p), 0, 0).dtype();
    return in_bands(shape, dtype, shape[1] * int64_t(size_of(dtype)), row_step(block, p),
                    [=, this](int64_t begin, int64_t end) { return floats(block, p, begin, end); });
  }
  Tensor bias(int block, Param p) const override {
    const StoredTensor& t = stored_.holding(block, p);
    GgufTensor all = file_.at(t.bias_tensor());
    all.shape = {all.shape.elements()};
    const Tensor own = gather(stored_.rows(block, p), 0, shape_of(spec_, block, p)[0],
                              [&](int64_t begin, int64_t end) { return file_.rows(all, begin, end); });
    return ordered(own.to(DType::f32), block, p);
  }
  std::vector<TensorInfo> tensors() const override {
    std::map<std::string, TensorUse> uses;
    for (const StoredTensor& t : stored_.all()) uses[t.weight()] = use_of(*this, t.parts.front().block, t.first());
    std::vector<TensorInfo> list;
    for (const GgufTensor& t : file_.tensors()) {
      TensorInfo& info =
          list.emplace_back(TensorInfo{std::string(t.name), std::string(t.type->name), t.shape, t.data.size()});
      if (const auto it = uses.find(info.name); it != uses.end())
        info.use = it->second;
      else if (is_configuration(info.name))
        info.use = TensorUse::dropped, info.reason = "read as rope scaling of the configuration";
      else if (const UnusedTensors* unused = unused_tensors(info.name))
        info.use = TensorUse::dropped, info.reason = unused->reason;
    }
    return list;
  }
  std::vector<std::filesystem::path> weight_files() const override { return {file_.path()}; }
  std::vector<SideFile> side_files() const override {
    std::call_once(side_files_made_, [this] { side_files_ = gguf_side_files(file_); });
    return side_files_;
  }

 private:
  /// Whether a tensor is this parameter and no other, as it is.
  bool is_whole(int block, Param p) const {
    const StoredTensor& t = stored_.holding(block, p);
    return t.parts.size() == 1 && !t.transposed;
  }
  /// The tensor that holds it, as a matrix.
  GgufTensor flat(int block, Param p) const {
    GgufTensor t = file_.at(stored_.holding(block, p).weight());
    const int64_t cols = t.shape[-1];
    t.shape = {t.shape.elements() / cols, cols};
    return t;
  }
  Tensor floats(int block, Param p, int64_t begin, int64_t end) const {
    const GgufTensor t = flat(block, p);
    if (stored_.holding(block, p).transposed) return turned(t, shape_of(spec_, block, p)[1], begin, end);
    return ordered(
        gather(stored_.rows(block, p), begin, end, [&](int64_t from, int64_t to) { return file_.rows(t, from, to); }),
        block, p);
  }
  /// Rows of a matrix of whose heads each lies as [cols, rows of a head].
  Tensor turned(const GgufTensor& t, int64_t cols, int64_t begin, int64_t end) const {
    const int64_t of_head = t.shape[1];
    return gather({0, of_head, of_head}, begin, end, [&](int64_t from, int64_t to) {
      const int64_t head = from / of_head, first = from % of_head;
      return gather_transposed({0, of_head, of_head}, first, first + to - from,
                               file_.rows(t, head * cols, (head + 1) * cols));
    });
  }
  /// A fault maps up to 2 MB around it: what is small and converted at once must not keep them.
  Tensor vector(const std::string& name) const {
    const GgufTensor& t = file_.at(name);
    return file_.rows(t, 0, t.shape[0]);
  }
  bool reordered(Param p) const { return has_pairs(family_, p.role); }
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
  QMatrix quantized(const GgufTensor& t, const RowPattern& rows, int64_t begin, int64_t end) const;
  bool is_configuration(std::string_view name) const;
  const UnusedTensors* unused_tensors(std::string_view name) const;
  std::map<std::string, Shape> expected_tensors() const;
  void check_tensors() const;

  Gguf file_;
  nlohmann::json config_;
  ModelSpec spec_;
  const GgufFamily& family_;
  StoredTensors stored_;
  mutable std::once_flag side_files_made_;
  mutable std::vector<SideFile> side_files_;
};

/// Parts of a tensor lie between each other: all rows from the first to the last are read.
QMatrix GgufCheckpoint::quantized(const GgufTensor& t, const RowPattern& rows, int64_t begin, int64_t end) const {
  const int64_t from = rows.stored(begin), to = rows.stored(end - 1) + 1;
  QMatrix q = QMatrix::empty({to - from, t.shape[1]}, spec_of(*t.type));
  const Tensor blocks = file_.blocks(t, from, to);
  t.type->codes.split(blocks.data(), int64_t(blocks.bytes()) / t.type->bytes, q.codes.as<uint8_t>().data(),
                      q.scales.as<float>().data(), q.offsets ? q.offsets.as<float>().data() : nullptr);
  if (q.zeros) std::ranges::fill(q.zeros.as<uint8_t>(), uint8_t(t.type->codes.zero));
  if (const auto bad = first_bad_grid(q))
    fail("gguf", "{}: {}: the scale of row {}, group {} is not finite; the file is damaged", file_.path().string(),
         t.name, from + *bad / q.groups(), *bad % q.groups());
  return gather(rows, begin, end, q, from);
}

/// Whether config() has what it says; it was checked there.
bool GgufCheckpoint::is_configuration(std::string_view name) const {
  return std::ranges::count(family_.tensors, name) != 0;
}

const UnusedTensors* GgufCheckpoint::unused_tensors(std::string_view name) const {
  constexpr std::string_view kBlocks = "model.layers.";
  const auto it = std::ranges::find_if(spec_.unused, [&](const UnusedTensors& u) {
    return u.begin.starts_with(kBlocks) && name.starts_with("blk." + u.begin.substr(kBlocks.size()));
  });
  return it == spec_.unused.end() ? nullptr : &*it;
}

std::map<std::string, Shape> GgufCheckpoint::expected_tensors() const {
  std::map<std::string, Shape> expected;
  for (const StoredTensor& t : stored_.all()) {
    expected[t.weight()] = gguf_shape(t);
    if (t.bias) expected[t.bias_tensor()] = gguf_bias_shape(t);
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
    if (!expected.contains(std::string(t.name)) && !is_configuration(t.name) && !unused_tensors(t.name))
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
