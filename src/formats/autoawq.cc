// A Hugging Face folder whose matrices are in AutoAWQ's "GEMM" layout; see autoawq_pack.h.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "formats/autoawq_pack.h"
#include "formats/folder.h"
#include "formats/params.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// config.json's quantization_config as far as it says how to read the tensors; the other keys of the field (backend,
/// fusing, how the model was made) do not, and every tensor's shape and type is checked against these.
struct Options {
  int group_size = 0;  // -1: one group a row
  bool zero_point = true;
  int head_bits = 0;  // 0: float
};

[[noreturn]] void bad(const fs::path& folder, std::string_view key, std::string_view expected, const Json& got) {
  fail("open", "{}/config.json: quantization_config's \"{}\" should be {}, but is {}", folder.string(), key, expected,
       shown(got));
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return text;
}

/// "lm_head" is GPTQModel's key. No other program knows another width for the head than that of the blocks.
int read_head_bits(const Json& quantization, const fs::path& folder) {
  const Json head = quantization.value("lm_head", Json(false));
  if (head == Json::object({{"bits", 8}})) return 8;
  if (!head.is_boolean()) bad(folder, "lm_head", "true (4 bits), false or {\"bits\": 8}", head);
  return head.get<bool>() ? 4 : 0;
}

Options read_options(const Json& config, const fs::path& folder) {
  const Json& q = config.at("quantization_config");
  const Json bits = q.value("bits", Json()), group = q.value("group_size", Json());
  // Absent keys mean what they mean to transformers.
  const Json version = q.value("version", q.value("format", Json("gemm"))), zero = q.value("zero_point", Json(true));
  if (bits != 4) bad(folder, "bits", "4 (what this version reads)", bits);
  if (!version.is_string() || lower(version.get<std::string>()) != "gemm")
    bad(folder, "version", "\"gemm\" (what this version reads)", version);
  if (!group.is_number_integer() || (group != -1 && (group < 1 || group > INT32_MAX)))
    bad(folder, "group_size", "a positive number or -1", group);
  if (!zero.is_boolean()) bad(folder, "zero_point", "true or false", zero);
  return {group.get<int>(), zero.get<bool>(), read_head_bits(q, folder)};
}

/// Index of the first NaN or infinity in f32 data; -1 if there is none.
ptrdiff_t first_not_finite(const Tensor& t) {
  const auto v = t.as<float>();
  const auto it = std::ranges::find_if(v, [](float x) { return !std::isfinite(x); });
  return it == v.end() ? -1 : it - v.begin();
}

class AutoAwqCheckpoint : public FolderCheckpoint {
 public:
  explicit AutoAwqCheckpoint(const fs::path& folder)
      : FolderCheckpoint(folder, read_config(folder)), options_(read_options(config(), folder)) {
    check_head();
    TensorCheck check(folder, spec(), files());
    for (const StoredTensor& t : stored().all()) {
      const std::string base = name(t);
      if (const int bits = bits_of(t))
        require_packed(check, base, {t.rows, shape_of(spec(), t.parts.front().block, t.first())[1]}, bits);
      else
        check.require(base + ".weight", t.shape);
      if (t.bias) check.require(base + ".bias", {t.rows});
    }
    check.no_others();
  }
  std::string_view format() const override { return "autoawq"; }

  Weight weight(int block, Param param) const override {
    const StoredTensor& t = stored().holding(block, param);
    if (!bits_of(t)) return FolderCheckpoint::weight(block, param);
    const std::string base = name(t);
    const bool zeros = files().find(base + ".qzeros");
    return part(t, block, param,
                checked({files().tensor(base + ".qweight"), zeros ? files().tensor(base + ".qzeros") : Tensor(),
                         files().tensor(base + ".scales")},
                        base, 0));
  }

  /// The file has column after column, so a piece is all rows of some columns: read in order, and few pages at a time.
  Pieces pieces(int block, Param param) const override {
    const StoredTensor& t = stored().holding(block, param);
    const int bits = bits_of(t);
    if (!bits) return FolderCheckpoint::pieces(block, param);
    const Shape shape = shape_of(spec(), block, param);
    const int64_t group = options_.group_size == -1 ? shape[1] : options_.group_size;
    const int64_t width =
        group <= Pieces::kColumns ? Pieces::kColumns / group * group : std::gcd(group, Pieces::kColumns);
    const QuantSpec quant{.bits = bits, .group_size = int(group), .scale_dtype = scale_type(name(t))};
    return {shape, quant, (shape[1] + width - 1) / width, [=, this, &t](int64_t i) {
              const int64_t begin = i * width, end = std::min(shape[1], begin + width);
              return Piece{0, begin, part(t, block, param, columns(name(t), begin, end, group))};
            }};
  }

 private:
  /// 0: float. What modules_to_not_convert names is what has no such tensor.
  int bits_of(const StoredTensor& t) const {
    const Role role = t.first().role;
    if (role == Role::head) return options_.head_bits;
    return !is_norm(role) && !is_table(role) && files().find(name(t) + ".qweight") ? 4 : 0;
  }

  QMatrix part(const StoredTensor& t, int block, Param param, QMatrix all) const {
    return t.parts.size() == 1 ? all : gather(stored().rows(block, param), all);
  }

  void check_head() const {
    const std::string tensor = source_of(spec(), -1, {Role::head}).name + ".qweight";
    if (options_.head_bits && spec().tied_embeddings)
      bad(folder(), "lm_head", "false, as \"tie_word_embeddings\" is true", config()["quantization_config"]["lm_head"]);
    if (!options_.head_bits && files().find(tensor))
      bad(folder(), "lm_head", "true (4 bits) or {\"bits\": 8}, as there is a tensor " + tensor, false);
  }

  void require_packed(TensorCheck& check, const std::string& base, const Shape& shape, int bits) const {
    const int64_t rows = rows_of_word(bits);
    if (shape[0] % rows)
      fail("open", "{}: {} has {} rows by config.json, which this format's words of {} rows cannot hold",
           folder().string(), base, shape[0], rows);
    const int64_t group = options_.group_size == -1 ? shape[1] : options_.group_size;
    if (shape[1] % group)
      fail("open",
           "{}: groups of {} columns do not divide the {} of {}; config.json and the tensors are not of the same model",
           folder().string(), group, shape[1], base);
    check.require(base + ".qweight", {shape[1], shape[0] / rows}, {DType::i32});
    check.require(base + ".scales", {shape[1] / group, shape[0]});
    if (options_.zero_point || files().find(base + ".qzeros"))
      check.require(base + ".qzeros", {shape[1] / group, shape[0] / rows}, {DType::i32});
  }

  DType scale_type(const std::string& base) const {
    return *files().find(base + ".scales")->entries().find(base + ".scales")->second.dtype;
  }

  /// Columns [begin, end), whole groups or a part of one.
  QMatrix columns(const std::string& base, int64_t begin, int64_t end, int64_t group) const {
    const int64_t first = begin / group, last = (end - 1) / group + 1;
    const bool zeros = files().find(base + ".qzeros");
    return checked(
        {files().rows(base + ".qweight", begin, end), zeros ? files().rows(base + ".qzeros", first, last) : Tensor(),
         files().rows(base + ".scales", first, last)},
        base, first);
  }

  QMatrix checked(const AutoAwqTensors& t, const std::string& base, int64_t first_group) const {
    QMatrix q = unpack_autoawq(t);
    check_scales(q.scales, base + ".scales", first_group);
    if (!options_.zero_point) check_middle(q, base + ".qzeros");
    return q;
  }

  void check_scales(const Tensor& scales, const std::string& tensor, int64_t first_group) const {
    if (const ptrdiff_t i = first_not_finite(scales); i >= 0)
      fail("open",
           "{}: tensor {}: the scale of row {}, group {} is {}; the file is damaged or the model was quantized badly",
           files().find(tensor)->name(), tensor, i / scales.shape()[1], first_group + i % scales.shape()[1],
           scales.as<float>()[size_t(i)]);
  }

  void check_middle(const QMatrix& q, const std::string& tensor) const {
    const int middle = 1 << (q.spec.bits - 1);
    for (uint8_t z : q.zeros.as<uint8_t>())
      if (z != middle)
        fail("open",
             "{}: tensor {} holds {}, but config.json's \"zero_point\": false makes every zero point {}; programs "
             "disagree on such a file",
             files().find(tensor)->name(), tensor, z, middle);
  }

  Options options_;
};

class AutoAwqSink : public FolderSink {
 public:
  AutoAwqSink(const OutputPlace& place, const Json& config, const ModelSpec& spec, const QuantSpec& quant,
              uint64_t shard_bytes)
      : FolderSink(place, config, spec, shard_bytes), quant_(quant) {}

 private:
  void write(const StoredTensor& t, const Weight& w) override {
    const Role role = t.first().role;
    if (const auto* q = std::get_if<QMatrix>(&w)) return write_packed(t.name, role, *q);
    if (!is_norm(role) && !is_table(role) && role != Role::head) not_converted_.push_back(t.name);
    write_tensor(t.name + ".weight", as_stored(t, std::get<Tensor>(w)));
  }

  void write_packed(const std::string& name, Role role, const QMatrix& q) {
    if (is_table(role)) fail("write", "{}: this format has no quantized embedding; leave it in 16 bits", name);
    if (role == Role::head)
      head_bits_ = q.spec.bits;
    else if (q.spec.bits != 4)
      fail("write", "{}: the AutoAWQ format holds 4 bits a weight, not {}", name, q.spec.bits);
    const int64_t group = quant_.group_size == -1 ? q.cols() : quant_.group_size;
    if (q.spec.group_size != group)
      fail("write", "{}: its groups have {} columns, but the file's have {}", name, q.spec.group_size, group);
    if (const int rows = rows_of_word(q.spec.bits); q.rows() % rows)
      fail("write", "{}: {} rows; this format packs {} together, so their number must be a multiple of that", name,
           q.rows(), rows);
    const AutoAwqTensors t = pack_autoawq(q);
    write_tensor(name + ".qweight", t.qweight);
    write_tensor(name + ".qzeros", t.qzeros);
    write_tensor(name + ".scales", t.scales);
  }

  void write_bias(const std::string& name, const Tensor& b) override {
    const Tensor half = b.to(DType::f16);  // what the format has
    if (const ptrdiff_t i = first_not_finite(half.to(DType::f32)); i >= 0)
      fail("write", "{}: element {} does not fit into F16, in which this format stores biases", name, i);
    write_tensor(name, half);
  }

  void describe(Json& config) const override {
    // AutoAWQ needs every key and the lower case; the int4 kernels of other programs compute in F16.
    config["quantization_config"] = {
        {"quant_method", "awq"},
        {"bits", 4},
        {"group_size", quant_.group_size},
        {"zero_point", true},
        {"version", "gemm"},
        {"modules_to_not_convert", not_converted_.empty() ? Json() : Json(not_converted_)}};
    if (head_bits_)
      config["quantization_config"]["lm_head"] =
          head_bits_ == 4 ? Json(true) : Json::object({{"bits", head_bits_}});  // read_head_bits
    config["torch_dtype"] = "float16";
    if (config.contains("dtype")) config["dtype"] = "float16";  // how newer files spell it
  }

  Json seen() const override { return {{"head_bits", head_bits_}, {"not_converted", not_converted_}}; }
  void see_again(const Json& seen) override {
    head_bits_ = seen.at("head_bits");
    not_converted_ = seen.at("not_converted").get<std::vector<std::string>>();
  }

  QuantSpec quant_;
  int head_bits_ = 0;
  std::vector<std::string> not_converted_;
};

bool is_autoawq(const fs::path& path) {
  try {
    const Json config = read_config(path);
    const auto q = config.find("quantization_config");
    return q != config.end() && q->is_object() && q->value("quant_method", Json()) == "awq";
  } catch (const Error&) {
    return false;  // whatever is wrong is reported by the format that opens it
  }
}

std::unique_ptr<Checkpoint> open_autoawq(const fs::path& path) { return std::make_unique<AutoAwqCheckpoint>(path); }

std::unique_ptr<CheckpointSink> new_autoawq(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                            const QuantSpec& quant) {
  return create_autoawq(place, config, spec, quant);
}

}  // namespace

std::unique_ptr<CheckpointSink> create_autoawq(const OutputPlace& place, const Json& config, const ModelSpec& spec,
                                               const QuantSpec& quant, uint64_t shard_bytes) {
  if (quant.bits != 4) fail("write", "the AutoAWQ format holds 4 bits a weight, not {}", quant.bits);
  return std::make_unique<AutoAwqSink>(place, config, spec, quant, shard_bytes);
}

extern const Format kAutoAwq;
const Format kAutoAwq{"autoawq", is_autoawq, open_autoawq, new_autoawq};

}  // namespace awq
