#include "quantizer/module_loss.h"

#include <gtest/gtest.h>

#include "block_fixture.h"

namespace awq {
namespace {

// Whatever type the block runs in: the reference is of the same numbers as what is tried. A reference in bfloat16
// beside weights in f32 would cost 2^-9 of them.
TEST(ModuleLoss, AChangeThatChangesNothingCostsNothing) {
  SmallBlock small;
  const BlockCalibration seen = small.seen();
  BlockCosts costs;
  const SolveContext context{{}, *small.dev, small.host, costs, {}};
  for (const std::optional<DType> type :
       {std::optional<DType>(), std::optional(DType::f32), std::optional(DType::bf16)})
    for (const Products products : {Products::exact, Products::fastest}) {
      // Without tiles no job has a block in bfloat16 that was made of f32.
      if (products == Products::fastest && !has_tiles(small.host.kernels) && type == DType::bf16) continue;
      const Block block = upload(*small.dev, small.w, type);
      for (const ScaleGroup& g : scale_groups(small.w.spec)) {
        if (g.consumers.size() == 1) continue;  // judged by a quadratic form
        const ModuleLoss loss(g, small.w, block, seen, context, products);
        EXPECT_EQ(loss.of([&](Param p) { return rows_of(small.w, p); }), 0);
      }
    }
}

}  // namespace
}  // namespace awq
