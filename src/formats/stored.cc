#include "formats/stored.h"

#include "base/check.h"
#include "formats/bit_fields.h"
#include "formats/params.h"
#include "tensor/transpose.h"

namespace awq {
namespace {

/// The parts repeat equally often and cover what is repeated.
bool tiles(std::vector<StoredPart> parts, int64_t rows) {
  std::ranges::sort(parts, {}, [](const StoredPart& p) { return p.rows.begin; });
  const int64_t period = parts.front().rows.period;
  int64_t at = 0;
  for (const StoredPart& p : parts) {
    if (p.rows.begin != at || p.rows.count < 1 || p.rows.period != period) return false;
    at += p.rows.count;
  }
  return at == period && std::ranges::all_of(parts, [&](const StoredPart& p) {
           return p.total % p.rows.count == 0 && p.total / p.rows.count == rows / period;
         });
}

/// Each expert's rows by themselves; a stack of one parameter's heads has one part.
bool covered(const StoredTensor& t) {
  if (!t.stack || t.parts.size() == 1) return tiles(t.parts, t.rows);
  const int64_t rows = t.rows / t.stack;
  std::map<int64_t, std::vector<StoredPart>> of_expert;
  for (StoredPart p : t.parts) {
    const int64_t expert = p.rows.begin / rows;
    p.rows.begin -= expert * rows, p.rows.period = std::min(p.rows.period, rows);
    of_expert[expert].push_back(p);
  }
  return int64_t(of_expert.size()) == t.stack &&
         std::ranges::all_of(of_expert, [&](const auto& e) { return tiles(e.second, rows); });
}

/// Norms with gains for each head are stored as [heads, head_dim], a convolution as [channels, 1, kernel].
Shape norm_shape(const BlockSpec& b, Role role) {
  const int64_t n = b.shape({role}).first;
  if (role == Role::conv) return {n / b.delta.value().kernel, 1, b.delta->kernel};
  const bool each = b.attention.head_norm == HeadNorm::each_head && (role == Role::q_norm || role == Role::k_norm);
  return each ? Shape{n / b.attention.head_dim, b.attention.head_dim} : Shape{n};
}

StoredTensor first_part(const Source& source, const Shape& shape, bool bias) {
  return {source.name, source.weight, source.bias, shape, 0, source.stack, source.transposed, bias, {}};
}

Source laid_out(const Source& s, Experts experts) { return s.stack && experts == Experts::apart ? Source(s.apart) : s; }

Shape whole_shape(const StoredTensor& t) {
  const int64_t cols = t.shape[1];
  if (t.stack && t.transposed) return {t.stack, cols, t.rows / t.stack};
  if (t.stack) return {t.stack, t.rows / t.stack, cols};
  return t.transposed ? Shape{cols, t.rows} : Shape{t.rows, cols};
}

Tensor other_way_round(const Tensor& t) {
  return gather_transposed({0, t.shape()[1], t.shape()[1]}, 0, t.shape()[1], t);
}

void put_rows(const RowPattern& p, const Tensor& part, Tensor& to) {
  for_runs(p, 0, part.shape()[0], [&](int64_t stored, int64_t row, int64_t n) {
    const Tensor run = part.rows(row, row + n);
    std::copy_n(run.data(), run.bytes(), to.rows(stored, stored + n).data());
  });
}

}  // namespace

StoredTensors::StoredTensors(const ModelSpec& spec, Experts experts)
    : StoredTensors(spec, [&](int block, Param p) { return laid_out(source_of(spec, block, p), experts); }) {}

StoredTensors::StoredTensors(const ModelSpec& spec, const std::function<Source(int block, Param p)>& source_of_param) {
  std::map<std::string, size_t> by_name;
  for (const auto& [block, param] : params_of(spec)) {
    const Source source = source_of_param(block, param);
    const Shape shape = shape_of(spec, block, param);
    const bool bias = has_bias(spec, block, param);
    const auto [it, added] = by_name.emplace(source.name, all_.size());
    if (added) all_.push_back(first_part(source, shape, bias));
    StoredTensor& t = all_[it->second];
    if (!added && (shape.rank() != 2 || t.shape.rank() != 2 || shape[1] != t.shape[1] || t.bias != bias ||
                   t.transposed != source.transposed || t.stack != source.stack))
      fail("model", "{}: {} and {} cannot share {}", spec.arch, name_of(t.first().role), name_of(param.role), t.name);
    t.rows += shape[0];
    const RowPattern whole{0, shape[0], shape[0]};
    t.parts.push_back({block, param, source.rows.period ? source.rows : whole, shape[0]});
    where_.emplace(std::pair(block, param), it->second);
  }
  for (StoredTensor& t : all_) {
    if (!covered(t)) fail("model", "{}: the parts of {} do not cover its {} rows", spec.arch, t.name, t.rows);
    if (is_norm(t.first().role) && t.parts.front().block >= 0)
      t.shape = norm_shape(spec.blocks[size_t(t.parts.front().block)], t.first().role);
    else if (t.shape.rank() == 2)
      t.shape = whole_shape(t);
  }
}

RowPattern StoredTensors::rows(int block, Param param) const {
  const auto& parts = holding(block, param).parts;
  return std::ranges::find_if(parts, [&](const StoredPart& p) { return p.block == block && p.param == param; })->rows;
}

QMatrix gather(const RowPattern& p, int64_t begin, int64_t end, const QMatrix& tensor, int64_t first) {
  const auto rows_of = [&](const Tensor& t) {
    if (!t) return Tensor();
    return gather(p, begin, end, [&](int64_t from, int64_t to) { return t.rows(from - first, to - first); });
  };
  return {tensor.spec,  rows_of(tensor.codes), rows_of(tensor.scales), rows_of(tensor.zeros), rows_of(tensor.offsets),
          tensor.order, tensor.inputs};
}

Tensor gather_transposed(const RowPattern& p, int64_t begin, int64_t end, const Tensor& tensor) {
  const int64_t in = tensor.shape()[0], out = tensor.shape()[1];
  Tensor rows = Tensor::empty({end - begin, in}, tensor.dtype());
  const auto copy = [&]<class T>(T) {
    const auto* from = reinterpret_cast<const T*>(tensor.data());
    auto* to = reinterpret_cast<T*>(rows.data());
    for_runs(p, begin, end, [&](int64_t stored, int64_t row, int64_t n) {
      transpose(from + stored, out, in, n, to + (row - begin) * in, in);
    });
  };
  size_of(tensor.dtype()) == 2 ? copy(uint16_t()) : copy(uint32_t());
  return rows;
}

Weight merged(const StoredTensor& s, const std::vector<Weight>& parts) {
  if (parts.size() == 1) return parts.front();
  const bool quantized = std::holds_alternative<QMatrix>(parts.front());
  const auto alike = [&](const Weight& w) {
    if (w.index() != parts.front().index()) return false;
    if (!quantized) return std::get<Tensor>(w).dtype() == std::get<Tensor>(parts.front()).dtype();
    const auto &q = std::get<QMatrix>(w), &first = std::get<QMatrix>(parts.front());
    return q.spec == first.spec && same_bytes(q.order, first.order) && same_bytes(q.inputs, first.inputs);
  };
  if (!std::ranges::all_of(parts, alike))
    fail("write", "{}: its parts are one tensor in the file, so all of them must be quantized alike, or none", s.name);
  const auto all = [&](const auto& tensor_of) {
    const Tensor first = tensor_of(parts.front());
    if (!first) return first;
    Tensor to =
        Tensor::empty(first.shape().rank() == 1 ? Shape{s.rows} : Shape{s.rows, first.shape()[1]}, first.dtype());
    for (size_t i = 0; i < parts.size(); ++i) put_rows(s.parts[i].rows, tensor_of(parts[i]), to);
    return to;
  };
  if (!quantized) return all([](const Weight& w) { return std::get<Tensor>(w); });
  const auto all_of = [&](Tensor QMatrix::*part) {
    return all([part](const Weight& w) { return std::get<QMatrix>(w).*part; });
  };
  const auto& q = std::get<QMatrix>(parts.front());
  return QMatrix{q.spec,
                 all_of(&QMatrix::codes),
                 all_of(&QMatrix::scales),
                 all_of(&QMatrix::zeros),
                 all_of(&QMatrix::offsets),
                 q.order,
                 q.inputs};
}

Tensor as_stored(const StoredTensor& s, const Tensor& weight) {
  if (s.transposed && s.stack) {
    Tensor all = Tensor::empty(s.shape, weight.dtype());
    for (int64_t e = 0; e < s.stack; ++e) {
      const Tensor one = other_way_round(weight.rows(e * s.shape[2], (e + 1) * s.shape[2]));
      std::copy_n(one.data(), one.bytes(), all.rows(e, e + 1).data());
    }
    return all;
  }
  if (s.transposed) return other_way_round(weight);
  return weight.shape() == s.shape ? weight : weight.reshaped(s.shape);
}

}  // namespace awq
