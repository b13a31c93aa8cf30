// A model that is partly on the executor's device and partly on the CPU: what is where, what it computes, and what it
// says where there is no memory.
#include <gtest/gtest.h>

#include <set>

#include "bench/models.h"
#include "cuda/executor_device.h"
#include "engine/golden_fixture.h"
#include "formats/load.h"
#include "model/cuda_backend.h"

namespace awq {
namespace {

constexpr DType kCache = DType::bf16;
constexpr QuantSpec kFourBits{.bits = 4, .group_size = 32};

nlohmann::json short_config(int blocks) {
  nlohmann::json c = tiny_config(blocks);
  c["max_position_embeddings"] = 128;  // so that a prompt that fills it is soon computed
  return c;
}

/// The CPU beside a GPU of so many bytes.
struct Split {
  explicit Split(size_t bytes, int layers = 0) : device(2, "portable") {
    auto gpu = cuda_backend(device.pool, cuda::executor_device(bytes));
    memory = &gpu->memory();
    device.backend = split_backend(std::move(gpu), cpu_backend(device.pool, device.kernels), layers, kCache);
  }
  Device device;
  CudaMemory* memory;
  Backend& operator*() { return *device.backend; }
};

int on_gpu(const Model& m) {
  return int(std::ranges::count_if(m.blocks, [](const Block& b) { return !b.spec.on_host; }));
}

std::vector<int32_t> some_tokens(int n) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) ids.push_back((i * 37 + 11) % 300);
  return ids;
}

/// Logits of a prompt's last token and of two that follow it, [3, vocab].
Tensor three_logits(Backend& dev, const Model& m, KvCache& kv, std::span<const int32_t> ids) {
  const int prompt = int(ids.size()) - 2;
  Tensor all = Tensor::empty({3, m.spec.vocab}, DType::f32);
  for (int i = 0; i < 3; ++i) {
    const auto part = i ? ids.subspan(size_t(prompt + i - 1), 1) : ids.first(size_t(prompt));
    const Tensor one = prefill(dev, m, kv, i ? prompt + i - 1 : 0, part);
    std::ranges::copy(one.as<float>(), all.rows(i, i + 1).as<float>().begin());
  }
  return all;
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

class SplitTest : public testing::Test {
 protected:
  Device cpu_{2, "portable"};
  const std::string gpu_{cuda_backend(cpu_.pool, cuda::executor_device(1 << 20))->kernels()};
  const bool small_ = gpu_ == "executor";  // a GPU has more memory than a test should fill
  std::unique_ptr<Checkpoint> checkpoint_ = random_model(short_config(4), kFourBits, kFourBits, 3, cpu_.pool);
};

// The bound is that of a whole GPU (fixtures_test.cc), which a part cannot exceed.
TEST_F(SplitTest, LogitsEqualTheCpusWhereverTheSplitIs) {
  const std::vector<int32_t> ids = some_tokens(20);
  const Model want = load_model(*cpu_.backend, *checkpoint_);
  const auto own = cpu_.backend->kv_cache(want.spec.blocks, kCache);
  const Tensor logits = three_logits(*cpu_.backend, want, *own, ids);
  for (int layers = 1; layers <= 4; ++layers) {
    SCOPED_TRACE(layers);
    Split s(64 << 20, layers);
    const Model m = load_model(*s, *checkpoint_);
    EXPECT_EQ(on_gpu(m), layers);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(m.blocks[size_t(i)].spec.on_host, i < 4 - layers);
    const auto kv = (*s).kv_cache(m.spec.blocks, kCache);
    EXPECT_LT(golden::relative_difference(three_logits(*s, m, *kv, ids), logits), 25 * 0x1p-10);
    EXPECT_NE((*s).placement().find(std::to_string(layers) + " of 4 blocks and the head on " + gpu_ + ": "),
              std::string::npos);
    EXPECT_EQ((*s).kernels(),
              layers == 4 ? gpu_ : fmt::format("{}, and portable for {} of 4 blocks", gpu_, 4 - layers));
  }
}

// What is counted for a matrix is what the device gave for it, to the byte. The first one also makes room for slices.
TEST_F(SplitTest, MatricesTakeWhatIsCounted) {
  const auto gpu = cuda_backend(cpu_.pool, cuda::executor_device(64 << 20));
  for (const MatrixType& type :
       {MatrixType(kFourBits), MatrixType(QuantSpec{.bits = 8, .group_size = 64}), MatrixType(DType::bf16),
        MatrixType(DType::f32), MatrixType(QuantSpec{.bits = 4, .group_size = 16}),
        MatrixType(QuantSpec{.bits = 4, .group_size = 128, .scale_dtype = DType::f32})}) {
    const auto model = random_model(short_config(1), type, {}, 3, cpu_.pool);
    for (const Role role : {Role::q, Role::down})
      for (const bool biased : {false, true}) {
        const Pieces w = model->pieces(0, {role});
        const Tensor bias = Tensor::zeros({w.shape[0]}, DType::f32);
        const auto first = gpu->linear(w, nullptr);
        const int64_t before = gpu->memory().bytes_in_use();
        const auto second = gpu->linear(w, biased ? &bias : nullptr);
        EXPECT_EQ(gpu->memory().bytes_in_use() - before, gpu->linear_memory(w, biased));
      }
  }
}

// As many blocks as fit, more with more memory; the announced sum stays below the budget, and so does the run.
TEST_F(SplitTest, AsManyBlocksAsFitAndTheBudgetIsKept) {
  if (!small_) GTEST_SKIP() << "a GPU has more memory than a test should fill";
  std::set<int> seen;
  int last = 0;
  std::string refused;
  for (size_t bytes = 6100 << 10; bytes < size_t(7600) << 10; bytes += 100 << 10) {
    SCOPED_TRACE(bytes);
    Split s(bytes);
    Model m;
    if (refused = error_of([&] { m = load_model(*s, *checkpoint_); }); !refused.empty()) {
      EXPECT_EQ(last, 0) << "less memory was enough";
      EXPECT_NE(refused.find("[device] executor has a budget of "), std::string::npos) << refused;
      EXPECT_NE(refused.find("give --device cpu"), std::string::npos) << refused;
      seen.insert(0);
      continue;
    }
    EXPECT_GE(on_gpu(m), std::max(last, 1));
    last = on_gpu(m);
    if (!seen.insert(last).second || last == 2 || last == 3) continue;
    const auto kv = (*s).kv_cache(m.spec.blocks, kCache);
    kv->make_room(128);
    prefill(*s, m, *kv, 0, some_tokens(126));
    prefill(*s, m, *kv, 126, some_tokens(1));
    EXPECT_LE(s.memory->most_in_use(), s.memory->budget());
    EXPECT_LE(size_t(s.memory->budget()), bytes - bytes / 16 + 1);
  }
  EXPECT_EQ(seen, (std::set<int>{0, 1, 2, 3, 4}));
}

TEST_F(SplitTest, WhatDoesNotFitIsAnErrorBeforeAnythingIsLoaded) {
  if (!small_) GTEST_SKIP() << "a GPU has more memory than a test should fill";
  Split many(64 << 20, 5);
  EXPECT_EQ(error_of([&] { load_model(*many, *checkpoint_); }),
            "[device] --gpu-layers 5: the model has 4 blocks; give 1 to 4, or leave it out: then it is as many as fit");
  Split small(4 << 20, 2);
  const std::string text = error_of([&] { load_model(*small, *checkpoint_); });
  EXPECT_NE(text.find("[device] --gpu-layers 2: 2 blocks and the head take "), std::string::npos) << text;
  EXPECT_EQ(small.memory->bytes_in_use(), 0);
}

// Keys and values of the whole answer are taken before the first token, or refused with the numbers.
// Its second half reads keys of the first.
TEST_F(SplitTest, BlocksThatBorrowKeysStayTogether) {
  const auto source = Checkpoint::open(golden::folder("gemma4"));
  const int all = int(source->spec().blocks.size());
  Split apart(size_t{1} << 30, all - 1), together(size_t{1} << 30, all);
  const std::string text = error_of([&] { load_model(*apart, *source); });
  EXPECT_NE(text.find(fmt::format("{} of {} blocks would be on the GPU", all - 1, all)), std::string::npos) << text;
  EXPECT_EQ(on_gpu(load_model(*together, *source)), all);
}

TEST_F(SplitTest, KeysAndValuesAreTakenBeforeTheFirstToken) {
  if (!small_) GTEST_SKIP() << "a GPU has more memory than a test should fill";
  Split s(40 << 20);
  const Model m = load_model(*s, *checkpoint_);
  const auto kv = (*s).kv_cache(m.spec.blocks, kCache);
  const int64_t served = (*s).kv_room(m.spec.blocks, kCache).value(), page = kv->bytes_for(1);
  EXPECT_GT(served, 0);
  EXPECT_EQ(served % page, 0);
  const int64_t pages = s.memory->room() / page;
  EXPECT_LT(served, pages * page);  // some is left for many sequences
  kv->make_room(pages * 256);
  EXPECT_EQ(kv->bytes(), pages * page);
  const std::string text = error_of([&] { kv->make_room(pages * 256 + 1); });
  EXPECT_NE(text.find("[cuda memory] keys and values of "), std::string::npos) << text;
  EXPECT_NE(text.find("--kv int8"), std::string::npos) << text;
  prefill(*s, m, *kv, 0, some_tokens(126));  // what it works in was left free
}

// As `awq serve` shares beginnings: a page of both sides goes to another sequence.
TEST_F(SplitTest, PagesOfBothSidesAreShared) {
  nlohmann::json config = short_config(2);
  config["max_position_embeddings"] = 512;
  const auto checkpoint = random_model(config, kFourBits, {}, 3, cpu_.pool);
  Split s(64 << 20, 1);
  const Model m = load_model(*s, *checkpoint);
  const std::vector<int32_t> ids = some_tokens(258);
  const auto kv = (*s).kv_cache(m.spec.blocks, kCache), taken = (*s).kv_cache(m.spec.blocks, kCache);
  prefill(*s, m, *kv, 0, std::span(ids).first(256));
  EXPECT_EQ(kv->bytes(), kv->bytes_for(256));
  const auto copy = kv->clone();
  taken->put_page(0, kv->page(0));
  const Tensor want = prefill(*s, m, *kv, 256, std::span(ids).last(2));
  EXPECT_TRUE(same_bytes(prefill(*s, m, *taken, 256, std::span(ids).last(2)), want));
  EXPECT_TRUE(same_bytes(prefill(*s, m, *copy, 256, std::span(ids).last(2)), want));
}

}  // namespace
}  // namespace awq
