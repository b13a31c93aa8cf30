#include "formats/float_blocks.h"

#include "formats/params.h"

namespace awq {

void FloatBlocks::check_tensors() const {
  TensorCheck check(folder(), spec(), files());
  for (const StoredTensor& t : stored().all()) {
    if (in_blocks(t))
      require_blocks(check, t);
    else
      check.require(weight_name(t), t.shape);
    if (t.bias) check.require(bias_name(t), bias_shape(t));
  }
  check.no_others();
}

Tensor FloatBlocks::values_of(int block, Param p, int64_t begin, int64_t end) const {
  const StoredTensor& t = stored().holding(block, p);
  return gather(stored().rows(block, p), begin, end, [&](int64_t from, int64_t to) { return values(t, from, to); });
}

Weight FloatBlocks::weight(int block, Param p) const {
  if (!in_blocks(stored().holding(block, p))) return FolderCheckpoint::weight(block, p);
  return values_of(block, p, 0, shape_of(spec(), block, p)[0]);
}

Pieces FloatBlocks::pieces(int block, Param p) const {
  if (!in_blocks(stored().holding(block, p))) return FolderCheckpoint::pieces(block, p);
  const Shape shape = shape_of(spec(), block, p);
  return in_bands(shape, type_, shape[1] * int64_t(size_of(type_)), 1,
                  [this, block, p](int64_t begin, int64_t end) { return values_of(block, p, begin, end); });
}

}  // namespace awq
