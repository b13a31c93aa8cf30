// 8-bit floats in blocks against the float model that torch made of them (tools/make_fp8_vectors.py), and folders that
// are wrong in one place.
#include <gtest/gtest.h>

#include <cstring>

#include "formats/folder_fixture.h"
#include "formats/pieces_fixture.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kFixture = AWQ_TEST_DIR "/formats/fixtures/fp8";

TEST(Fp8, IsTheFloatModelBitForBit) {
  const auto model = Checkpoint::open(kFixture), floats = Checkpoint::open(AWQ_TEST_DIR "/formats/fp8-floats");
  EXPECT_EQ(model->format(), "fp8");
  EXPECT_EQ(model->config(), floats->config());
  int in_blocks = 0;
  for (const auto& [block, p] : params_of(model->spec())) {
    const Tensor a = std::get<Tensor>(model->weight(block, p)), b = std::get<Tensor>(floats->weight(block, p));
    EXPECT_TRUE(same(a, b)) << block << " " << name_of(p.role);
    in_blocks += a.dtype() == DType::f32;
  }
  EXPECT_EQ(in_blocks, 4 + 2 * 3);
  expect_pieces_are_the_weights(*model);
}

TEST(Fp8, ScalesOfActivationsAreDropped) {
  int dropped = 0;
  for (const TensorInfo& t : Checkpoint::open(kFixture)->tensors())
    if (t.use == TensorUse::dropped) {
      EXPECT_EQ(t.name, "model.layers.0.self_attn.o_proj.input_scale");
      EXPECT_EQ(t.reason, "for activations of 8 bits; they stay in floats");
      ++dropped;
    }
  EXPECT_EQ(dropped, 1);
}

class Fp8Parts : public FolderTest {};

// DeepSeek-V3's latent and the rotated part of keys are rows of one tensor, whose blocks do not end where they do.
TEST_F(Fp8Parts, HaveTheScalesOfTheirRows) {
  const fs::path reference = AWQ_TEST_DIR "/golden/deepseek3";
  TensorMap tensors;
  const SafetensorsFolder files(reference);
  for (const auto& [name, entry] : files.files()[0].entries()) tensors[name] = files.tensor(name).clone();
  const std::string name = "model.layers.1.self_attn.kv_a_proj_with_mqa.weight";
  Tensor ones = Tensor::empty({40, 32}, DType::f8_e4m3);
  std::memset(ones.data(), 0x38, ones.bytes());  // 2^0
  tensors[name] = ones;
  const std::vector<float> scales = {1, 2, 3, 4, 5, 6, 7, 8};
  tensors[name + "_scale_inv"] = Tensor::of<float>(scales, {4, 2});
  Json config = Json::parse(read_text(reference / "config.json"));
  config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {12, 16}}};
  const auto model = Checkpoint::open(make("m", config, tensors));
  const auto latent = std::get<Tensor>(model->weight(1, {Role::kv_a})),
             rope = std::get<Tensor>(model->weight(1, {Role::k_rope}));
  EXPECT_EQ(latent.shape(), (Shape{32, 32}));
  EXPECT_EQ(latent.as<float>()[31 * 32], 5);
  EXPECT_EQ(rope.shape(), (Shape{8, 32}));
  EXPECT_EQ(rope.as<float>()[0], 5);            // row 32 of 12 x 2 + 8
  EXPECT_EQ(rope.as<float>()[4 * 32 + 16], 8);  // row 36
}

class Fp8Errors : public FolderTest {
 protected:
  Fp8Errors() : config_(Json::parse(read_text(kFixture / "config.json"))) {
    const SafetensorsFolder files(kFixture);
    for (const auto& [name, entry] : files.files()[0].entries()) tensors_[name] = files.tensor(name).clone();
  }
  /// Reads all of it.
  std::string error() {
    fs::remove_all(root_ / "m");
    const fs::path folder = make("m", config_, tensors_);
    return message([&] {
      const auto model = Checkpoint::open(folder);
      for (const auto& [block, p] : params_of(model->spec())) model->weight(block, p);
    });
  }
  std::string with(const char* key, const Json& value) {
    const Json before = config_;
    config_["quantization_config"][key] = value;
    const std::string text = error();
    config_ = before;
    return text;
  }

  Json config_;
  TensorMap tensors_;
};

TEST_F(Fp8Errors, Config) {
  EXPECT_EQ(error(), "no error");
  EXPECT_EQ(with("activation_scheme", "dynamic"), "no error");
  EXPECT_EQ(with("fmt", "e5m2"), "[open] D/m/config.json: \"fmt\" should be \"e4m3\", but is \"e5m2\"");
  EXPECT_EQ(with("transposed", true),
            "[open] D/m/config.json: \"transposed\" should be absent (this version does not know it), but is true");
  for (const Json& size : {Json(), Json(128), Json({128}), Json({128, 0}), Json({-1, 128}), Json({1.5, 128}),
                           Json({1, int64_t(1) << 40}), Json({"1", 1})})
    EXPECT_NE(with("weight_block_size", size).find("should be two positive numbers"), std::string::npos) << size;
  EXPECT_NE(with("weight_block_size", {24, 24}).find("q_proj.weight_scale_inv has shape"), std::string::npos);
}

TEST_F(Fp8Errors, Tensors) {
  const std::string up = "model.layers.0.mlp.experts.1.up_proj.", scales = up + "weight_scale_inv";
  const Tensor good = tensors_.at(scales);
  tensors_.erase(scales);
  EXPECT_NE(error().find("tensor " + scales + " is missing"), std::string::npos);
  tensors_[scales] = good.reshaped({good.shape().elements()});
  EXPECT_NE(error().find(scales + " has shape"), std::string::npos);
  tensors_[scales] = Tensor::zeros(good.shape(), DType::i32);
  EXPECT_NE(error().find(scales + " is \"I32\""), std::string::npos);
  tensors_[scales] = good.to(DType::f32).clone();
  tensors_[scales].as<float>()[1] = INFINITY;
  EXPECT_EQ(error(),
            "[open] D/m: the scale of block 0, 1 of " + up.substr(0, up.size() - 1) + " is inf; the file is damaged");
  tensors_[scales] = good;
  tensors_[up + "weight_scale"] = good;
  EXPECT_NE(error().find("has no tensor like \"" + up + "weight_scale\""), std::string::npos);
}

}  // namespace
}  // namespace awq
