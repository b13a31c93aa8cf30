// Experts of 4-bit floats: each value is where the format says, and folders that are wrong in one place. Their logits
// against transformers are those of tests/golden/gpt-oss-mxfp4.
#include <gtest/gtest.h>

#include <cmath>

#include "formats/folder_fixture.h"
#include "formats/pieces_fixture.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class Mxfp4 : public FolderTest {
 protected:
  Mxfp4() : config_(Json::parse(read_text(kFixture / "config.json"))) {
    const SafetensorsFolder files(kFixture);
    for (const auto& [name, entry] : files.files()[0].entries()) tensors_[name] = files.tensor(name).clone();
  }
  std::string error() {
    fs::remove_all(root_ / "m");
    return open_error(make("m", config_, tensors_));
  }
  const fs::path kFixture = AWQ_TEST_DIR "/golden/gpt-oss-mxfp4";
  const std::string kUp = "model.layers.1.mlp.experts.gate_up_proj";
  Json config_;
  TensorMap tensors_;
};

// Row r of expert e's gate and up are rows 2 r and 2 r + 1 of its 64; of two values in a byte the low one is first.
TEST_F(Mxfp4, ValuesAreWhereTheFormatSays) {
  const float size[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const auto model = Checkpoint::open(kFixture);
  EXPECT_EQ(model->format(), "mxfp4");
  EXPECT_FALSE(model->config().contains("quantization_config"));
  const auto blocks = tensors_.at(kUp + "_blocks").as<uint8_t>(), scales = tensors_.at(kUp + "_scales").as<uint8_t>();
  for (int expert : {0, 2})
    for (const Role role : {Role::gate, Role::up}) {
      const Tensor w = std::get<Tensor>(model->weight(1, {role, expert})).to(DType::f32);
      ASSERT_EQ(w.shape(), (Shape{32, 32}));
      for (size_t r = 0; r < 32; ++r)
        for (size_t c = 0; c < 32; ++c) {
          const size_t row = size_t(expert) * 64 + 2 * r + (role == Role::up);
          const int code = blocks[row * 16 + c / 2] >> (c % 2 ? 4 : 0) & 15;
          const float want = std::ldexp(size[code & 7], scales[row] - 127) * (code & 8 ? -1.f : 1.f);
          ASSERT_EQ(w.as<float>()[r * 32 + c], want) << r << ", " << c;
        }
    }
  expect_pieces_are_the_weights(*model);
}

TEST_F(Mxfp4, EveryTensorIsUsed) {
  for (const TensorInfo& t : Checkpoint::open(kFixture)->tensors()) {
    EXPECT_NE(t.use, TensorUse::dropped) << t.name;
    if (t.name.ends_with("_blocks") || t.name.ends_with("_scales")) {
      EXPECT_EQ(t.use, TensorUse::floats) << t.name;
    }
    if (t.name.ends_with("bias") || t.name.ends_with("sinks")) {
      EXPECT_EQ(t.use, TensorUse::carried) << t.name;
    }
  }
}

TEST_F(Mxfp4, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(error(), "no error");
  config_["quantization_config"]["block_size"] = 16;
  EXPECT_EQ(error(),
            "[open] D/m/config.json: \"block_size\" should be absent (this version does not know it), but is 16");
  config_["quantization_config"].erase("block_size");
  const Tensor scales = tensors_.at(kUp + "_scales");
  tensors_[kUp + "_scales"] = scales.reshaped({scales.shape().elements()});
  EXPECT_NE(error().find(kUp + "_scales has shape"), std::string::npos);
  tensors_.erase(kUp + "_scales");
  EXPECT_NE(error().find("tensor " + kUp + "_scales is missing"), std::string::npos);
  tensors_[kUp + "_scales"] = scales;
  tensors_.erase("model.layers.0.self_attn.sinks");
  EXPECT_NE(error().find("tensor model.layers.0.self_attn.sinks is missing"), std::string::npos);
}

}  // namespace
}  // namespace awq
