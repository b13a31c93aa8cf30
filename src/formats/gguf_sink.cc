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
std::vector<GgufPlace> gguf_places(const ModelSpec& spec) {
  std::vector<GgufPlace> all;
  for (const auto& [block, p] : params_of(spec)) {
    if (is_stacked(spec, block, p) && p.expert > 0) continue;  // is in the first one's
    all.push_back({gguf_name(spec, block, p) + ".weight", gguf_shape(spec, block, p)});
    if (has_bias(spec, block, p)) all.push_back({gguf_name(spec, block, p) + ".bias", {shape_of(spec, block, p)[0]}});
  }
  if (const Tensor t = gguf_rope_divisors(spec)) all.push_back({"rope_freqs.weight", t.shape()});
  return all;
}

class GgufSink final : public CheckpointSink {
 public:
  GgufSink(const OutputPlace& place, Json config, const ModelSpec& spec, uint32_t file_type)
      : config_(std::move(config)),
        spec_(spec),
        arch_(find_architecture(spec.arch).gguf_name),
        metadata_(gguf_metadata(spec, config_, file_type)),
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
    put_floats(gguf_name(spec_, block, p) + ".bias", ordered(b.to(DType::f32), block, p));
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
    if (!state.is_null()) writer_.emplace(dir_.path(kFile), metadata_, gguf_places(spec_), state);
  }
  void sync() override {
    if (writer_) writer_->sync();
  }

 private:
  /// A weight as the file has it, of a matrix or of one of many in a tensor.
  struct Encoded {
    const GgmlType* type = nullptr;
    std::vector<std::byte> bytes{};
  };
  GgufWriter& file();
  void put_floats(const std::string& name, const Tensor& t) {
    file().put(name, ggml_type_of(t), t.shape(), {t.data(), t.bytes()});
  }
  Encoded encoded(const std::string& name, const QMatrix& q, int block, Param p) const;
  void put_matrix(const std::string& name, const Weight& w, int block, Param p);
  void put_stacked(const std::string& name, Encoded e, const Shape& shape, int expert);
  void require_whole() const {
    if (!waiting_.empty()) fail("write", "{} waits for the rest of its experts", waiting_.begin()->first);
  }
  Tensor ordered(const Tensor& t, int block, Param p) const {
    return t && has_pairs(arch_, p.role) ? pairs_from_halves(t, spec_.blocks.at(size_t(block)).attention.head_dim) : t;
  }

  Json config_;
  ModelSpec spec_;
  std::string_view arch_;
  GgufMetadata metadata_;
  std::map<std::string, std::string> texts_;
  AtomicDir dir_;
  std::optional<GgufWriter> writer_;
  std::map<std::string, std::map<int, Encoded>> waiting_;  // tensors of experts, of which some are there
};

GgufWriter& GgufSink::file() {
  if (!writer_) {
    writer_.emplace(dir_.path(kFile), metadata_, gguf_places(spec_));
    if (const Tensor t = gguf_rope_divisors(spec_)) put_floats("rope_freqs.weight", t);
  }
  return *writer_;
}

void GgufSink::put_matrix(const std::string& name, const Weight& w, int block, Param p) {
  const Shape shape = gguf_shape(spec_, block, p);
  if (const auto* q = std::get_if<QMatrix>(&w)) {
    Encoded e = encoded(name, *q, block, p);
    return is_stacked(spec_, block, p) ? put_stacked(name, std::move(e), shape, p.expert)
                                       : file().put(name, *e.type, shape, e.bytes);
  }
  // What chooses experts is in F32 in the package's files.
  const auto& stored = std::get<Tensor>(w);
  const Tensor t = ordered(stays_float(p.role) ? stored.to(DType::f32) : stored, block, p);
  const std::span<const std::byte> bytes(t.data(), t.bytes());
  if (!is_stacked(spec_, block, p)) return file().put(name, ggml_type_of(t), shape, bytes);
  put_stacked(name, {&ggml_type_of(t), {bytes.begin(), bytes.end()}}, shape, p.expert);
}

void GgufSink::put(int block, Param p, const Weight& w) {
  const std::string name = gguf_name(spec_, block, p) + ".weight";
  if (!is_norm(p.role)) return put_matrix(name, w, block, p);
  const auto& t = std::get<Tensor>(w);
  Tensor gain = t.to(DType::f32).clone();  // the whole of it: programs multiply with what is there
  for (float& v : gain.as<float>()) v += spec_.final_norm.gain_offset;
  put_floats(name, gain);
}

void GgufSink::put_stacked(const std::string& name, Encoded e, const Shape& shape, int expert) {
  std::map<int, Encoded>& parts = waiting_[name];
  if (!parts.empty() && parts.begin()->second.type != e.type)
    fail("write", "{}: its experts are {} and {}, but one tensor has one type", name, parts.begin()->second.type->name,
         e.type->name);
  parts.insert_or_assign(expert, std::move(e));
  if (int64_t(parts.size()) < shape[0]) return;
  Encoded all{parts.begin()->second.type};
  for (auto& [number, part] : parts) {
    all.bytes.insert(all.bytes.end(), part.bytes.begin(), part.bytes.end());
    part.bytes = {};
  }
  file().put(name, *all.type, shape, all.bytes);
  waiting_.erase(name);
}

GgufSink::Encoded GgufSink::encoded(const std::string& name, const QMatrix& q, int block, Param p) const {
  const GgmlType& type = ggml_type_of(q);
  const int middle = 1 << (q.spec.bits - 1);
  const bool other_zero =
      q.zeros && !std::ranges::all_of(q.zeros.as<uint8_t>(), [=](uint8_t z) { return z == middle; });
  if (q.spec.group_size != kBlockColumns || (q.spec.bits != 4 && q.spec.bits != 8) || other_zero || q.order)
    fail("write", "{}: {} bits in groups of {} are none of the blocks that this version writes", name, q.spec.bits,
         q.spec.group_size);
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
