#include "formats/packed_folder.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "formats/params.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

}  // namespace

std::string quant_method(const fs::path& folder) {
  try {
    const Json config = read_config(folder);
    const auto q = config.find("quantization_config");
    const Json method = q != config.end() && q->is_object() ? q->value("quant_method", Json()) : Json();
    return method.is_string() ? method.get<std::string>() : "";
  } catch (const Error&) {
    return "";  // whatever is wrong is reported by the format that opens it
  }
}

std::string awq_version(const fs::path& folder) {
  if (quant_method(folder) != "awq") return "";
  const Json q = read_config(folder).at("quantization_config");
  const Json version = q.value("version", q.value("format", Json("gemm")));
  std::string text = version.is_string() ? version.get<std::string>() : "";
  std::ranges::transform(text, text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return text;
}

std::optional<PackedPlace> PackedFolder::place(const StoredTensor& t) const {
  if (is_norm(t.first().role)) return std::nullopt;
  PackedPlace at{name(t), {t.rows, shape_of(spec(), t.parts.front().block, t.first())[1]}, {}};
  const auto quant = quant_of(t.first(), at.base, at.shape);
  if (!quant) return std::nullopt;
  at.spec = *quant;
  return at;
}

void PackedFolder::check_packed(TensorCheck& check, const PackedPlace& at) const {
  if (at.shape[1] % at.spec.group_size)
    fail("open",
         "{}: groups of {} columns do not divide the {} of {}; config.json and the tensors are not of the same model",
         folder().string(), at.spec.group_size, at.shape[1], at.base);
  require(check, at);
  order(at);  // throws where it is none
  inputs(at);
}

void PackedFolder::check_tensors() const {
  TensorCheck check(folder(), spec(), files());
  for (const StoredTensor& t : stored().all()) {
    if (const auto at = place(t))
      check_packed(check, *at);
    else
      check.require(weight_name(t), t.shape);
    if (t.bias) check.require(bias_name(t), bias_shape(t));
  }
  check.no_others();
}

QMatrix PackedFolder::checked(const PackedPlace& at, int64_t begin, int64_t end) const {
  QMatrix q = read(at, begin, end);
  q.spec.symmetric = at.spec.symmetric;
  const int64_t row = by_columns() ? 0 : begin, group = by_columns() ? begin / at.spec.group_size : 0;
  if (const auto i = first_bad_grid(q))
    fail("open", "{}: {}: the scale of row {}, group {} is {}; the file is damaged or the model was quantized badly",
         folder().string(), at.base, row + *i / q.groups(), group + *i % q.groups(), q.scales.as<float>()[size_t(*i)]);
  return q;
}

QMatrix PackedFolder::part(const PackedPlace& at, const RowPattern& rows, int64_t begin, int64_t end) const {
  if (by_columns()) return gather(rows, 0, rows.of(at.shape[0]), checked(at, begin, end), 0);
  const int64_t first = rows.stored(begin) / Pieces::kRows * Pieces::kRows;
  return gather(rows, begin, end, checked(at, first, rows.stored(end - 1) + 1), first);
}

Weight PackedFolder::weight(int block, Param param) const {
  const StoredTensor& t = stored().holding(block, param);
  const auto at = place(t);
  if (!at) return FolderCheckpoint::weight(block, param);
  const RowPattern rows = stored().rows(block, param);
  QMatrix q = part(*at, rows, 0, by_columns() ? at->shape[1] : rows.of(at->shape[0]));
  q.order = order(*at);
  q.inputs = inputs(*at);
  if (is_table(param.role)) return dequantize(q);
  return q;
}

Pieces PackedFolder::pieces(int block, Param param) const {
  const StoredTensor& t = stored().holding(block, param);
  const auto at = place(t);
  if (!at) return FolderCheckpoint::pieces(block, param);
  const auto read = [this, at, rows = stored().rows(block, param)](int64_t begin, int64_t end) {
    return part(*at, rows, begin, end);
  };
  const Shape shape = shape_of(spec(), block, param);
  Pieces p = by_columns() ? in_columns(shape, at->spec, read) : in_bands(shape, at->spec, shape[1], 1, read);
  p.order = order(*at);
  p.inputs = inputs(*at);
  return p;
}

DType PackedFolder::type_of(const std::string& tensor) const {
  return files().find(tensor) ? entry(tensor).dtype.value_or(DType::f32) : DType::f32;
}

const SafetensorsEntry& PackedFolder::entry(const std::string& tensor) const {
  const SafetensorsFile* file = files().find(tensor);
  if (!file)
    fail("open", "{}: tensor {} is missing; is the folder complete, and of the model that its config.json describes?",
         folder().string(), tensor);
  return file->entries().find(tensor)->second;
}

void PackedFolder::require_multiple(const PackedPlace& at, std::string_view what, int64_t value, int64_t unit) const {
  if (unit < 1 || value % unit)
    fail("open", "{}: {} has {} {}, which is no multiple of {}; config.json and the tensors are not of the same model",
         folder().string(), at.base, value, what, unit);
}

void PackedFolder::bad_config(std::string_view key, std::string_view expected, const Json& got) const {
  fail("open", "{}: \"{}\" should be {}, but is {}", described_in(), key, expected, shown(got));
}

Tensor PackedFolder::order_of(const PackedPlace& at, const std::string& g_idx) const {
  const Tensor stored = files().tensor(g_idx);
  const auto group = stored.as<int32_t>();
  const int64_t groups = at.shape[1] / at.spec.group_size;
  std::vector<int64_t> members(size_t(groups), 0);
  for (int32_t g : group) {
    if (g < 0 || g >= groups)
      fail("open", "{}: tensor {} names group {}, but {} has {}; the file is damaged", files().find(g_idx)->name(),
           g_idx, g, at.base, groups);
    ++members[size_t(g)];
  }
  if (std::ranges::any_of(members, [&](int64_t n) { return n != at.spec.group_size; }))
    fail("open", "{}: tensor {} puts more columns into some groups than into others, which this version cannot run",
         files().find(g_idx)->name(), g_idx);
  if (std::ranges::is_sorted(group)) return {};
  Tensor order = Tensor::empty({at.shape[1]}, DType::i32);
  auto v = order.as<int32_t>();
  std::iota(v.begin(), v.end(), 0);
  std::ranges::stable_sort(v, {}, [&](int32_t c) { return group[size_t(c)]; });
  return order;
}

Tensor PackedFolder::scales(const std::string& tensor, int64_t begin, int64_t end) const {
  return files().rows(tensor, begin, end).to(DType::f32);
}

}  // namespace awq
