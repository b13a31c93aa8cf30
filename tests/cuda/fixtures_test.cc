// Whole models by the backend on the executor, against the CPU's: the tiny models of every family, and random ones
// whose matrices are quantized in every way that has a kernel.
#include <gtest/gtest.h>

#include "bench/models.h"
#include "cuda/executor_device.h"
#include "engine/golden_fixture.h"
#include "formats/load.h"
#include "model/cuda_backend.h"

namespace awq {
namespace {

constexpr DType kKv = DType::f16;

/// A prompt, and then a few tokens one by one: both kinds of attention, and few and many tokens.
Tensor logits_of(Device& d, const Model& m, std::span<const int32_t> ids) {
  const auto kv = d.backend->kv_cache(m.spec.blocks, kKv);
  const int prompt = int(ids.size()) - 2, all = int(ids.size());
  Tensor logits = Tensor::empty({all, m.spec.vocab}, DType::f32);
  for (int at = 0; at < all;) {
    const Sequence s{kv.get(), at, at ? 1 : prompt, all};
    const Tensor part =
        head_logits(*d.backend, m, hidden_forward(*d.backend, m, ids.subspan(size_t(at), size_t(s.tokens)), {&s, 1}));
    std::ranges::copy(part.as<float>(), logits.rows(at, at + s.tokens).as<float>().begin());
    at += s.tokens;
  }
  return logits;
}

struct Both {
  explicit Both(bool groups = true) : cpu(2, "portable"), gpu(2, "portable") {
    gpu.backend = cuda_backend(gpu.pool, cuda::executor_device(size_t(512) << 20, 3, groups));
  }
  double difference(const Checkpoint& c, std::span<const int32_t> ids) {
    const Tensor want = logits_of(cpu, load_model(*cpu.backend, c), ids);
    return golden::relative_difference(logits_of(gpu, load_model(*gpu.backend, c), ids), want);
  }
  Device cpu, gpu;
};

// Activations are rounded to 11 bits at four places of each block and before the head, queries and weights of attention
// at two more; norms after a module may double what that makes.
double tolerance(size_t blocks) { return double(6 * blocks + 1) * 0x1p-10; }

class CudaGolden : public testing::TestWithParam<std::string> {};
TEST_P(CudaGolden, LogitsEqualTheCpus) {
  const auto checkpoint = Checkpoint::open(golden::folder(GetParam()));
  const golden::Expected expected(GetParam());
  EXPECT_LT(Both().difference(*checkpoint, std::span(expected.ids).first(18)),
            tolerance(checkpoint->spec().blocks.size()));
}
INSTANTIATE_TEST_SUITE_P(Families, CudaGolden, testing::ValuesIn(golden::names()), golden::name_of_case);

class CudaQuantized : public testing::TestWithParam<QuantSpec> {};
TEST_P(CudaQuantized, LogitsEqualTheCpus) {
  Both both;
  const auto checkpoint = random_model(tiny_config(2), GetParam(), GetParam(), 3, both.cpu.pool);
  std::vector<int32_t> ids;
  for (int i = 0; i < 72; ++i) ids.push_back((i * 37 + 11) % 300);
  cuda::executor::set_seed(6);
  EXPECT_LT(both.difference(*checkpoint, ids), tolerance(2));
  EXPECT_LT(Both(false).difference(*checkpoint, ids), tolerance(2));  // as GPUs that do not multiply by four warps
  EXPECT_LT(both.difference(*checkpoint, std::span(ids).first(20)), tolerance(2));
  cuda::executor::set_seed(0);
}
INSTANTIATE_TEST_SUITE_P(Specs, CudaQuantized,
                         testing::Values(QuantSpec{.bits = 4, .group_size = 32}, QuantSpec{.bits = 4, .group_size = 64},
                                         QuantSpec{.bits = 4, .group_size = 128},
                                         QuantSpec{.bits = 8, .group_size = 32}, QuantSpec{.bits = 2, .group_size = 32},
                                         QuantSpec{.bits = 4, .group_size = 16},  // by 16 bits
                                         QuantSpec{.bits = 4, .group_size = 128, .scale_dtype = DType::bf16}),
                         [](const auto& c) {
                           const QuantSpec& q = c.param;
                           return fmt::format("bits{}_groups{}_{}", q.bits, q.group_size, name_of(q.scale_dtype));
                         });

}  // namespace
}  // namespace awq
