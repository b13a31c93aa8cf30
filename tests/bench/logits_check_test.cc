#include "bench/logits_check.h"

#include <gtest/gtest.h>

#include "base/numeric.h"
#include "bench/models.h"
#include "bench/shapes.h"
#include "kernels/sets.h"

namespace awq {
namespace {

using kernels::KernelSet;
using kernels::kPanel;

const KernelSet& portable() { return *kernels::compiled().back(); }

LogitsCheck check(const KernelSet& set, int threads = 2, const std::optional<QuantSpec>& head = {},
                  Activations activations = Activations::int16) {
  Loaded l(set, tiny_config(), threads, head, activations);
  const auto reference = cpu_backend(l.pool, portable(), activations);
  return check_logits(*l.backend, l.model, *reference, *l.checkpoint, 5);
}

/// The best set that adds products by fma alone.
const KernelSet& fused() {
  for (const auto& s : kernels::sets())
    if (s.fused() && !s->tiles_bf16) return *s.set;
  return portable();
}

class LogitsOf : public kernels::KernelTest {};

TEST_P(LogitsOf, EveryRightSetAgrees) {
  const LogitsCheck c = check(*set().set);
  EXPECT_TRUE(c.agrees()) << c.difference;
  EXPECT_EQ(c.blocks, 3);
  EXPECT_EQ(c.tokens, 20);
  EXPECT_EQ(c.hash, check(*set().set, 5).hash) << "threads must not matter";
  if (!set().fused()) {
    EXPECT_EQ(c.hash, c.reference_hash);
    EXPECT_EQ(c.difference, 0);
    return;
  }
  EXPECT_NE(c.hash, c.reference_hash);
  EXPECT_GT(c.difference, c.bound / 1000) << "the bound says nothing";
  if (set()->tiles_bf16) return;
  EXPECT_EQ(c.hash, check(fused()).hash) << "sets that fuse agree to the bit";
}
TEST_P(LogitsOf, EveryRightSetAgreesWithAQuantizedHead) {
  for (const int bits : {4, 8}) {
    const LogitsCheck c = check(*set().set, 2, QuantSpec{.bits = bits, .group_size = 32});
    EXPECT_TRUE(c.agrees()) << c.difference;
    EXPECT_EQ(c.difference > 0, set().fused());
  }
}
// A prompt long enough for tiles, where a set has them.
TEST_P(LogitsOf, EveryRightSetAgreesInBf16) {
  const LogitsCheck c = check(*set().set, 2, {}, Activations::bf16);
  EXPECT_TRUE(c.agrees()) << c.difference;
  EXPECT_EQ(c.tokens, set()->tiles_int ? 132 : 20);
}
INSTANTIATE_TEST_SUITE_P(Sets, LogitsOf, testing::ValuesIn(kernels::sets()),
                         [](const auto& one) { return one.param.name; });

// A set that is wrong in one place. Functions cannot capture, so they start from the portable ones.
template <class Break>
KernelSet broken(Break b) {
  KernelSet set = portable();
  b(set);
  return set;
}

TEST(LogitsCheck, FindsOneWrongRowOfAPanel) {
  const KernelSet set = broken([](KernelSet& s) {
    s.matmul_i16 = [](const kernels::PackedInt& w, const kernels::ActI16& x, float* y, ptrdiff_t row, int32_t b,
                      int32_t e) {
      portable().matmul_i16(w, x, y, row, b, e);
      for (int32_t t = 0; t < x.tokens; ++t)
        for (int32_t p = b; p < e; ++p) y[t * row + p * kPanel + 3] = 0;
    };
  });
  EXPECT_FALSE(check(set).agrees());
}

TEST(LogitsCheck, FindsALostColumn) {
  const KernelSet set = broken([](KernelSet& s) {
    s.quantize_i16 = [](const float* x, const kernels::ActI16& to, int32_t begin, int32_t end) {
      portable().quantize_i16(x, to, begin, end);
      for (int32_t t = begin; t < end; ++t) to.codes[t * to.cols + 5] = 0;
    };
  });
  EXPECT_FALSE(check(set).agrees());
}

// On tiles of its own, which are right but for one row of each panel.
TEST(LogitsCheck, FindsAWrongTile) {
  KernelSet set = broken([](KernelSet& s) {
    s.split_bf16 = [](const float* x, const kernels::ActBf16& to, int32_t begin, int32_t end, int32_t, int32_t) {
      for (int64_t i = int64_t(begin) * to.cols; i < int64_t(end) * to.cols; ++i) to.values[i] = f32_to_bf16(x[i]);
    };
    s.tiles_int = [](const kernels::PackedInt& w, const kernels::ActBf16& x, float* y, ptrdiff_t row, int32_t b,
                     int32_t e) {
      std::vector<float> f(size_t(x.tokens) * size_t(x.cols)), scales(f.size() / size_t(w.group));
      std::vector<int16_t> codes(f.size());
      std::vector<int32_t> sums(scales.size());
      for (size_t i = 0; i < f.size(); ++i) f[i] = bf16_to_f32(x.values[i]);
      const kernels::ActI16 act{codes.data(), scales.data(), sums.data(), x.tokens, x.cols, w.group};
      portable().quantize_i16(f.data(), act, 0, x.tokens);
      portable().matmul_i16(w, act, y, row, b, e);
      for (int32_t t = 0; t < x.tokens; ++t)
        for (int32_t p = b; p < e; ++p) y[t * row + p * kPanel + 3] *= -1;
    };
  });
  EXPECT_FALSE(check(set, 2, {}, Activations::bf16).agrees());
  set.tiles_int = nullptr;
  EXPECT_TRUE(check(set, 2, {}, Activations::bf16).agrees());
}

TEST(LogitsCheck, FindsAWrongHead) {
  const KernelSet set = broken([](KernelSet& s) {
    s.gemm_bf16 = [](const kernels::Gemm& g) {
      portable().gemm_bf16(g);
      g.c[0] *= 0.9f;  // one logit of the first token
    };
  });
  EXPECT_FALSE(check(set).agrees());
}

TEST(LogitsCheck, FindsAWrongQuantizedHead) {
  const KernelSet set = broken([](KernelSet& s) {
    s.matmul_i16 = [](const kernels::PackedInt& w, const kernels::ActI16& x, float* y, ptrdiff_t row, int32_t b,
                      int32_t e) {
      portable().matmul_i16(w, x, y, row, b, e);
      if (w.bits == 8 && b == 0) y[0] *= 0.9f;  // only the head has 8 bits
    };
  });
  EXPECT_FALSE(check(set, 2, QuantSpec{.bits = 8, .group_size = 32}).agrees());
}

TEST(LogitsCheck, FindsAWrongAttention) {
  const KernelSet set = broken([](KernelSet& s) {
    s.attend_bf16 = [](const kernels::AttentionStep& a) {  // blind to the last position, but where it is the only one
      std::vector<int32_t> last(a.last, a.last + a.rows);
      for (int32_t r = 0; r < a.rows; ++r) last[size_t(r)] -= last[size_t(r)] - a.first[r] > 1;
      kernels::AttentionStep fewer = a;
      fewer.last = last.data();
      portable().attend_bf16(fewer);
    };
  });
  EXPECT_FALSE(check(set).agrees());
}

TEST(LogitsCheck, FindsNaN) {
  const KernelSet set = broken([](KernelSet& s) {
    s.gemm_bf16 = [](const kernels::Gemm& g) {
      portable().gemm_bf16(g);
      g.c[g.n - 1] = NAN;
    };
  });
  EXPECT_FALSE(check(set).agrees());
}

TEST(LogitsCheck, LargeModelsAreCut) {
  const auto depth = [](std::string_view shape) {
    const nlohmann::json config = shape_config(shape);
    return check_depth(find_architecture(config["architectures"][0].get<std::string>()).parse(config), 20);
  };
  EXPECT_EQ(depth("smollm2-135m"), 30);
  EXPECT_EQ(depth("llama-3.2-1b"), 5);  // (6e8 - 128256 * 2048) / 60.8e6
  EXPECT_EQ(depth("llama-2-7b"), 2);    // (6e8 - 32000 * 4096) / 202e6
  EXPECT_EQ(depth("qwen3-4b"), 2);      // (6e8 - 151936 * 2560) / 101e6
}

}  // namespace
}  // namespace awq
