#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "base/numeric.h"
#include "formats/autoawq_pack.h"
#include "formats/folder.h"
#include "formats/folder_fixture.h"
#include "formats/pieces_fixture.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

QMatrix random_matrix(int64_t rows, int64_t cols, QuantSpec spec, uint32_t seed) {
  std::mt19937 random(seed);
  const int64_t groups = cols / spec.group_size;
  QMatrix q{spec, Tensor::empty({rows, cols}, DType::u8), Tensor::empty({rows, groups}, DType::f32),
            Tensor::empty({rows, groups}, DType::u8)};
  const uint32_t levels = 1u << spec.bits;
  for (uint8_t& c : q.codes.as<uint8_t>()) c = uint8_t(random() % levels);
  for (uint8_t& z : q.zeros.as<uint8_t>()) z = uint8_t(random() % levels);
  for (float& s : q.scales.as<float>()) s = float(1 + random() % 127) / 4096.f;  // 7 bits: exact in every type
  return q;
}

void expect_same(const QMatrix& a, const QMatrix& b) {
  EXPECT_EQ(a.spec, b.spec);
  EXPECT_TRUE(same(a.codes, b.codes));
  EXPECT_TRUE(same(a.scales, b.scales));
  EXPECT_TRUE(same(a.zeros, b.zeros));
}

TEST(AutoAwqPack, WordOfCodesZeroToSeven) {
  QMatrix q = random_matrix(8, 1, {.group_size = 1}, 1);
  for (uint8_t i = 0; i < 8; ++i) q.codes.as<uint8_t>()[i] = i;
  EXPECT_EQ(pack_autoawq(q).qweight.as<int32_t>()[0], 0x75316420);
}

TEST(AutoAwqPack, WordOfBytesZeroToThree) {
  QMatrix q = random_matrix(4, 1, {.bits = 8, .group_size = 1}, 1);
  for (uint8_t i = 0; i < 4; ++i) q.codes.as<uint8_t>()[i] = uint8_t(0xf0 + i);
  EXPECT_EQ(uint32_t(pack_autoawq(q).qweight.as<int32_t>()[0]), 0xf3f1f2f0u);
}

TEST(AutoAwqPack, IsTheInverseOfUnpack) {
  // 136 columns: two whole tiles and a part of one. 280 rows: more than what is unpacked at a time.
  for (int bits : {4, 8})
    for (DType scales : {DType::f16, DType::bf16, DType::f32}) {
      const QMatrix q = random_matrix(280, 136, {.bits = bits, .group_size = 34, .scale_dtype = scales}, 2);
      const AutoAwqTensors t = pack_autoawq(q);
      EXPECT_EQ(t.qweight.shape(), Shape({136, 280 * bits / 32}));
      EXPECT_EQ(t.qzeros.shape(), Shape({4, 280 * bits / 32}));
      EXPECT_EQ(t.scales.shape(), Shape({4, 280}));
      EXPECT_EQ(t.scales.dtype(), scales);
      expect_same(unpack_autoawq(t), q);
    }
}

TEST(AutoAwqPack, AbsentZerosAreTheMiddle) {
  for (int bits : {4, 8}) {
    AutoAwqTensors t = pack_autoawq(random_matrix(8, 32, {.bits = bits, .group_size = 32}, 3));
    t.qzeros = Tensor();
    const QMatrix back = unpack_autoawq(t);
    for (uint8_t z : back.zeros.as<uint8_t>()) EXPECT_EQ(z, bits == 4 ? 8 : 128);
  }
}

TEST(AutoAwqPack, RefusesWhatTheFormatCannotHold) {
  EXPECT_THROW(pack_autoawq(random_matrix(12, 32, {.group_size = 32}, 4)), Error);
  EXPECT_THROW(pack_autoawq(random_matrix(14, 32, {.bits = 8, .group_size = 32}, 4)), Error);
  EXPECT_NO_THROW(pack_autoawq(random_matrix(12, 32, {.bits = 8, .group_size = 32}, 4)));
  EXPECT_THROW(pack_autoawq(random_matrix(8, 32, {.bits = 3, .group_size = 32}, 4)), Error);
}

TEST(AutoAwqPack, PublishedVectorBitForBit) {
  const fs::path file = AWQ_SHARED_DIR "/vectors/awq-vectors.json";
  if (!fs::exists(file)) GTEST_SKIP() << file << " is not there";
  const Json v = Json::parse(read_text(file)).at("packing");
  const int64_t rows = v.at("N"), cols = v.at("K");
  const auto hex = [](const Json& j) { return uint32_t(std::stoul(j.get<std::string>(), nullptr, 16)); };
  QMatrix q = random_matrix(rows, cols, {.group_size = v.at("group")}, 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) q.codes.as<uint8_t>()[size_t(r * cols + c)] = v.at("q")[size_t(r)][size_t(c)];
    for (int64_t g = 0; g < q.groups(); ++g) {
      q.zeros.as<uint8_t>()[size_t(r * q.groups() + g)] = v.at("z")[size_t(r)][size_t(g)];
      q.scales.as<float>()[size_t(r * q.groups() + g)] = f16_to_f32(uint16_t(hex(v.at("s_f16")[size_t(r)][size_t(g)])));
    }
  }
  const AutoAwqTensors t = pack_autoawq(q);
  const auto expect_words = [&](const Json& expected, const Tensor& got, auto value) {
    ASSERT_EQ(got.shape(), Shape({int64_t(expected.size()), int64_t(expected[0].size())}));
    for (size_t r = 0; r < expected.size(); ++r)
      for (size_t c = 0; c < expected[r].size(); ++c)
        EXPECT_EQ(value(r * expected[r].size() + c), hex(expected[r][c])) << r << ", " << c;
  };
  const Json& gemm = v.at("autoawq_gemm");
  expect_words(gemm.at("qweight"), t.qweight, [&](size_t i) { return uint32_t(t.qweight.as<int32_t>()[i]); });
  expect_words(gemm.at("qzeros"), t.qzeros, [&](size_t i) { return uint32_t(t.qzeros.as<int32_t>()[i]); });
  expect_words(gemm.at("scales"), t.scales, [&](size_t i) { return uint32_t(t.scales.bits16()[i]); });
  expect_same(unpack_autoawq(t), q);
}

bool is_matrix(Param p) { return !is_norm(p.role) && p.role != Role::embed && p.role != Role::head; }

Json awq_config() {
  Json config = tiny_config();
  config["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4},         {"group_size", 16},
                                   {"zero_point", true},    {"version", "gemm"}, {"modules_to_not_convert", nullptr}};
  return config;
}

/// The float fixture with every matrix of its blocks quantized.
TensorMap awq_tensors(int group, DType scales = DType::f16, const Json& config = tiny_config()) {
  const ModelSpec spec = spec_of(config);
  TensorMap tensors = float_tensors(config, DType::f16);
  for (const auto& [block, param] : params_of(spec)) {
    if (!is_matrix(param)) continue;
    const std::string base = base_name(spec, block, param);
    const Shape shape = shape_of(spec, block, param);
    const AutoAwqTensors t = pack_autoawq(
        random_matrix(shape[0], shape[1], {.group_size = group == -1 ? int(shape[1]) : group, .scale_dtype = scales},
                      uint32_t(block) + 5));
    tensors.erase(base + ".weight");
    tensors[base + ".qweight"] = t.qweight;
    tensors[base + ".qzeros"] = t.qzeros;
    tensors[base + ".scales"] = t.scales;
  }
  return tensors;
}

const std::string kUp = "model.layers.1.mlp.up_proj";

class AutoAwqTest : public FolderTest {
 protected:
  std::string error_with(const std::string& folder, std::string_view key, const Json& value) const {
    Json config = awq_config();
    config["quantization_config"][key] = value;
    return open_error(make(folder, config, awq_tensors(16)));
  }
};

TEST_F(AutoAwqTest, MatricesComeBackExactly) {
  for (DType scales : {DType::f16, DType::bf16, DType::f32}) {
    const TensorMap tensors = awq_tensors(16, scales);
    const auto model = Checkpoint::open(make("m" + std::string(name_of(scales)), awq_config(), tensors));
    EXPECT_EQ(model->format(), "autoawq");
    const auto q = std::get<QMatrix>(model->weight(1, {Role::up}));
    expect_same(q, random_matrix(64, 32, {.group_size = 16, .scale_dtype = scales}, 6));
    EXPECT_TRUE(same(std::get<Tensor>(model->weight(-1, {Role::embed})), tensors.at("model.embed_tokens.weight")));
    EXPECT_TRUE(same(model->bias(0, {Role::q}), tensors.at("model.layers.0.self_attn.q_proj.bias").to(DType::f32)));
  }
}

TEST_F(AutoAwqTest, OneGroupARow) {
  Json config = awq_config();
  config["quantization_config"]["group_size"] = -1;
  const auto model = Checkpoint::open(make("m", config, awq_tensors(-1)));
  EXPECT_EQ(std::get<QMatrix>(model->weight(0, {Role::down})).spec.group_size, 64);
  EXPECT_EQ(std::get<QMatrix>(model->weight(0, {Role::up})).spec.group_size, 32);
}

// 384 columns of down are three pieces of 128, whether of 8 groups each or of a third of one; groups of 96 are taken
// one by one.
TEST_F(AutoAwqTest, PiecesAreTheMatrix) {
  Json config = awq_config();
  config["intermediate_size"] = 384;
  for (int group : {16, -1}) {
    config["quantization_config"]["group_size"] = group;
    const auto name = "m" + std::to_string(group);
    EXPECT_EQ(
        expect_pieces_are_the_weights(*Checkpoint::open(make(name, config, awq_tensors(group, DType::f16, config)))),
        3);
  }
  config["hidden_size"] = 96;
  config["quantization_config"]["group_size"] = 96;
  EXPECT_EQ(expect_pieces_are_the_weights(*Checkpoint::open(make("m96", config, awq_tensors(96, DType::f32, config)))),
            4);
}

TEST_F(AutoAwqTest, LayersLeftFloatAreFound) {
  TensorMap t = awq_tensors(16);
  for (const char* part : {".qweight", ".qzeros", ".scales"}) t.erase(kUp + part);
  t[kUp + ".weight"] = numbered({64, 32}, DType::bf16, 1);
  const auto model = Checkpoint::open(make("m", awq_config(), t));
  EXPECT_TRUE(same(std::get<Tensor>(model->weight(1, {Role::up})), t.at(kUp + ".weight")));
}

TEST_F(AutoAwqTest, SymmetricFilesHaveZerosOfEightOrNone) {
  Json config = awq_config();
  config["quantization_config"]["zero_point"] = false;
  TensorMap t = awq_tensors(16);
  const auto model = Checkpoint::open(make("others", config, t));
  const std::string error = message([&] { model->weight(1, {Role::up}); });
  const auto asymmetric =
      std::get<QMatrix>(Checkpoint::open(make("asymmetric", awq_config(), t))->weight(1, {Role::up}));
  const int z = asymmetric.zeros.as<uint8_t>()[0];
  ASSERT_NE(z, 8);
  EXPECT_EQ(error,
            "[open] D/others/model.safetensors: tensor model.layers.1.mlp.up_proj.qzeros holds " + std::to_string(z) +
                ", but config.json's \"zero_point\": false makes every zero point 8; programs disagree on such a file");
  t.erase(kUp + ".qzeros");
  const auto none = std::get<QMatrix>(Checkpoint::open(make("none", config, t))->weight(1, {Role::up}));
  for (uint8_t zero : none.zeros.as<uint8_t>()) EXPECT_EQ(zero, 8);
  t[kUp + ".qzeros"] = Tensor::empty({2, 8}, DType::i32);
  for (int32_t& word : t[kUp + ".qzeros"].as<int32_t>()) word = int32_t(0x88888888);
  EXPECT_EQ(message([&] { Checkpoint::open(make("eights", config, t))->weight(1, {Role::up}); }), "no error");
}

TEST_F(AutoAwqTest, UnknownOptionsAreErrors) {
  const auto text = [](std::string_view folder, std::string_view rest) {
    return "[open] D/" + std::string(folder) + "/config.json: quantization_config's " + std::string(rest);
  };
  EXPECT_EQ(error_with("bits", "bits", 3), text("bits", "\"bits\" should be 4 (what this version reads), but is 3"));
  EXPECT_EQ(error_with("exllama", "version", "exllama"),
            text("exllama", "\"version\" should be \"gemm\" (what this version reads), but is \"exllama\""));
  EXPECT_EQ(error_with("upper", "version", "GEMM"), "no error");  // AutoAWQ itself has written both
  EXPECT_EQ(error_with("zero", "group_size", 0),
            text("zero", "\"group_size\" should be a positive number or -1, but is 0"));
  EXPECT_EQ(error_with("null", "group_size", nullptr),
            text("null", "\"group_size\" should be a positive number or -1, but is null"));
  EXPECT_EQ(error_with("point", "zero_point", 1), text("point", "\"zero_point\" should be true or false, but is 1"));
  const std::string head = "\"lm_head\" should be true (4 bits), false or {\"bits\": 8}, but is ";
  EXPECT_EQ(error_with("head5", "lm_head", {{"bits", 5}}), text("head5", head + "{\"bits\":5}"));
  EXPECT_EQ(error_with("head4", "lm_head", {{"bits", 4}}), text("head4", head + "{\"bits\":4}"));
  EXPECT_EQ(error_with("more", "lm_head", {{"bits", 8}, {"group_size", 32}}),
            text("more", head + "{\"bits\":8,\"group_size\":32}"));
  EXPECT_EQ(error_with("number", "lm_head", 8), text("number", head + "8"));
  EXPECT_EQ(error_with("false", "lm_head", false), "no error");
  EXPECT_EQ(error_with("group", "group_size", 24),
            "[open] D/group: groups of 24 columns do not divide the 32 of model.layers.0.self_attn.q_proj; config.json "
            "and the tensors are "
            "not of the same model");
}

TEST_F(AutoAwqTest, PackedTensorsMustFit) {
  TensorMap t = awq_tensors(16);
  EXPECT_EQ(error_with("other-group", "group_size", 32),
            "[open] D/other-group/model.safetensors: tensor model.layers.0.self_attn.q_proj.scales has shape [2, 32], "
            "but config.json makes "
            "it [1, 32]; are they of the same model?");
  t[kUp + ".qweight"] = Tensor::zeros({64, 4}, DType::i32);
  EXPECT_EQ(open_error(make("shape", awq_config(), t)),
            "[open] D/shape/model.safetensors: tensor model.layers.1.mlp.up_proj.qweight has shape [64, 4], but "
            "config.json makes it [32, 8]; "
            "are they of the same model?");
  t = awq_tensors(16);
  t[kUp + ".qweight"] = Tensor::zeros({32, 8}, DType::i16);
  EXPECT_EQ(
      open_error(make("dtype", awq_config(), t)),
      "[open] D/dtype/model.safetensors: tensor model.layers.1.mlp.up_proj.qweight is \"I16\", but I32 is expected");
  t = awq_tensors(16);
  t.erase(kUp + ".qzeros");
  EXPECT_EQ(open_error(make("zeros", awq_config(), t)),
            "[open] D/zeros: tensor model.layers.1.mlp.up_proj.qzeros is missing; is the folder complete, and of the "
            "model that its "
            "config.json describes?");
  t = awq_tensors(16);
  t[kUp + ".weight"] = numbered({64, 32}, DType::f16, 1);
  EXPECT_EQ(open_error(make("both", awq_config(), t)),
            "[open] D/both: Qwen2ForCausalLM has no tensor like \"model.layers.1.mlp.up_proj.weight\"; the model would "
            "be computed without it");
  t = awq_tensors(16);
  t["model.embed_tokens.qweight"] = t.at("model.embed_tokens.weight");
  t.erase("model.embed_tokens.weight");
  EXPECT_EQ(open_error(make("embed", awq_config(), t)),
            "[open] D/embed: tensor model.embed_tokens.weight is missing; is the folder complete, and of the model "
            "that its config.json "
            "describes?");
}

TEST_F(AutoAwqTest, ScaleThatIsNoNumberIsNamed) {
  TensorMap t = awq_tensors(16, DType::f32);
  t.at(kUp + ".scales").as<float>()[64 + 3] = std::numeric_limits<float>::quiet_NaN();  // [2 groups, 64 rows]
  const auto model = Checkpoint::open(make("m", awq_config(), t));
  EXPECT_EQ(
      message([&] { model->weight(1, {Role::up}); }),
      "[open] D/m: model.layers.1.mlp.up_proj: the scale of row 3, group 1 is nan; the file is damaged or the model "
      "was quantized badly");
}

TEST_F(AutoAwqTest, ScaleThatIsNoNumberIsNamedInThePieceThatHasIt) {
  Json config = awq_config();
  config["intermediate_size"] = 384;
  TensorMap t = awq_tensors(16, DType::f32, config);
  // [24 groups, 32 rows]; group 17 is the second of the third piece.
  t.at("model.layers.0.mlp.down_proj.scales").as<float>()[17 * 32 + 3] = std::numeric_limits<float>::infinity();
  const auto model = Checkpoint::open(make("m", config, t));
  const Pieces pieces = model->pieces(0, {Role::down});
  ASSERT_EQ(pieces.count, 3);
  EXPECT_EQ(message([&] { pieces.read(1); }), "no error");
  EXPECT_TRUE(message([&] {
                pieces.read(2);
              }).starts_with("[open] D/m: model.layers.0.mlp.down_proj: the scale of row 3, group 17 is inf; "));
}

/// Everything of `source`, matrices of blocks quantized, up of block 1 left alone if `skip`.
void put_all(CheckpointSink& sink, const Checkpoint& source, const QuantSpec& quant, bool skip = false) {
  for (const auto& [block, param] : params_of(source.spec())) {
    const Weight w = source.weight(block, param);
    const bool keep = !is_matrix(param) || (skip && block == 1 && param.role == Role::up);
    sink.put(block, param, keep ? w : Weight(quantize(std::get<Tensor>(w).to(DType::f32), quant)));
    if (has_bias(source.spec(), block, param)) sink.put_bias(block, param, source.bias(block, param));
  }
}

TEST_F(AutoAwqTest, WrittenFolderIsTheSameModel) {
  const QuantSpec quant{.group_size = 16};
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::bf16)));
  for (const char* name : {"out", "again"}) {
    const auto sink = create_autoawq(root_ / name, source->config(), source->spec(), quant);
    put_all(*sink, *source, quant);
    sink->put_side_file({"tokenizer.json", "{}", {}});
    EXPECT_FALSE(fs::exists(root_ / name));
    sink->finish();
  }
  const auto back = Checkpoint::open(root_ / "out");
  EXPECT_EQ(back->format(), "autoawq");
  for (const auto& [block, param] : params_of(source->spec())) {
    const auto w = std::get<Tensor>(source->weight(block, param));
    if (is_matrix(param)) {
      expect_same(std::get<QMatrix>(back->weight(block, param)), quantize(w.to(DType::f32), quant));
    } else {
      EXPECT_TRUE(same(std::get<Tensor>(back->weight(block, param)), w));  // BF16 stays BF16
    }
    if (has_bias(source->spec(), block, param)) {
      EXPECT_TRUE(same(back->bias(block, param), source->bias(block, param)));
    }
  }
  Json expected = awq_config();
  expected["torch_dtype"] = "float16";
  EXPECT_EQ(back->config(), expected);
  EXPECT_EQ(read_text(root_ / "out/tokenizer.json"), "{}");
  for (const char* file : {"model.safetensors", "config.json"})
    EXPECT_EQ(read_text(root_ / "out" / file), read_text(root_ / "again" / file));
}

/// A folder whose head is `head`, for a source whose embedding is its head: a sink writes what it is given.
fs::path write_with_head(const fs::path& to, const Checkpoint& source, const QMatrix& head) {
  const QuantSpec quant{.group_size = 16};
  Json config = source.config();
  config["tie_word_embeddings"] = false;
  const auto sink = create_autoawq(to, config, spec_of(config), quant);
  put_all(*sink, source, quant);
  sink->put(-1, {Role::head}, head);
  sink->finish();
  return to;
}

TEST_F(AutoAwqTest, QuantizedHeadComesBackExactly) {
  Json config = tiny_config();
  config["vocab_size"] = 136;
  config["tie_word_embeddings"] = true;
  const auto source = Checkpoint::open(make("m", config, float_tensors(config, DType::f16)));
  for (int bits : {4, 8}) {
    const QMatrix head = random_matrix(136, 32, {.bits = bits, .group_size = 16}, 8);
    const auto back = Checkpoint::open(write_with_head(root_ / std::to_string(bits), *source, head));
    expect_same(std::get<QMatrix>(back->weight(-1, {Role::head})), head);
    expect_pieces_are_the_weights(*back);
    EXPECT_EQ(back->config()["quantization_config"]["lm_head"], bits == 4 ? Json(true) : Json({{"bits", 8}}));
    EXPECT_EQ(back->config()["quantization_config"]["bits"], 4);
    EXPECT_EQ(back->config()["quantization_config"]["modules_to_not_convert"], nullptr);
    EXPECT_TRUE(
        same(std::get<Tensor>(back->weight(-1, {Role::embed})), std::get<Tensor>(source->weight(-1, {Role::embed}))));
    std::map<std::string, std::string> types;
    for (const TensorInfo& t : back->tensors()) types[t.name] = t.type + " " + t.shape.text();
    EXPECT_EQ(types.at("lm_head.qweight"), bits == 4 ? "I32 [32, 17]" : "I32 [32, 34]");
    EXPECT_EQ(types.at("lm_head.qzeros"), bits == 4 ? "I32 [2, 17]" : "I32 [2, 34]");
    EXPECT_EQ(types.at("lm_head.scales"), "F16 [2, 136]");
    EXPECT_FALSE(types.contains("lm_head.weight"));
  }
}

TEST_F(AutoAwqTest, HeadMustBeWhatTheConfigSays) {
  TensorMap t = awq_tensors(16);
  const AutoAwqTensors head = pack_autoawq(random_matrix(24, 32, {.group_size = 16}, 8));
  t.erase("lm_head.weight");
  t["lm_head.qweight"] = head.qweight;
  t["lm_head.qzeros"] = head.qzeros;
  t["lm_head.scales"] = head.scales;
  Json config = awq_config();
  EXPECT_EQ(open_error(make("unsaid", config, t)),
            "[open] D/unsaid/config.json: quantization_config's \"lm_head\" should be true (4 bits) or {\"bits\": 8}, "
            "as there is a tensor lm_head.qweight, but is false");
  config["quantization_config"]["lm_head"] = true;
  EXPECT_EQ(open_error(make("said", config, t)), "no error");
  EXPECT_EQ(open_error(make("absent", config, awq_tensors(16))),
            "[open] D/absent: tensor lm_head.qweight is missing; is the folder complete, and of the model that its "
            "config.json describes?");
  config["tie_word_embeddings"] = true;
  EXPECT_EQ(open_error(make("tied", config, t)),
            "[open] D/tied/config.json: quantization_config's \"lm_head\" should be false, as \"tie_word_embeddings\" "
            "is true, but is true");
  config["tie_word_embeddings"] = false;
  config["quantization_config"]["lm_head"] = {{"bits", 8}};
  EXPECT_EQ(open_error(make("bytes", config, t)),
            "[open] D/bytes/model.safetensors: tensor lm_head.qweight has shape [32, 3], but config.json makes it "
            "[32, 6]; are they of the same model?");
}

TEST_F(AutoAwqTest, TypesAndNamesInTheFile) {
  const QuantSpec quant{.group_size = 16};
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::f32)));
  const auto sink = create_autoawq(root_ / "out", source->config(), source->spec(), quant);
  put_all(*sink, *source, quant);
  sink->finish();
  std::map<std::string, std::string> types;
  for (const TensorInfo& t : Checkpoint::open(root_ / "out")->tensors()) types[t.name] = t.type + " " + t.shape.text();
  EXPECT_EQ(types.at("model.layers.0.self_attn.k_proj.qweight"), "I32 [32, 2]");
  EXPECT_EQ(types.at("model.layers.0.self_attn.k_proj.qzeros"), "I32 [2, 2]");
  EXPECT_EQ(types.at("model.layers.0.self_attn.k_proj.scales"), "F16 [2, 16]");
  EXPECT_EQ(types.at("model.layers.0.self_attn.k_proj.bias"), "F16 [16]");
  EXPECT_EQ(types.at("model.layers.0.input_layernorm.weight"), "F32 [32]");
  EXPECT_FALSE(types.contains("model.layers.0.self_attn.k_proj.weight"));
}

TEST_F(AutoAwqTest, ShardsHoldTheSameTensors) {
  const QuantSpec quant{.group_size = 16};
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::f16)));
  const auto sink = create_autoawq(root_ / "out", source->config(), source->spec(), quant, 4000);
  put_all(*sink, *source, quant);
  sink->finish();
  EXPECT_TRUE(fs::exists(root_ / "out/model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(root_ / "out/model.safetensors"));
  uint64_t total = 0, files = 0;
  for (const auto& entry : fs::directory_iterator(root_ / "out")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    const SafetensorsFile shard{MappedFile(entry)};
    uint64_t bytes = 0;
    for (const auto& [name, e] : shard.entries()) bytes += e.end - e.begin;
    EXPECT_LE(bytes, 4000u);
  }
  const auto back = Checkpoint::open(root_ / "out");
  for (const TensorInfo& t : back->tensors()) total += t.bytes;
  EXPECT_GE(files, total / 4000 + 1);
  EXPECT_EQ(Json::parse(read_text(root_ / "out/model.safetensors.index.json")).at("metadata").at("total_size"), total);
  expect_same(std::get<QMatrix>(back->weight(1, {Role::down})),
              quantize(std::get<Tensor>(source->weight(1, {Role::down})).to(DType::f32), quant));
}

// A process ends after `puts` parameters were put, of which its last state has seen one less; in `finish` where they
// are all.
TEST_F(AutoAwqTest, ASinkGoesOnWhereAnotherProcessEnded) {
  const QuantSpec quant{.group_size = 16};
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::f16)));
  const auto open = [&](const fs::path& name) {
    return create_autoawq({root_ / name, root_ / (name.string() + ".work")}, source->config(), source->spec(), quant,
                          4000);
  };
  const auto put = [&](CheckpointSink& sink, size_t i) {
    const auto [block, param] = params_of(source->spec())[i];
    const Weight w = source->weight(block, param);
    sink.put(block, param, is_matrix(param) ? Weight(quantize(std::get<Tensor>(w).to(DType::f32), quant)) : w);
    if (has_bias(source->spec(), block, param)) sink.put_bias(block, param, source->bias(block, param));
  };
  const size_t all = params_of(source->spec()).size();
  const auto whole = open("whole");
  for (size_t i = 0; i < all; ++i) put(*whole, i);
  whole->finish();
  for (size_t puts = 1; puts <= all; ++puts) {
    const std::string name = fmt::format("out-{}", puts);
    Json state;
    {
      const auto sink = open(name);
      for (size_t i = 0; i < puts; ++i) {
        if (i + 1 == puts) state = Json::parse(sink->state().dump());
        put(*sink, i);
      }
      if (puts == all) {  // shards have their final names, but the folder does not
        state = Json::parse(sink->state().dump());
        fs::create_directory(root_ / name);
        EXPECT_NE(message([&] { sink->finish(); }), "");
        fs::remove(root_ / name);
      }
    }
    const auto sink = open(name);
    sink->resume(state);
    for (size_t i = puts == all ? all : puts - 1; i < all; ++i) put(*sink, i);
    sink->finish();
    for (const auto& entry : fs::directory_iterator(root_ / "whole"))
      EXPECT_EQ(read_text(root_ / name / entry.path().filename()), read_text(entry.path())) << name << entry.path();
  }
}

TEST_F(AutoAwqTest, LayersLeftFloatAreListed) {
  const QuantSpec quant{.group_size = 16};
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::f16)));
  const auto sink = create_autoawq(root_ / "out", source->config(), source->spec(), quant);
  put_all(*sink, *source, quant, true);
  sink->finish();
  const auto back = Checkpoint::open(root_ / "out");
  EXPECT_EQ(back->config().at("quantization_config").at("modules_to_not_convert"), Json({kUp}));
  EXPECT_TRUE(std::holds_alternative<Tensor>(back->weight(1, {Role::up})));
}

TEST_F(AutoAwqTest, SinkRefusesWhatLoadersCannotRead) {
  Json config = tiny_config();
  config["intermediate_size"] = 68;  // 4 more than a multiple of 8
  const ModelSpec spec = spec_of(config);
  const auto sink = create_autoawq(root_ / "out", config, spec, {.group_size = 16});
  EXPECT_EQ(message([&] { sink->put(0, {Role::up}, random_matrix(68, 32, {.group_size = 16}, 1)); }),
            "[write] model.layers.0.mlp.up_proj: 68 rows; this format packs 8 together, so their number must be a "
            "multiple of that");
  EXPECT_EQ(message([&] { sink->put(0, {Role::q}, random_matrix(32, 32, {.group_size = 32}, 1)); }),
            "[write] model.layers.0.self_attn.q_proj: its groups have 32 columns, but the file's have 16");
  EXPECT_EQ(message([&] { sink->put(-1, {Role::embed}, random_matrix(24, 32, {.group_size = 16}, 1)); }),
            "[write] model.embed_tokens: this format has no quantized embedding; leave it in 16 bits");
  EXPECT_EQ(message([&] { sink->put(0, {Role::q}, random_matrix(32, 32, {.bits = 8, .group_size = 16}, 1)); }),
            "[write] model.layers.0.self_attn.q_proj: the AutoAWQ format holds 4 bits a weight, not 8");
  Tensor bias = Tensor::zeros({32}, DType::f32);
  bias.as<float>()[5] = 70000.f;
  EXPECT_EQ(message([&] { sink->put_bias(0, {Role::q}, bias); }),
            "[write] model.layers.0.self_attn.q_proj.bias: element 5 does not fit into F16, in which this format "
            "stores biases");
  EXPECT_EQ(message([&] { create_autoawq(root_ / "three", config, spec, {.bits = 3}); }),
            "[write] the AutoAWQ format holds 4 bits a weight, not 3");
}

TEST_F(AutoAwqTest, AbandonedSinkLeavesNothing) {
  {
    const auto sink = create_autoawq(root_ / "out", tiny_config(), spec_of(tiny_config()), {.group_size = 16});
    sink->put(-1, {Role::final_norm}, numbered({32}, DType::f16, 0));
    EXPECT_FALSE(fs::is_empty(root_));
  }
  EXPECT_TRUE(fs::is_empty(root_));
}

}  // namespace
}  // namespace awq
