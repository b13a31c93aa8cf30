// A Hugging Face folder in GPTQ's layout: codes of each row down the words of its column, zero points across, and
// g_idx, which says to which group a column belongs.
#include <array>

#include "base/check.h"
#include "formats/bit_fields.h"
#include "formats/packed_folder.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

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
  minus_one_ = version == "gptq";
}

std::optional<QuantSpec> Gptq::quant_of(Param, const std::string& base, const Shape& shape) const {
  if (!files().find(base + ".qweight")) return std::nullopt;
  return QuantSpec{.bits = bits_,
                   .group_size = int(group_size_ == -1 ? shape[1] : group_size_),
                   .scale_dtype = type_of(base + ".scales")};
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
  const uint32_t ones = bits_ == 2 ? 0x55555555u : bits_ == 4 ? 0x11111111u : 0x01010101u;
  if (minus_one_)
    for (int32_t& w : words.as<int32_t>()) w = int32_t(uint32_t(w) + ones);
  return transposed(unpack_rows(words, bits_));
}

bool is_gptq(const fs::path& path) { return quant_method(path) == "gptq"; }

std::unique_ptr<Checkpoint> open_gptq(const fs::path& path) { return std::make_unique<Gptq>(path); }

}  // namespace

extern const Format kGptq;
const Format kGptq{"gptq", is_gptq, open_gptq, nullptr};

}  // namespace awq
