#include "formats/packed_sink.h"
#include "formats/params.h"

#include <algorithm>

#include "base/check.h"
#include "formats/params.h"
#include "quant/regroup.h"

namespace awq {
namespace {

constexpr std::string_view kRounded = "rounded-offsets", kBorrowed = "borrowed-zeros";

bool contains(const std::vector<int>& list, int value) { return std::ranges::find(list, value) != list.end(); }

void check_shape(const QMatrix& q, const Capacity& c, const std::string& name) {
  if (!contains(c.bits, q.spec.bits))
    fail("convert", "{}: {} bits; this format holds {}", name, q.spec.bits, fmt::join(c.bits, ", "));
  const bool row = q.spec.group_size == q.cols() && contains(c.groups, -1);
  if (!c.groups.empty() && !row && !contains(c.groups, q.spec.group_size))
    fail("convert", "{}: groups of {} columns; this format holds {}", name, q.spec.group_size,
         fmt::join(c.groups, ", "));
  if (q.order && !c.order)
    fail("convert", "{}: its columns are grouped in an order of their own (GPTQ's g_idx), which only GPTQ holds", name);
  if (q.inputs && !c.inputs)
    fail("convert",
         "{}: its inputs are multiplied by scales of their own (pre_quant_scale), which only modelopt holds. `--format "
         "hf` writes the de-quantized weights, with the scales in their columns",
         name);
}

/// The first group whose offset is not exactly -(zero * scale); both factors are exact in double.
std::optional<int64_t> first_rounded(const QMatrix& zeros, const QMatrix& offsets) {
  for (size_t g = 0; g < size_t(zeros.scales.shape().elements()); ++g)
    if (double(offsets.offsets.as<float>()[g]) !=
        -double(zeros.zeros.as<uint8_t>()[g]) * double(zeros.scales.as<float>()[g]))
      return int64_t(g);
  return std::nullopt;
}

void check_rounding(const QMatrix& zeros, const QMatrix& offsets, const Losses& allowed, const std::string& name) {
  const auto g = allowed.rounded_offsets ? std::nullopt : first_rounded(zeros, offsets);
  if (!g) return;
  fail("convert",
       "{}: row {}, group {}: zero point {} times the scale {} is not exact in {}, so one of the two formats has the "
       "product rounded and the weights differ by up to half a unit of its last place. --allow {} accepts that",
       name, *g / zeros.groups(), *g % zeros.groups(), zeros.zeros.as<uint8_t>()[size_t(*g)],
       zeros.scales.as<float>()[size_t(*g)], name_of(zeros.spec.scale_dtype), kRounded);
}

QMatrix to_offsets(const QMatrix& q, const Losses& allowed, const std::string& name) {
  QMatrix out = with_offsets(q);
  if (!q.spec.offsets) check_rounding(q, out, allowed, name);
  return out;
}

QMatrix to_zeros(const QMatrix& q, const Losses& allowed, const std::string& name) {
  if (!q.spec.offsets) return q;
  const auto out = with_zeros(q);
  if (!out)
    fail("convert",
         "{}: an offset is no multiple of its scale, so that no zero point stands for it; of the formats "
         "that awq writes only mlx holds it",
         name);
  check_rounding(*out, q, allowed, name);
  return *out;
}

void require_half(const Tensor& grids, const std::string& name, std::string_view what, std::string_view holders) {
  if (!grids) return;
  const Tensor back = grids.to(DType::f16).to(DType::f32);
  for (size_t i = 0; i < grids.as<float>().size(); ++i)
    if (back.as<float>()[i] != grids.as<float>()[i])
      fail("convert", "{}: the {} {} is not exact in F16, in which this format has it; try {}", name, what,
           grids.as<float>()[i], holders);
}

/// The same scales and offsets, stored in F16.
QMatrix in_half_scales(QMatrix q, const std::string& name) {
  require_half(q.scales, name, "scale", "compressed-tensors or mlx, which have BF16");
  require_half(q.offsets, name, "offset", "mlx, which has BF16");
  q.spec.scale_dtype = DType::f16;
  return q;
}

QMatrix in_half_parts(const QMatrix& q, int columns, const std::string& name) {
  if (q.spec.group_size % columns)
    fail("convert", "{}: groups of {} columns; this format has a scale for each {}", name, q.spec.group_size, columns);
  return in_groups_of(in_half_scales(q, name), columns);
}

/// Programs that own the format have scales of its type alone.
QMatrix in_own_type(QMatrix q, const Capacity& c, const std::string& name) {
  return stored_type(c, q.spec.scale_dtype) == q.spec.scale_dtype ? q : in_half_scales(std::move(q), name);
}

/// The same weights in 8 bits with 128 for every zero point: code - zero is what counts.
QMatrix widened(const QMatrix& q, const std::string& name) {
  QMatrix out = q;
  out.codes = q.codes.clone();
  const size_t group = size_t(q.spec.group_size);
  auto codes = out.codes.as<uint8_t>();
  for (size_t i = 0; i < codes.size(); ++i) {
    const int code = int(codes[i]) - int(q.zeros.as<uint8_t>()[i / group]) + 128;
    if (code < 0 || code > 255)
      fail("convert", "{}: code {} with the zero point {} is not within -128 to 127, the codes of this format", name,
           codes[i], q.zeros.as<uint8_t>()[i / group]);
    codes[i] = uint8_t(code);
  }
  out.spec.bits = 8;
  out.spec.symmetric = true;
  out.zeros = Tensor::empty(q.zeros.shape(), DType::u8);
  std::ranges::fill(out.zeros.as<uint8_t>(), uint8_t(128));
  return out;
}

void check_zeros(const QMatrix& q, const Capacity& c, const Losses& allowed, const std::string& name) {
  const int middle = 1 << (q.spec.bits - 1);
  const auto zeros = q.zeros.as<uint8_t>();
  const auto other = std::ranges::find_if(zeros, [=](uint8_t z) { return z != middle; });
  if ((c.symmetric || q.spec.symmetric) && other != zeros.end())
    fail("convert", "{}: a zero point is {}, but the layout has {} for all; quantize the original without zero points",
         name, *other, middle);
  if (!c.zero_zero && !allowed.borrowed_zeros && std::ranges::find(zeros, 0) != zeros.end())
    fail("convert",
         "{}: a zero point is 0, which version 1 of GPTQ stores as 15 with a borrow from its neighbour: programs that "
         "add 1 to each of them, not to the word, read two wrong ones. Write gptq (version 2), or accept that with "
         "--allow {}",
         name, kBorrowed);
}

}  // namespace

Losses losses_of(const std::vector<std::string>& names) {
  Losses losses;
  for (const std::string& name : names)
    if (name == kRounded)
      losses.rounded_offsets = true;
    else if (name == kBorrowed)
      losses.borrowed_zeros = true;
    else
      fail("convert", "--allow {}: there is no such loss; there are {} and {}", name, kRounded, kBorrowed);
  return losses;
}

DType stored_type(const Capacity& c, DType scales) { return scales == DType::bf16 && !c.bf16 ? DType::f16 : scales; }

QMatrix fitted(const QMatrix& source, const Capacity& c, const Losses& allowed, const std::string& name) {
  QMatrix q = source;
  if (c.part) q = in_half_parts(q, c.part, name);
  if (c.widens) q = widened(to_zeros(q, allowed, name), name);
  check_shape(q, c, name);
  if (c.offsets) return to_offsets(in_own_type(q, c, name), allowed, name);
  QMatrix out = in_own_type(to_zeros(q, allowed, name), c, name);
  check_zeros(out, c, allowed, name);
  return out;
}

void PackedSink::write(const StoredTensor& t, const Weight& w) {
  const std::string& name = t.name;
  const Role role = t.first().role;
  const bool outer = is_table(role) || role == Role::head;
  const auto* q = std::get_if<QMatrix>(&w);
  if (!q) {
    if (!is_norm(role) && !outer) left_float_.push_back(name);
    return write_tensor(t.weight(), as_stored(t, std::get<Tensor>(w)));
  }
  if (outer) fail("write", "{}: few programs read it quantized in this format; leave it in floats", name);
  const int64_t group = quant_.group_size == -1 ? q->cols() : quant_.group_size;
  if (q->spec.bits != quant_.bits || q->spec.group_size != group)
    fail("write", "{}: {} bits in groups of {}, but the file has {} in groups of {}", name, q->spec.bits,
         q->spec.group_size, quant_.bits, group);
  for (const Part& part : pack(*q)) write_tensor(fmt::format("{}.{}", name, part.suffix), part.tensor);
}

std::vector<std::string> PackedSink::in_floats() const {
  std::vector<std::string> all = left_float_;
  std::ranges::copy(carried_parts(), std::back_inserter(all));
  return all;
}

void PackedSink::write_bias(const std::string& name, const Tensor& b) { write_tensor(name, narrowed(b)); }

Tensor narrowed(const Tensor& t) {
  if (t.dtype() != DType::f32) return t;
  for (const DType type : {DType::f16, DType::bf16}) {
    const Tensor narrow = t.to(type), back = narrow.to(DType::f32);
    if (std::equal(t.data(), t.data() + t.bytes(), back.data())) return narrow;
  }
  return t;
}

}  // namespace awq
