#include "quant/regroup.h"

namespace awq {
namespace {

template <class T>
Tensor repeated(const Tensor& grids, int64_t times) {
  if (!grids) return grids;
  Tensor out = Tensor::empty({grids.shape()[0], grids.shape()[1] * times}, grids.dtype());
  T* to = out.as<T>().data();
  for (const T v : grids.as<T>()) to = std::fill_n(to, times, v);
  return out;
}

}  // namespace

QMatrix in_groups_of(const QMatrix& q, int columns) {
  if (q.spec.group_size == columns) return q;
  const int64_t times = q.spec.group_size / columns;
  QMatrix out = q;
  out.spec.group_size = columns;
  out.scales = repeated<float>(q.scales, times);
  out.zeros = repeated<uint8_t>(q.zeros, times);
  out.offsets = repeated<float>(q.offsets, times);
  return out;
}

}  // namespace awq
