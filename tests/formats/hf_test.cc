#include <gtest/gtest.h>

#include "base/numeric.h"
#include "formats/folder.h"
#include "formats/folder_fixture.h"
#include "formats/pieces_fixture.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class HfTest : public FolderTest {};

// An embedding of 1.3 MB is three bands of rows; all are read again after their pages were given back.
TEST_F(HfTest, PiecesAreTheMatrix) {
  Json config = tiny_config();
  config["vocab_size"] = 20001;
  const auto model = Checkpoint::open(make("m", config, float_tensors(config, DType::bf16)));
  EXPECT_EQ(expect_pieces_are_the_weights(*model), 3);
  EXPECT_EQ(expect_pieces_are_the_weights(*model), 3);
}

TEST_F(HfTest, EveryParameterIsTheTensorOfItsName) {
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const TensorMap tensors = float_tensors(tiny_config(), dtype);
    const auto model = Checkpoint::open(make("m" + std::string(name_of(dtype)), tiny_config(), tensors));
    EXPECT_EQ(model->format(), "hf");
    EXPECT_EQ(model->config(), tiny_config());
    EXPECT_EQ(model->tensors().size(), tensors.size());
    const auto get = [&](int block, Role role) { return std::get<Tensor>(model->weight(block, {role})); };
    EXPECT_TRUE(same(get(-1, Role::embed), tensors.at("model.embed_tokens.weight")));
    EXPECT_TRUE(same(get(-1, Role::final_norm), tensors.at("model.norm.weight")));
    EXPECT_TRUE(same(get(-1, Role::head), tensors.at("lm_head.weight")));
    EXPECT_TRUE(same(get(1, Role::k), tensors.at("model.layers.1.self_attn.k_proj.weight")));
    EXPECT_TRUE(same(get(0, Role::mlp_norm), tensors.at("model.layers.0.post_attention_layernorm.weight")));
    EXPECT_TRUE(same(model->bias(1, {Role::v}), tensors.at("model.layers.1.self_attn.v_proj.bias").to(DType::f32)));
  }
}

TEST_F(HfTest, OpensEveryFamilysReferenceModel) {
  int opened = 0;
  for (const auto& entry : fs::directory_iterator(AWQ_TEST_DIR "/golden")) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    const auto model = Checkpoint::open(entry.path());
    for (const auto& [block, param] : params_of(model->spec()))
      EXPECT_EQ(std::get<Tensor>(model->weight(block, param)).shape(), shape_of(model->spec(), block, param));
    ++opened;
  }
  EXPECT_GE(opened, 7);
}

class FurtherTokens : public FolderTest {
 protected:
  FurtherTokens() : config_(Json::parse(read_text(kModel / "config.json"))) {
    const SafetensorsFolder files(kModel);
    for (const auto& [name, entry] : files.files()[0].entries()) tensors_[name] = files.tensor(name).clone();
    tensors_["model.layers.2.eh_proj.weight"] = numbered({32, 64}, DType::bf16, 1);
  }
  const fs::path kModel = AWQ_TEST_DIR "/golden/glm4-moe";
  Json config_;
  TensorMap tensors_;
};

TEST_F(FurtherTokens, HaveABlockThatIsDropped) {
  config_["num_nextn_predict_layers"] = 1;
  const auto model = Checkpoint::open(make("m", config_, tensors_));
  int dropped = 0;
  for (const TensorInfo& t : model->tensors())
    if (t.use == TensorUse::dropped) {
      EXPECT_EQ(t.name, "model.layers.2.eh_proj.weight");
      EXPECT_EQ(t.reason,
                "of a block beyond the model's, for predicting further tokens, which this version does not do");
      ++dropped;
    }
  EXPECT_EQ(dropped, 1);
}

TEST_F(FurtherTokens, AreRefusedWhereTheConfigSaysNothingOfThem) {
  EXPECT_NE(open_error(make("m", config_, tensors_)).find("has no tensor like \"model.layers.2.eh_proj.weight\""),
            std::string::npos);
}

// It chooses experts, so it keeps its bits where other biases become F16.
TEST_F(FurtherTokens, TheRoutersCorrectionStaysAsItIs) {
  Tensor& correction = tensors_.at("model.layers.1.mlp.gate.e_score_correction_bias");
  correction = numbered({6}, DType::f32, 3);
  correction.as<float>()[1] = 0x1.234567p-3f;
  tensors_.erase("model.layers.2.eh_proj.weight");
  const auto model = Checkpoint::open(make("m", config_, tensors_));
  const auto sink = create_autoawq(root_ / "out", config_, model->spec(), {.bits = 4, .group_size = 32});
  for (const auto& [block, p] : params_of(model->spec())) {
    sink->put(block, p, model->weight(block, p));
    if (has_bias(model->spec(), block, p)) sink->put_bias(block, p, model->bias(block, p));
  }
  sink->finish();
  const Tensor kept = Checkpoint::open(root_ / "out")->bias(1, {Role::router});
  EXPECT_TRUE(same(kept, correction));
}

TEST_F(HfTest, KeysOfABlockThatBorrowsThemAreDropped) {
  const auto model = Checkpoint::open(AWQ_TEST_DIR "/golden/gemma4");
  std::vector<std::string> dropped;
  for (const TensorInfo& t : model->tensors())
    if (t.use == TensorUse::dropped) dropped.push_back(t.name + ": " + t.reason);
  EXPECT_EQ(dropped,
            std::vector<std::string>{"model.language_model.layers.3.self_attn.k_proj.weight: computed without: "
                                     "block 3 reads keys and values of block 1"});
}

// Published in one tensor, and in other files one by one.
TEST_F(HfTest, ExpertsMayLieApart) {
  const fs::path golden = AWQ_TEST_DIR "/golden/qwen3-5-moe";
  const SafetensorsFolder files(golden);
  TensorMap tensors;
  const auto put = [&](const std::string& expert, const Tensor& w) { tensors[expert + "_proj.weight"] = w.clone(); };
  for (const auto& [name, entry] : files.files()[0].entries()) {
    const Tensor t = files.tensor(name);
    const size_t kind = name.find("gate_up_proj"), down = name.find("experts.down_proj");
    if (kind == name.npos && down == name.npos) tensors[name] = t.clone();
    for (int64_t e = 0; (kind != name.npos || down != name.npos) && e < t.shape()[0]; ++e) {
      const Tensor one = t.rows(e, e + 1).reshaped({t.shape()[1], t.shape()[2]});
      const std::string begin = name.substr(0, name.find("experts.") + 8) + std::to_string(e) + ".";
      if (down != name.npos) put(begin + "down", one);
      if (kind != name.npos) put(begin + "gate", one.rows(0, one.shape()[0] / 2));
      if (kind != name.npos) put(begin + "up", one.rows(one.shape()[0] / 2, one.shape()[0]));
    }
  }
  const auto whole = Checkpoint::open(golden),
             apart = Checkpoint::open(make("apart", Json::parse(read_text(golden / "config.json")), tensors));
  for (const auto& [block, p] : params_of(whole->spec()))
    EXPECT_TRUE(same(std::get<Tensor>(apart->weight(block, p)), std::get<Tensor>(whole->weight(block, p))))
        << block << ' ' << name_of(p.role) << ' ' << p.expert;
}

TEST_F(HfTest, OpensAPublishedModel) {
  const fs::path folder = AWQ_SHARED_DIR "/data/models/tinystories-656k";
  if (!fs::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const auto model = Checkpoint::open(folder);
  EXPECT_EQ(model->spec().blocks.size(), 2u);
  EXPECT_EQ(std::get<Tensor>(model->weight(-1, {Role::embed})).shape(),
            Shape({2048, 128}));  // stored as lm_head.weight
  std::vector<std::string> names;
  for (const SideFile& file : model->side_files()) names.push_back(file.name);
  EXPECT_EQ(names, (std::vector<std::string>{"generation_config.json", "special_tokens_map.json", "tokenizer.json",
                                             "tokenizer_config.json"}));
}

TEST_F(HfTest, RefusesWhatIsNoModel) {
  EXPECT_EQ(open_error(root_ / "absent"), "[open] D/absent: no such file or folder; check the path");
  EXPECT_EQ(open_error(root_), "[open] D: there is no config.json; a model folder has one beside its *.safetensors");
  write("weights.txt", "x");
  EXPECT_EQ(open_error(root_ / "weights.txt"),
            "[open] D/weights.txt: no known format; give a folder with config.json and *.safetensors, or a .gguf file");
  write("config.json", "{\"a\":");
  EXPECT_EQ(open_error(root_),
            "[open] D/config.json: no valid JSON at byte 6; perhaps a download was cut off: fetch it again");
  write("config.json", "[1]");
  EXPECT_EQ(open_error(root_), "[open] D/config.json: a JSON object is expected, not [1]");
  write("config.json", R"({"architectures":"Qwen2ForCausalLM"})");
  EXPECT_EQ(open_error(root_),
            "[open] D/config.json: \"architectures\" should be a list with a name, but is \"Qwen2ForCausalLM\"");
  write("config.json", "{}");
  EXPECT_EQ(open_error(root_), "[open] D/config.json: \"architectures\" should be a list with a name, but is missing");
  write("config.json", tiny_config().dump());
  EXPECT_EQ(open_error(root_),
            "[open] D: there is neither model.safetensors nor model.safetensors.index.json; is the download complete?");
}

TEST_F(HfTest, PicklesAreRefusedWithTheWayOut) {
  write("config.json", tiny_config().dump());
  write("pytorch_model.bin", "\x80\x02.");
  EXPECT_EQ(
      open_error(root_),
      "[open] D: the weights are pickles (pytorch_model.bin); reading one can run any code that its author put there. "
      "Convert them once, where you trust them: python3 -c \"from transformers import AutoModelForCausalLM as M; "
      "M.from_pretrained('D', torch_dtype='auto').save_pretrained('D-safetensors')\"");
}

TEST_F(HfTest, OtherQuantizationsAreRefused) {
  Json config = tiny_config();
  config["quantization_config"] = {{"quant_method", "quip"}, {"bits", 4}};
  EXPECT_EQ(open_error(make("m", config, float_tensors(tiny_config(), DType::f16))),
            "[open] D/m/config.json: the model is quantized in a way that this version cannot read, "
            "\"quantization_config\" is "
            "{\"bits\":4,\"quant_method\":\"quip\"}; give the float model that it was made of");
}

TEST_F(HfTest, ConfigOfTheWrongKindIsAnError) {
  Json config = tiny_config();
  config["layer_types"] = 7;
  const std::string error = open_error(make("m", config, float_tensors(tiny_config(), DType::f16)));
  EXPECT_EQ(error.substr(0, 1), "[") << error;
}

TEST_F(HfTest, TensorsMustBeExactlyTheModels) {
  const std::string up = "model.layers.1.mlp.up_proj.weight";
  const TensorMap good = float_tensors(tiny_config(), DType::f16);
  TensorMap t = good;
  t.erase(up);
  EXPECT_EQ(open_error(make("missing", tiny_config(), t)),
            "[open] D/missing: tensor model.layers.1.mlp.up_proj.weight is missing; is the folder complete, and of the "
            "model that its "
            "config.json describes?");
  t = good;
  t.erase("model.layers.1.self_attn.v_proj.bias");
  EXPECT_EQ(open_error(make("missing-bias", tiny_config(), t)),
            "[open] D/missing-bias: tensor model.layers.1.self_attn.v_proj.bias is missing; is the folder complete, "
            "and of the model that "
            "its config.json describes?");
  t = good;
  t[up] = numbered({32, 64}, DType::f16, 0);
  EXPECT_EQ(open_error(make("shape", tiny_config(), t)),
            "[open] D/shape/model.safetensors: tensor model.layers.1.mlp.up_proj.weight has shape [32, 64], but "
            "config.json makes it "
            "[64, 32]; are they of the same model?");
  t = good;
  t[up] = Tensor::zeros({64, 32}, DType::i16);
  EXPECT_EQ(open_error(make("dtype", tiny_config(), t)),
            "[open] D/dtype/model.safetensors: tensor model.layers.1.mlp.up_proj.weight is \"I16\", but F32 or F16 or "
            "BF16 is expected");
  t = good;
  for (const char* name : {"a", "b", "c", "d"})
    t[std::string("model.layers.1.mlp.") + name] = good.at("model.norm.weight");
  EXPECT_EQ(open_error(make("others", tiny_config(), t)),
            "[open] D/others: Qwen2ForCausalLM has no tensor like \"model.layers.1.mlp.a\", \"model.layers.1.mlp.b\", "
            "\"model.layers.1.mlp.c\" and 1 more; the model would be computed without them");
}

TEST_F(HfTest, KnownLeftoversAreIgnored) {
  Json config = tiny_config();
  TensorMap t = float_tensors(config, DType::f16);
  t["model.layers.0.self_attn.rotary_emb.inv_freq"] = Tensor::zeros({4}, DType::f32);
  EXPECT_EQ(open_error(make("inv-freq", config, t)), "no error");
  config["tie_word_embeddings"] = true;
  EXPECT_EQ(open_error(make("tied", config, t)), "no error");
  t.erase("model.embed_tokens.weight");
  const auto model = Checkpoint::open(make("head-only", config, t));
  EXPECT_TRUE(same(std::get<Tensor>(model->weight(-1, {Role::embed})), t.at("lm_head.weight")));
}

TEST_F(HfTest, SideFilesAreWhatIsNotWeights) {
  const fs::path m = make("m", tiny_config(), float_tensors(tiny_config(), DType::f16));
  for (const char* name : {"tokenizer.json", "chat_template.jinja", "LICENSE", "pytorch_model.bin", "rng.pt", "old.pth",
                           "x.gguf", "pytorch_model.bin.index.json", "quant_config.json", "consolidated.safetensors"})
    write("m/" + std::string(name), name);
  fs::create_directory(m / "original");
  fs::create_symlink("tokenizer.json", m / "link.json");  // the hub's cache is made of links
  const auto model = Checkpoint::open(m);
  std::vector<std::string> names;
  for (const SideFile& file : model->side_files()) names.push_back(file.name);
  EXPECT_EQ(names, (std::vector<std::string>{"LICENSE", "chat_template.jinja", "link.json", "tokenizer.json"}));
  EXPECT_EQ(model->left_out(), (std::vector<std::string>{"consolidated.safetensors", "old.pth", "original/",
                                                         "pytorch_model.bin", "rng.pt", "x.gguf"}));
  EXPECT_EQ(read_side_file(*model, "tokenizer.json"), "tokenizer.json");
  EXPECT_EQ(read_side_file(*model, "absent.json"), "");
}

void put_all(CheckpointSink& sink, const Checkpoint& model) {
  for (const auto& [block, param] : params_of(model.spec())) {
    sink.put(block, param, model.weight(block, param));
    if (has_bias(model.spec(), block, param)) sink.put_bias(block, param, model.bias(block, param));
  }
}

TEST_F(HfTest, WrittenFolderIsTheSameModel) {
  Json config = tiny_config();
  config["quantization_config"] = {{"quant_method", "awq"}};
  config["dtype"] = "bfloat16";
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::f16)));
  for (const char* name : {"out", "again"}) {
    const auto sink = create_hf(root_ / name, config, source->spec());
    put_all(*sink, *source);
    sink->put_side_file({"tokenizer.json", "old", {}});
    sink->put_side_file({"tokenizer.json", "new", {}});
    EXPECT_FALSE(fs::exists(root_ / name));
    sink->finish();
  }
  const auto back = Checkpoint::open(root_ / "out");
  for (const auto& [block, param] : params_of(source->spec())) {
    EXPECT_TRUE(same(std::get<Tensor>(back->weight(block, param)), std::get<Tensor>(source->weight(block, param))));
    if (has_bias(source->spec(), block, param)) {
      EXPECT_TRUE(same(back->bias(block, param), source->bias(block, param)));
    }
  }
  config.erase("quantization_config");
  config["torch_dtype"] = config["dtype"] = "float16";
  EXPECT_EQ(back->config(), config);
  EXPECT_EQ(read_side_file(*back, "tokenizer.json"), "new");
  for (const char* file : {"model.safetensors", "config.json"})
    EXPECT_EQ(read_text(root_ / "out" / file), read_text(root_ / "again" / file));
}

TEST_F(HfTest, QuantizedMatricesAreWrittenAsTheirExactValues) {
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::bf16)));
  const QMatrix q = quantize(numbered({64, 32}, DType::f32, 3), {.group_size = 32});
  const auto sink = create_hf(root_ / "out", tiny_config(), source->spec());
  put_all(*sink, *source);
  EXPECT_EQ(message([&] { sink->put(1, {Role::up}, q); }),
            "[write] tensor model.layers.1.mlp.up_proj.weight was written already");
  const auto other = create_hf(root_ / "other", tiny_config(), source->spec());
  for (const auto& [block, param] : params_of(source->spec())) {
    const bool up = block == 1 && param.role == Role::up;
    other->put(block, param, up ? Weight(q) : source->weight(block, param));
    if (has_bias(source->spec(), block, param)) other->put_bias(block, param, source->bias(block, param));
  }
  other->finish();
  const auto back = Checkpoint::open(root_ / "other");
  EXPECT_TRUE(same(std::get<Tensor>(back->weight(1, {Role::up})), dequantize(q)));
  EXPECT_EQ(back->config().at("torch_dtype"), "float32");  // BF16 and F32 matrices
}

TEST_F(HfTest, SinkRefusesAnIncompleteOrWrongModel) {
  const auto source = Checkpoint::open(make("m", tiny_config(), float_tensors(tiny_config(), DType::f16)));
  const auto sink = create_hf(root_ / "out", tiny_config(), source->spec());
  EXPECT_EQ(message([&] {
              sink->put(0, {Role::up}, numbered({32, 64}, DType::f16, 0));
            }),
            "[write] model.layers.0.mlp.up_proj has shape [32, 64], but the model makes it [64, 32]");
  EXPECT_EQ(message([&] { sink->put_bias(0, {Role::up}, numbered({64}, DType::f32, 0)); }),
            "[write] model.layers.0.mlp.up_proj: the model has no bias of shape [64] there");
  EXPECT_EQ(message([&] { sink->put_bias(0, {Role::q}, numbered({64}, DType::f32, 0)); }),
            "[write] model.layers.0.self_attn.q_proj: the model has no bias of shape [64] there");
  for (const char* name : {"config.json", "model.safetensors", "x.bin", "model.safetensors.index.json"})
    EXPECT_EQ(
        message([&] {
          sink->put_side_file({name, "", {}});
        }),
        "[write] \"" + std::string(name) + "\" is no side file: the name stands for weights or what describes them");
  EXPECT_EQ(message([&] {
              sink->put_side_file({"../x", "", {}});
            }),
            "[write] \"../x\" is no file name: a name without directories is needed");
  for (const auto& [block, param] : params_of(source->spec())) sink->put(block, param, source->weight(block, param));
  EXPECT_EQ(
      message([&] { sink->finish(); }),
      "[write] model.layers.0.self_attn.q_proj: its weight or bias was not given, so the model would be incomplete");
  EXPECT_FALSE(fs::exists(root_ / "out"));
}

TEST_F(HfTest, ExistingOutputIsRefusedBeforeAnyWork) {
  fs::create_directory(root_ / "out");
  EXPECT_EQ(message([&] { create_hf(root_ / "out", tiny_config(), spec_of(tiny_config())); }),
            "[write] D/out: exists already; remove it or choose another output");
}

}  // namespace
}  // namespace awq
