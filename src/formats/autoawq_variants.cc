// AutoAWQ's layouts other than "GEMM": GEMV (rows of natural nibbles), GEMV fast (four rows interleaved, zero * scale
// stored as a product; llm-awq's second version calls that tensor "scaled_zeros") and Marlin (tiles of 16, symmetric).
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

enum class AwqVersion { gemv, gemv_fast, marlin, llm_awq };
constexpr std::array kVersions = {"gemv", "gemv_fast", "marlin", "llm-awq"};  // as config.json spells them
constexpr bool is_fast(AwqVersion v) { return v == AwqVersion::gemv_fast || v == AwqVersion::llm_awq; }
constexpr const char* zeros_of(AwqVersion v) { return v == AwqVersion::llm_awq ? "scaled_zeros" : "qzeros"; }
constexpr const char* name_of(AwqVersion v) { return kVersions[size_t(v)]; }

/// How many groups GEMV kernels expect room for: whole words of eight zero points, and as many words as a thread block
/// loads at once, of groups below 128.
int64_t padded_groups(int64_t groups, int group_size) {
  const int64_t words = (groups + 7) / 8, unit = group_size >= 128 ? 1 : group_size == 64 ? 2 : 4;
  return (words + unit - 1) / unit * unit * 8;
}

/// Columns [0, n) of f32, f16, bf16 or u8 [rows, cols]; those beyond cols are 0.
Tensor with_columns(const Tensor& t, int64_t n) {
  Tensor out = Tensor::zeros({t.shape()[0], n}, t.dtype());
  const auto size = int64_t(size_of(t.dtype())), cols = t.shape()[1];
  for (int64_t r = 0; r < t.shape()[0]; ++r)
    std::copy_n(t.data() + r * cols * size, std::min(n, cols) * size, out.data() + r * n * size);
  return out;
}

/// Columns [begin, end) of a tensor's first `rows` rows, as rows, in f32.
Tensor columns_as_rows(const Tensor& t, int64_t rows, int64_t begin, int64_t end) {
  Tensor part = Tensor::empty({rows, end - begin}, t.dtype());
  const auto size = int64_t(size_of(t.dtype())), cols = t.shape()[1];
  for (int64_t r = 0; r < rows; ++r)
    std::copy_n(t.data() + (r * cols + begin) * size, (end - begin) * size, part.data() + r * (end - begin) * size);
  return transposed(part).to(DType::f32);
}

// GEMV fast: an i16 holds four codes of one row, eight columns apart; its place among those of four rows and 64
// columns follows.
struct FastPlace {
  int64_t column;
  int shift;
};
FastPlace fast_place(int64_t row, int64_t col) {
  const int64_t c = col % 32;
  return {col / 64 * 64 + row % 4 * 16 + col % 64 / 32 * 8 + c / 2 % 4 * 2 + c % 2, int(4 * (c / 8))};
}

Tensor pack_fast(const Tensor& codes) {
  const int64_t rows = codes.shape()[0], cols = codes.shape()[1];
  Tensor out = Tensor::zeros({rows / 4, cols}, DType::i16);
  const uint8_t* from = codes.as<uint8_t>().data();
  int16_t* to = out.as<int16_t>().data();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const FastPlace at = fast_place(r, c);
      int16_t& word = to[r / 4 * cols + at.column];
      word = int16_t(uint16_t(word) | from[r * cols + c] << at.shift);
    }
  return out;
}

Tensor unpack_fast(const Tensor& words) {
  const int64_t rows = words.shape()[0] * 4, cols = words.shape()[1];
  Tensor out = Tensor::empty({rows, cols}, DType::u8);
  const int16_t* from = words.as<int16_t>().data();
  uint8_t* to = out.as<uint8_t>().data();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const FastPlace at = fast_place(r, c);
      to[r * cols + c] = uint16_t(from[r / 4 * cols + at.column]) >> at.shift & 15;
    }
  return out;
}

// Marlin: of 16 columns of the matrix and 64 rows, 1024 codes in the order in which the lanes of a warp hold them for
// a tensor core. Code x of a run is number kMarlin[x] of tiles of 16 x 16, column by column.
constexpr int kMarlinRun = 1024, kMarlinTile = 16;
constexpr std::array<int, kMarlinRun> kMarlin = [] {
  constexpr int order[] = {0, 2, 4, 6, 1, 3, 5, 7};
  std::array<int, kMarlinRun> perm{};
  for (int lane = 0; lane < 32; ++lane)
    for (int tile = 0; tile < 4; ++tile)
      for (int i = 0; i < 8; ++i) {
        const int block = order[i] / 4, row = order[i] % 4, k = 2 * (lane % 4 + row / 2 * 4) + row % 2;
        perm[size_t((lane * 4 + tile) * 8 + i)] = 16 * k + lane / 4 + 8 * block + 256 * tile;
      }
  return perm;
}();

/// f(code x of the words of 16 columns, row of the matrix, which of the 16 columns)
template <class F>
void for_marlin(int64_t rows, F f) {
  for (int64_t x = 0; x < rows * kMarlinTile; ++x) {
    const int64_t at = x / kMarlinRun * kMarlinRun + kMarlin[size_t(x % kMarlinRun)];
    f(x, at / 256 * kMarlinTile + at % kMarlinTile, at % 256 / kMarlinTile);
  }
}

Tensor pack_marlin(const Tensor& codes) {
  const int64_t rows = codes.shape()[0], cols = codes.shape()[1];
  Tensor out = Tensor::empty({cols / kMarlinTile, rows * kMarlinTile}, DType::u8);
  for (int64_t t = 0; t < cols / kMarlinTile; ++t) {
    uint8_t* to = out.as<uint8_t>().data() + t * rows * kMarlinTile;
    const uint8_t* from = codes.as<uint8_t>().data() + t * kMarlinTile;
    for_marlin(rows, [=](int64_t x, int64_t n, int64_t k) { to[x] = from[n * cols + k]; });
  }
  return pack_rows_to(out, 4, DType::i32);
}

Tensor unpack_marlin(const Tensor& words) {
  const Tensor packed = unpack_rows(words, 4);
  const int64_t tiles = words.shape()[0], rows = words.shape()[1] / 2, cols = tiles * kMarlinTile;
  Tensor out = Tensor::empty({rows, cols}, DType::u8);
  for (int64_t t = 0; t < tiles; ++t) {
    const uint8_t* from = packed.as<uint8_t>().data() + t * rows * kMarlinTile;
    uint8_t* to = out.as<uint8_t>().data() + t * kMarlinTile;
    for_marlin(rows, [=](int64_t x, int64_t n, int64_t k) { to[n * cols + k] = from[x]; });
  }
  return out;
}

/// Where Marlin has the scale of row n: within 64 rows, or within 32 where a row is one group.
int64_t marlin_scale(int64_t n, bool whole_rows) {
  constexpr std::array of_rows = {0, 1, 8, 9, 16, 17, 24, 25};
  if (!whole_rows) return n / 64 * 64 + n % 8 * 8 + n % 64 / 8;
  const int64_t x = n % 32;  // of the row that is at x: 2 * (x / 8) + of_rows[x % 8]
  for (int64_t at = 0; at < 32; ++at)
    if (2 * (at / 8) + of_rows[size_t(at % 8)] == x) return n / 32 * 32 + at;
  return n;
}

/// f32 [rows, groups] from and to the order of the file [groups, rows].
Tensor marlin_scales(const Tensor& stored, bool whole_rows) {
  const Tensor t = stored.to(DType::f32);
  Tensor out = Tensor::empty({t.shape()[1], t.shape()[0]}, DType::f32);
  for (int64_t n = 0; n < out.shape()[0]; ++n)
    for (int64_t g = 0; g < out.shape()[1]; ++g)
      out.as<float>()[size_t(n * out.shape()[1] + g)] =
          t.as<float>()[size_t(g * out.shape()[0] + marlin_scale(n, whole_rows))];
  return out;
}

Tensor to_marlin_scales(const QMatrix& q) {
  Tensor out = Tensor::empty({q.groups(), q.rows()}, DType::f32);
  for (int64_t n = 0; n < q.rows(); ++n)
    for (int64_t g = 0; g < q.groups(); ++g)
      out.as<float>()[size_t(g * q.rows() + marlin_scale(n, q.groups() == 1))] =
          q.scales.as<float>()[size_t(n * q.groups() + g)];
  return out.to(q.spec.scale_dtype);
}

/// What of a matrix the layout needs whole.
void check_awq_units(AwqVersion version, const std::string& name, int64_t rows, int64_t cols, int group) {
  const bool marlin = version == AwqVersion::marlin;
  const int64_t row_unit = marlin ? 64 : version == AwqVersion::gemv ? 1 : 8, col_unit = marlin ? 16 : 64;
  if (rows % row_unit || cols % (version == AwqVersion::gemv ? 8 : col_unit))
    fail("format", "{}: {} rows and {} columns; AutoAWQ's \"{}\" has whole units of {} and {}", name, rows, cols,
         name_of(version), row_unit, version == AwqVersion::gemv ? 8 : col_unit);
  if (marlin ? group % 16 != 0 : group < 128 && group != 64 && group != 32)
    fail("format", "{}: groups of {} columns; AutoAWQ's \"{}\" has {}", name, group, name_of(version),
         marlin ? "multiples of 16" : "32, 64, and 128 and more");
}

template <AwqVersion version>
class Variant final : public PackedFolder {
 public:
  explicit Variant(const fs::path& folder) : PackedFolder(folder, read_config(folder)) {
    if (const auto q = config().find("quantization_config"); q != config().end())
      read_settings(*q);
    else
      require_codes();
    check_tensors();
  }
  std::string_view format() const override;

 private:
  void read_settings(const Json& q) {
    const Json bits = q.value("bits", Json()), group = q.value("group_size", Json()),
               zero = q.value("zero_point", Json(version != AwqVersion::marlin));
    if (bits != 4) bad_config("bits", "4", bits);
    if (!group.is_number_integer() || (group != -1 && (group < 1 || group > INT32_MAX)))
      bad_config("group_size", "a positive number or -1", group);
    if (zero != (version != AwqVersion::marlin))
      bad_config("zero_point", version == AwqVersion::marlin ? "false" : "true", zero);
    group_size_ = group.get<int>();
  }
  /// Of llm-awq's own file, beside the float model's config.json.
  void require_codes() const {
    for (const SafetensorsFile& file : files().files())
      for (const auto& [name, entry] : file.entries())
        if (name.ends_with(".qweight")) return;
    fail("open",
         "{}: no matrix of {} is quantized; of .pt files only llm-awq's quantized models are read. Save a float model "
         "as "
         "safetensors",
         folder().string(), files().files().front().name());
  }
  /// llm-awq's own file does not say it, but scales have room for a number of groups that is another for each size.
  int group_size(const std::string& base, int64_t cols) const {
    if (group_size_) return int(group_size_ == -1 ? cols : group_size_);
    const int64_t room = files().find(base + ".scales") ? entry(base + ".scales").shape[0] : 0;
    for (const int g : {128, 64, 32})
      if (cols % g == 0 && padded_groups(cols / g, g) == room) return g;
    fail("open", "{}: {}.scales has {} rows, which groups of 128, 64 and 32 of {} columns do not have",
         folder().string(), base, room, cols);
  }
  std::optional<QuantSpec> quant_of(Param, const std::string& base, const Shape& shape) const override {
    if (!files().find(base + ".qweight")) return std::nullopt;
    return QuantSpec{.bits = 4,
                     .group_size = group_size(base, shape[1]),
                     .scale_dtype = type_of(base + ".scales"),
                     .offsets = is_fast(version),
                     .symmetric = version == AwqVersion::marlin};
  }
  void require(TensorCheck& check, const PackedPlace& at) const override;
  bool by_columns() const override { return version == AwqVersion::marlin; }
  QMatrix read(const PackedPlace& at, int64_t begin, int64_t end) const override;

  int group_size_ = 0;  // -1: rows; 0: scales tell
};

template <AwqVersion version>
void Variant<version>::require(TensorCheck& check, const PackedPlace& at) const {
  const int64_t rows = at.shape[0], cols = at.shape[1], groups = cols / at.spec.group_size,
                padded = padded_groups(groups, at.spec.group_size);
  check_awq_units(version, at.base, rows, cols, at.spec.group_size);
  if constexpr (version == AwqVersion::gemv) {
    check.require(at.base + ".qweight", {rows, cols / 8}, {DType::i32});
    check.require(at.base + ".qzeros", {rows, padded / 8}, {DType::i32});
    check.require(at.base + ".scales", {rows, padded});
  } else if constexpr (is_fast(version)) {
    check.require(at.base + ".qweight", {rows / 4, cols}, {DType::i16});
    check.require(at.base + ".scales", {padded, rows});
    check.require(fmt::format("{}.{}", at.base, zeros_of(version)), {padded, rows}, {at.spec.scale_dtype});
  } else {
    check.require(at.base + ".qweight", {cols / kMarlinTile, rows * 2}, {DType::i32});
    check.require(at.base + ".scales", {groups, rows});
  }
}

template <AwqVersion version>
QMatrix Variant<version>::read(const PackedPlace& at, int64_t begin, int64_t end) const {
  const int64_t group = at.spec.group_size, groups = at.shape[1] / group;
  const std::string codes = at.base + ".qweight", zeros = fmt::format("{}.{}", at.base, zeros_of(version)),
                    scales = at.base + ".scales";
  QMatrix q{at.spec, {}, {}, {}};
  if constexpr (version == AwqVersion::gemv) {
    q.codes = unpack_rows(files().rows(codes, begin, end), 4);
    q.scales = with_columns(files().rows(scales, begin, end), groups).to(DType::f32);
    q.zeros = with_columns(unpack_rows(files().rows(zeros, begin, end), 4), groups);
  } else if constexpr (is_fast(version)) {
    q.codes = unpack_fast(files().rows(codes, begin / 4, (end + 3) / 4)).rows(0, end - begin);
    q.scales = columns_as_rows(files().tensor(scales), groups, begin, end);
    q.offsets = columns_as_rows(files().tensor(zeros), groups, begin, end);
  } else {
    const int64_t first = begin / group, last = (end - 1) / group + 1;
    q.spec.group_size = int((end - begin) / (last - first));
    q.codes = unpack_marlin(files().rows(codes, begin / kMarlinTile, end / kMarlinTile));
    q.scales = marlin_scales(files().rows(scales, first, last), groups == 1);
    q.zeros = middle_zeros(q.scales.shape(), 4);
  }
  return q;
}

template <AwqVersion version>
class VariantSink final : public PackedSink {
 public:
  using PackedSink::PackedSink;

 private:
  std::vector<Part> pack(const QMatrix& q) const override {
    check_awq_units(version, "a matrix", q.rows(), q.cols(), q.spec.group_size);
    const int64_t padded = padded_groups(q.groups(), q.spec.group_size);
    const DType type = q.spec.scale_dtype;
    if constexpr (version == AwqVersion::gemv)
      return {{"qweight", pack_rows_to(q.codes, 4, DType::i32)},
              {"qzeros", pack_rows_to(with_columns(q.zeros, padded), 4, DType::i32)},
              {"scales", with_columns(q.scales.to(type), padded)}};
    else if constexpr (is_fast(version))
      return {{"qweight", pack_fast(q.codes)},
              {zeros_of(version), transposed(with_columns(q.offsets, padded)).to(type)},
              {"scales", transposed(with_columns(q.scales, padded)).to(type)}};
    else
      return {{"qweight", pack_marlin(q.codes)}, {"scales", to_marlin_scales(q)}};
  }
  void describe(Json& config) const override {
    config.erase("quantization");
    config["quantization_config"] = {{"quant_method", "awq"},
                                     {"bits", 4},
                                     {"group_size", quant().group_size},
                                     {"zero_point", version != AwqVersion::marlin},
                                     {"version", name_of(version)},
                                     {"modules_to_not_convert", in_floats().empty() ? Json() : Json(in_floats())}};
  }
};

template <AwqVersion version>
bool is_variant(const fs::path& path) {
  const bool own_file = version == AwqVersion::llm_awq && quant_method(path).empty() && !torch_file(path).empty();
  return own_file || awq_version(path) == name_of(version);
}

template <AwqVersion version>
std::unique_ptr<Checkpoint> open_variant(const fs::path& path) {
  return std::make_unique<Variant<version>>(path);
}

template <AwqVersion version>
std::unique_ptr<CheckpointSink> new_variant(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                            const QuantSpec& quant) {
  return std::make_unique<VariantSink<version>>(place, config, spec, quant);
}

template <AwqVersion version>
constexpr Format variant(std::string_view name, const Capacity* holds) {
  return {name, is_variant<version>, open_variant<version>, new_variant<version>, holds};
}

}  // namespace

const Capacity kGemvHolds{.bits = {4}, .whole_rows = false};
const Capacity kGemvFastHolds{.bits = {4}, .offsets = true, .rows = 8, .cols = 64, .whole_rows = false};
const Capacity kLlmAwqHolds{.bits = {4}, .offsets = true, .rows = 8, .cols = 64, .whole_rows = false, .bf16 = true};
const Capacity kMarlinHolds{.bits = {4}, .symmetric = true, .rows = 64, .cols = 16};
extern const Format kAutoAwqGemv, kAutoAwqGemvFast, kAutoAwqMarlin, kLlmAwq;
const Format kAutoAwqGemv = variant<AwqVersion::gemv>("autoawq-gemv", &kGemvHolds);
const Format kAutoAwqGemvFast = variant<AwqVersion::gemv_fast>("autoawq-gemv-fast", &kGemvFastHolds);
const Format kAutoAwqMarlin = variant<AwqVersion::marlin>("autoawq-marlin", &kMarlinHolds);
const Format kLlmAwq = variant<AwqVersion::llm_awq>("llm-awq", &kLlmAwqHolds);

namespace {

template <AwqVersion version>
std::string_view Variant<version>::format() const {
  return version == AwqVersion::gemv        ? kAutoAwqGemv.name
         : version == AwqVersion::gemv_fast ? kAutoAwqGemvFast.name
         : version == AwqVersion::llm_awq   ? kLlmAwq.name
                                            : kAutoAwqMarlin.name;
}

}  // namespace
}  // namespace awq
