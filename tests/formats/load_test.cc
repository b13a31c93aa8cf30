#include "formats/load.h"

#include <gtest/gtest.h>

#include "base/parallel.h"
#include "formats/params.h"
#include "kernels/registry.h"

namespace awq {
namespace {

struct Cancel {};

class Load : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Checkpoint> open() const {
    return Checkpoint::open(std::filesystem::path(AWQ_TEST_DIR) / "golden" / GetParam());
  }
  ThreadPool pool_{2};
  std::unique_ptr<Backend> dev_ = cpu_backend(pool_, kernels::select(""));
};

TEST_P(Load, TakesWhatWasAnnounced) {
  const auto model = open();
  EXPECT_EQ(load_model(*dev_, *model).bytes_per_token(), loaded_bytes(*dev_, *model));
}

TEST_P(Load, ReportsEveryParameterAndStopsWhereTheCallbackThrows) {
  const auto model = open();
  const int total = int(params_of(model->spec()).size()) - (model->spec().tied_embeddings ? 1 : 2);
  int calls = 0;
  load_model(*dev_, *model, [&](int done, int of) {
    EXPECT_EQ(done, ++calls);
    EXPECT_EQ(of, total);
  });
  EXPECT_EQ(calls, total);
  const auto stop = [&](int done, int) {
    calls = done;
    if (done == 3) throw Cancel();
  };
  EXPECT_THROW(load_model(*dev_, *model, stop), Cancel);
  EXPECT_EQ(calls, 3);
}

INSTANTIATE_TEST_SUITE_P(Families, Load, testing::Values("llama", "qwen2", "gemma3"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace awq
