// GGUF files as they are written: "OUT/model.gguf", with the tokenizer in the file's metadata.
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.h"
#include "formats/folder.h"
#include "formats/gguf.h"
#include "formats/gguf_layout.h"
#include "formats/gguf_metadata.h"
#include "formats/gguf_round.h"
#include "formats/gguf_vocabulary.h"
#include "formats/packed_sink.h"
#include "formats/params.h"
#include "model/arch/gguf.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kBlockColumns = 32;  // columns of the types that are written
constexpr const char* kFile = "model.gguf";
// What the metadata has of them.
constexpr std::array kTexts = {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                               "chat_template.jinja"};

const GgmlType& ggml_type_of(const QMatrix& q) {
  return ggml_type(q.spec.bits == 8 ? "Q8_0" : q.spec.offsets ? "Q4_1" : "Q4_0");
}

const GgmlType& ggml_type_of(const Tensor& t) {
  return ggml_type(t.dtype() == DType::f32 ? "F32" : t.dtype() == DType::f16 ? "F16" : "BF16");
}

/// Every tensor of the file.
std::vector<GgufPlace> gguf_places(const ModelSpec& spec, const StoredTensors& stored) {
  std::vector<GgufPlace> all;
  for (const StoredTensor& t : stored.all()) {
    all.push_back({t.weight(), gguf_shape(t)});
    if (t.bias) all.push_back({t.bias_tensor(), gguf_bias_shape(t)});
  }
  for (const auto& [name, t] : gguf_rope_tensors(spec)) all.push_back({name, t.shape()});
  return all;
}

const GgufFamily& family_of(const ModelSpec& spec) {
  return *find_gguf_family(find_architecture(spec.arch).gguf_name);  // gguf_metadata was there before
}

class GgufSink final : public CheckpointSink {
 public:
  GgufSink(const OutputPlace& place, Json config, const ModelSpec& spec, uint32_t file_type)
      : config_(std::move(config)),
        spec_(spec),
        metadata_(gguf_metadata(spec, config_, file_type)),
        family_(family_of(spec)),
        stored_(gguf_tensors(family_, spec, gguf_layout(family_))),
        dir_(place) {}

  void put_side_file(const SideFile& file) override {
    if (std::ranges::find(kTexts, file.name) != kTexts.end())
      texts_[file.name] = file.path.empty() ? file.bytes : read_text(file.path);
    else
      file.path.empty() ? dir_.write(file.name, file.bytes) : dir_.copy(file.name, file.path);
  }
  void begin() override { add_gguf_tokenizer(metadata_, texts_, config_, spec_); }
  void put(int block, Param p, const Weight& w) override;
  void put_bias(int block, Param p, const Tensor& b) override {
    const StoredTensor& t = stored_.holding(block, p);
    put_part(t, t.bias_tensor(), gguf_bias_shape(t), encoded(ordered(b.to(DType::f32), block, p)), block, p);
  }
  void finish() override {
    require_whole();
    file().close();
    dir_.commit();
  }
  Json state() const override {
    require_whole();
    return writer_ ? writer_->state() : Json();
  }
  void resume(const Json& state) override {
    if (!state.is_null()) writer_.emplace(dir_.path(kFile), metadata_, gguf_places(spec_, stored_), state);
  }
  void sync() override {
    if (writer_) writer_->sync();
  }

 private:
  /// Rows as the file has them.
  struct Encoded {
    const GgmlType* type = nullptr;
    std::vector<std::byte> bytes{};
  };
  /// A tensor of which some parts are there.
  struct Begun {
    Encoded all;
    size_t parts = 0;
  };
  GgufWriter& file();
  static Encoded encoded(const Tensor& t) { return {&ggml_type_of(t), {t.data(), t.data() + t.bytes()}}; }
  Encoded encoded(const QMatrix& q, int block, Param p) const;
  void put_part(const StoredTensor& t, const std::string& name, const Shape& shape, Encoded e, int block, Param p);
  void require_whole() const {
    if (!begun_.empty()) fail("write", "{} waits for the rest of its parts", begun_.begin()->first);
  }
  Tensor ordered(const Tensor& t, int block, Param p) const {
    return t && has_pairs(family_, p.role) ? pairs_from_halves(t, spec_.blocks.at(size_t(block)).attention.head_dim)
                                           : t;
  }

  Json config_;
  ModelSpec spec_;
  GgufMetadata metadata_;
  const GgufFamily& family_;
  StoredTensors stored_;
  std::map<std::string, std::string> texts_;
  AtomicDir dir_;
  std::optional<GgufWriter> writer_;
  std::map<std::string, Begun> begun_;
};

GgufWriter& GgufSink::file() {
  if (!writer_) {
    writer_.emplace(dir_.path(kFile), metadata_, gguf_places(spec_, stored_));
    for (const auto& [name, t] : gguf_rope_tensors(spec_))
      writer_->put(name, ggml_type_of(t), t.shape(), {t.data(), t.bytes()});
  }
  return *writer_;
}

void GgufSink::put(int block, Param p, const Weight& w) {
  const StoredTensor& t = stored_.holding(block, p);
  const auto put_encoded = [&](Encoded e) { put_part(t, t.weight(), gguf_shape(t), std::move(e), block, p); };
  if (const auto* q = std::get_if<QMatrix>(&w)) return put_encoded(encoded(*q, block, p));
  // What chooses experts is in F32 in the package's files.
  const auto& stored = std::get<Tensor>(w);
  if (!is_norm(p.role))
    return put_encoded(encoded(ordered(stays_float(p.role) ? stored.to(DType::f32) : stored, block, p)));
  Tensor gain = stored.to(DType::f32).clone();  // the whole of it: programs multiply with what is there
  for (float& v : gain.as<float>()) v += gguf_gain_offset(spec_, block, p);
  put_encoded(encoded(gain));
}

/// A tensor of several parts is written when the last has come.
void GgufSink::put_part(const StoredTensor& t, const std::string& name, const Shape& shape, Encoded e, int block,
                        Param p) {
  if (t.parts.size() == 1) return file().put(name, *e.type, shape, e.bytes);
  const int64_t rows = shape_of(spec_, block, p)[0];
  const size_t row = e.bytes.size() / size_t(rows);
  Begun& b = begun_[name];
  if (!b.parts) b.all = {e.type, std::vector<std::byte>(size_t(t.rows) * row)};
  if (b.all.type != e.type)
    fail("write", "{}: its parts are {} and {}, but one tensor has one type", name, b.all.type->name, e.type->name);
  for_runs(stored_.rows(block, p), 0, rows, [&](int64_t stored, int64_t first, int64_t n) {
    std::copy_n(e.bytes.data() + size_t(first) * row, size_t(n) * row, b.all.bytes.data() + size_t(stored) * row);
  });
  if (++b.parts < t.parts.size()) return;
  file().put(name, *b.all.type, shape, b.all.bytes);
  begun_.erase(name);
}

GgufSink::Encoded GgufSink::encoded(const QMatrix& q, int block, Param p) const {
  const GgmlType& type = ggml_type_of(q);
  const int middle = 1 << (q.spec.bits - 1);
  const bool other_zero =
      q.zeros && !std::ranges::all_of(q.zeros.as<uint8_t>(), [=](uint8_t z) { return z == middle; });
  if (q.spec.group_size != kBlockColumns || (q.spec.bits != 4 && q.spec.bits != 8) || other_zero || q.order)
    fail("write", "{}: {} bits in groups of {} are none of the blocks that this version writes",
         stored_.holding(block, p).name, q.spec.bits, q.spec.group_size);
  const Tensor codes = ordered(q.codes, block, p), scales = ordered(q.scales, block, p),
               offsets = ordered(q.offsets, block, p);
  std::vector<std::byte> bytes(size_t(scales.shape().elements() * type.bytes));
  type.codes.join(codes.as<uint8_t>().data(), scales.as<float>().data(), offsets ? offsets.as<float>().data() : nullptr,
                  scales.shape().elements(), bytes.data());
  return {&type, std::move(bytes)};
}

/// In 16 bits; values beyond the type's range are an error, for they would be infinite.
template <DType type>
Weight in_half(const Tensor& t, bool, const std::string& name) {
  const Tensor half = t.to(type), back = half.to(DType::f32);
  if (!std::ranges::all_of(back.as<float>(), [](float v) { return std::isfinite(v); }))
    fail("convert", "{}: a weight is beyond the range of {}", name, name_of(type));
  return half;
}

enum Blocks { kQ4_0, kQ4_1, kQ8_0 };
constexpr const char* kTypeNames[] = {"Q4_0", "Q4_1", "Q8_0"};

/// Embedding and head in 8 bits, for every token goes through them; in F16 what has no whole blocks.
template <Blocks type>
Weight in_blocks(const Tensor& t, bool outer, const std::string& name) {
  if (t.shape()[1] % kBlockColumns) return in_half<DType::f16>(t, outer, name);
  return ggml_rounded(t, kTypeNames[outer ? kQ8_0 : type], name);
}

// Of general.file_type, as ggml numbers them.
enum FileType : uint32_t { kMostlyF16 = 1, kMostlyQ4_0 = 2, kMostlyQ4_1 = 3, kMostlyQ8_0 = 7, kMostlyBf16 = 32 };

template <FileType type>
std::unique_ptr<CheckpointSink> new_gguf(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                         const QuantSpec&) {
  return std::make_unique<GgufSink>(place, config, spec, type);
}

bool no_path(const fs::path&) { return false; }
std::unique_ptr<Checkpoint> open_file(const fs::path& path) { return open_gguf(Gguf(path)); }  // kGguf reads all

}  // namespace

const Capacity kQ4_0Holds{.bits = {4}, .symmetric = true, .part = kBlockColumns, .outer = true};
const Capacity kQ4_1Holds{.bits = {4}, .offsets = true, .part = kBlockColumns, .outer = true};
const Capacity kQ8_0Holds{.bits = {8}, .symmetric = true, .part = kBlockColumns, .widens = true, .outer = true};
extern const Format kGgufF16, kGgufBf16, kGgufQ4_0, kGgufQ4_1, kGgufQ8_0;
const Format kGgufF16{"gguf-f16", no_path, open_file, new_gguf<kMostlyF16>, nullptr, in_half<DType::f16>};
const Format kGgufBf16{"gguf-bf16", no_path, open_file, new_gguf<kMostlyBf16>, nullptr, in_half<DType::bf16>};
const Format kGgufQ4_0{"gguf-q4_0", no_path, open_file, new_gguf<kMostlyQ4_0>, &kQ4_0Holds, in_blocks<kQ4_0>};
const Format kGgufQ4_1{"gguf-q4_1", no_path, open_file, new_gguf<kMostlyQ4_1>, &kQ4_1Holds, in_blocks<kQ4_1>};
const Format kGgufQ8_0{"gguf-q8_0", no_path, open_file, new_gguf<kMostlyQ8_0>, &kQ8_0Holds, in_blocks<kQ8_0>};

}  // namespace awq
