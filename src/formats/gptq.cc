// A Hugging Face folder in GPTQ's layout: codes of each row down the words of its column, zero points across, and
// g_idx, which says to which group a column belongs.
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

/// A word of ones of so many bits each.
uint32_t ones_of(int bits) { return bits == 2 ? 0x55555555u : bits == 4 ? 0x11111111u : 0x01010101u; }

void add_to_words(Tensor& words, uint32_t value) {
  for (int32_t& w : words.as<int32_t>()) w = int32_t(uint32_t(w) + value);
}

class Gptq final : public PackedFolder {
 public:
  explicit Gptq(const fs::path& folder) : PackedFolder(folder, read_config(folder)) {
    read_options(config().at("quantization_config"));
    check_tensors();
  }
  std::string_view format() const override { return "gptq"; }

 private:
  void read_options(const Json& q);
  std::optional<QuantSpec> quant_of(Param, const std::string& base, const Shape& shape) const override;
  void require(TensorCheck& check, const PackedPlace& at) const override;
  bool by_columns() const override { return true; }
  QMatrix read(const PackedPlace& at, int64_t begin, int64_t end) const override;
  Tensor order(const PackedPlace& at) const override {
    const std::string g_idx = at.base + ".g_idx";
    return files().find(g_idx) ? order_of(at, g_idx) : Tensor();
  }
  Tensor codes(const PackedPlace& at, int64_t begin, int64_t end) const;
  Tensor zeros(const PackedPlace& at, int64_t first, int64_t last) const;

  int bits_ = 4, group_size_ = 0;
  bool symmetric_ = false;
  bool minus_one_ = true;  // version 1 stores every zero point less 1
};

void Gptq::read_options(const Json& q) {
  const Json bits = q.value("bits", Json()), group = q.value("group_size", Json());
  // Absent keys mean what they mean to GPTQModel.
  const Json version = q.value("checkpoint_format", q.value("format", Json("gptq")));
  if (bits != 2 && bits != 4 && bits != 8) bad_config("bits", "2, 4 or 8", bits);
  if (!group.is_number_integer() || (group != -1 && (group < 1 || group > INT32_MAX)))
    bad_config("group_size", "a positive number or -1", group);
  if (version != "gptq" && version != "gptq_v2")
    bad_config("checkpoint_format", "\"gptq\" or \"gptq_v2\" (what this version reads)", version);
  for (const char* key : {"dynamic", "adapter"})
    if (const Json v = q.value(key, Json()); !v.is_null() && !v.empty())
      bad_config(key, "absent (this version reads one kind of layer a file)", v);
  bits_ = bits.get<int>();
  group_size_ = group.get<int>();
  symmetric_ = q.value("sym", Json(false)) == true;
  minus_one_ = version == "gptq";
}

std::optional<QuantSpec> Gptq::quant_of(Param, const std::string& base, const Shape& shape) const {
  if (!files().find(base + ".qweight")) return std::nullopt;
  return QuantSpec{.bits = bits_,
                   .group_size = int(group_size_ == -1 ? shape[1] : group_size_),
                   .scale_dtype = type_of(base + ".scales"),
                   .symmetric = symmetric_};
}

void Gptq::require(TensorCheck& check, const PackedPlace& at) const {
  const int64_t fields = 32 / bits_, rows = at.shape[0], cols = at.shape[1], groups = cols / at.spec.group_size;
  require_multiple(at, "rows", rows, fields);
  require_multiple(at, "columns", cols, fields);
  require_multiple(at, "columns in a group", at.spec.group_size, fields);
  check.require(at.base + ".qweight", {cols / fields, rows}, {DType::i32});
  check.require(at.base + ".scales", {groups, rows});
  check.require(at.base + ".qzeros", {groups, rows / fields}, {DType::i32});
  if (files().find(at.base + ".g_idx")) check.require(at.base + ".g_idx", {cols}, {DType::i32});
}

QMatrix Gptq::read(const PackedPlace& at, int64_t begin, int64_t end) const {
  const int64_t first = begin / at.spec.group_size, last = (end - 1) / at.spec.group_size + 1;
  QMatrix q{at.spec, codes(at, begin, end), transposed(scales(at.base + ".scales", first, last)),
            zeros(at, first, last)};
  q.spec.group_size = int((end - begin) / (last - first));
  return q;
}

Tensor Gptq::codes(const PackedPlace& at, int64_t begin, int64_t end) const {
  const int64_t fields = 32 / bits_;
  const std::string tensor = at.base + ".qweight";
  const Tensor by = order(at);
  if (!by) return unpack_rows(transposed(files().rows(tensor, begin / fields, end / fields)), bits_);
  const Tensor all = unpack_rows(transposed(files().tensor(tensor)), bits_);
  return columns_in_order(all, by.rows(begin, end));
}

/// Version 1 took 1 from whole words; a zero point of 0 has borrowed from its neighbour and is whole again when 1 is
/// added to the word.
Tensor Gptq::zeros(const PackedPlace& at, int64_t first, int64_t last) const {
  Tensor words = files().rows(at.base + ".qzeros", first, last);
  if (minus_one_) add_to_words(words, ones_of(bits_));
  return transposed(unpack_rows(words, bits_));
}

/// g_idx of a matrix, and its codes in the order of the matrix.
Tensor group_of_columns(const QMatrix& q, Tensor& codes) {
  Tensor g_idx = Tensor::empty({q.cols()}, DType::i32), place = Tensor::empty({q.cols()}, DType::i32);
  for (int64_t i = 0; i < q.cols(); ++i) {
    const int64_t column = q.order ? q.order.as<int32_t>()[size_t(i)] : i;
    g_idx.as<int32_t>()[size_t(column)] = int32_t(i / q.spec.group_size);
    place.as<int32_t>()[size_t(column)] = int32_t(i);
  }
  codes = q.order ? columns_in_order(q.codes, place) : q.codes;
  return g_idx;
}

template <int version>
class GptqSink final : public PackedSink {
 public:
  using PackedSink::PackedSink;

 private:
  std::vector<Part> pack(const QMatrix& q) const override {
    const int64_t fields = 32 / q.spec.bits;
    if (q.rows() % fields || q.cols() % fields)
      fail("write", "{} rows and {} columns; GPTQ packs {} together", q.rows(), q.cols(), fields);
    Tensor zeros = pack_rows_to(transposed(q.zeros), q.spec.bits, DType::i32), codes;
    const Tensor g_idx = group_of_columns(q, codes);
    if (version == 1) add_to_words(zeros, ~ones_of(q.spec.bits) + 1);
    return {{"qweight", transposed(pack_rows_to(codes, q.spec.bits, DType::i32))},
            {"qzeros", zeros},
            {"scales", transposed(q.scales).to(q.spec.scale_dtype)},
            {"g_idx", g_idx}};
  }
  void describe(Json& config) const override {
    config.erase("quantization");
    config["quantization_config"] = {
        {"quant_method", "gptq"}, {"bits", quant().bits},     {"group_size", quant().group_size},
        {"desc_act", false},      {"sym", quant().symmetric}, {"checkpoint_format", version == 1 ? "gptq" : "gptq_v2"},
        {"lm_head", false}};
    if (!in_floats().empty()) config["quantization_config"]["modules_to_not_convert"] = in_floats();
  }
};

template <int version>
std::unique_ptr<CheckpointSink> new_gptq(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                         const QuantSpec& quant) {
  return std::make_unique<GptqSink<version>>(place, config, spec, quant);
}

bool never(const fs::path&) { return false; }

bool is_gptq(const fs::path& path) { return quant_method(path) == "gptq"; }

std::unique_ptr<Checkpoint> open_gptq(const fs::path& path) { return std::make_unique<Gptq>(path); }

}  // namespace

const Capacity kGptqHolds{.bits = {2, 4, 8}, .order = true, .rows = 8};
const Capacity kGptq1Holds{.bits = {2, 4, 8}, .zero_zero = false, .order = true};
extern const Format kGptq, kGptq1;
const Format kGptq{"gptq", is_gptq, open_gptq, new_gptq<2>, &kGptqHolds};
const Format kGptq1{"gptq-v1", never, open_gptq, new_gptq<1>, &kGptq1Holds};  // kGptq reads both

}  // namespace awq
