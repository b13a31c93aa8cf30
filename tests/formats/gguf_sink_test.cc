// GGUF files that awq writes, read again; and their blocks, against those of the Python package gguf.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "formats/format.h"
#include "formats/gguf_metadata.h"
#include "formats/gguf_round.h"
#include "formats/gguf_tokenizer.h"
#include "formats/gguf_vocabulary.h"
#include "formats/params.h"
#include "io/gguf.h"
#include "io/gguf_builder.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class GgufSinkTest : public testing::Test {
 protected:
  GgufSinkTest() : root_(fs::temp_directory_path() / ("awq-gguf-sink-" + std::to_string(::getpid()))) {
    fs::create_directory(root_);
  }
  ~GgufSinkTest() override { fs::remove_all(root_); }

  /// Everything of the source, as it is stored; every other parameter by a process of its own where `resumed`.
  fs::path write(const Checkpoint& source, const char* format, bool resumed = false) const {
    const OutputPlace place{root_ / "out", root_ / "work"};
    const auto begun = [&] {
      auto sink = find_format(format).create(place, source.config(), source.spec(), {});
      for (const SideFile& f : source.side_files()) sink->put_side_file(f);
      sink->begin();
      return sink;
    };
    auto sink = begun();
    for (const auto& [block, p] : params_of(source.spec())) {
      const Weight w = source.weight(block, p);
      sink->put(block, p, w);
      if (has_bias(source.spec(), block, p)) sink->put_bias(block, p, source.bias(block, p));
      if (!resumed) continue;
      sink->sync();
      const Json state = sink->state();
      if (p.role == Role::embed || block >= 0)  // what is put after the state was taken is cut off again
        sink->put(-1, {Role::final_norm}, Tensor::zeros({source.spec().dim}, DType::f32));
      sink = nullptr;
      sink = begun();
      sink->resume(state);
    }
    sink->finish();
    return root_ / "out";
  }

  fs::path root_;
};

std::unique_ptr<Checkpoint> gguf_model(const std::string& family) {
  return Checkpoint::open(AWQ_TEST_DIR "/fuzz/corpus/gguf/" + family + ".gguf");
}

bool identical(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::equal(a.data(), a.data() + a.bytes(), b.data());
}

void expect_same(const Checkpoint& a, const Checkpoint& b) {
  Json config = a.config();  // of a model in which every block has a window, theta is that of none
  if (a.spec().blocks[0].attention.window && a.spec().arch == "Gemma3ForCausalLM")
    config["rope_theta"] = b.config()["rope_theta"];
  if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = 0;  // are not written
  EXPECT_EQ(config, b.config());
  for (const auto& [block, p] : params_of(a.spec())) {
    SCOPED_TRACE(base_name(a.spec(), block, p));
    EXPECT_TRUE(identical(std::get<Tensor>(a.weight(block, p)), std::get<Tensor>(b.weight(block, p))));
    if (has_bias(a.spec(), block, p)) {
      EXPECT_TRUE(identical(a.bias(block, p), b.bias(block, p)));
    }
  }
  const auto sides = a.side_files(), others = b.side_files();
  ASSERT_EQ(sides.size(), others.size());
  for (size_t i = 0; i < sides.size(); ++i) EXPECT_EQ(Json::parse(sides[i].bytes), Json::parse(others[i].bytes));
}

TEST_F(GgufSinkTest, EveryFamilyIsReadAgainAsItWas) {
  for (const char* family : {"llama", "qwen2", "qwen3", "gemma3", "glm4moe", "gpt-oss"}) {
    SCOPED_TRACE(family);
    const auto source = gguf_model(family);
    const fs::path out = write(*source, "gguf-f16");
    const auto back = Checkpoint::open(out);
    EXPECT_EQ(back->format(), "gguf");
    expect_same(*source, *back);
    fs::remove_all(out);
  }
}

TEST_F(GgufSinkTest, AWriterThatGoesOnGivesTheSameBytes) {
  const auto source = gguf_model("llama");
  const std::string whole = read_text(write(*source, "gguf-f16") / "model.gguf");
  fs::remove_all(root_ / "out");
  EXPECT_EQ(read_text(write(*source, "gguf-f16", true) / "model.gguf"), whole);
}

TEST(GgmlRounded, GivesTheBlocksOfThePackage) {
  const Gguf file(MappedFile(AWQ_TEST_DIR "/io/fixtures/ggml_rounded.gguf"));
  const Tensor w = file.tensor("F32");
  for (const char* name : {"Q4_0", "Q4_1", "Q8_0"}) {
    SCOPED_TRACE(name);
    const QMatrix q = ggml_rounded(w, name, "m");
    const GgmlType& type = ggml_type(name);
    std::vector<std::byte> bytes(size_t(q.scales.shape().elements() * type.bytes));
    type.codes.join(q.codes.as<uint8_t>().data(), q.scales.as<float>().data(),
                    q.offsets ? q.offsets.as<float>().data() : nullptr, q.scales.shape().elements(), bytes.data());
    const auto expected = file.at(name).data;
    ASSERT_EQ(bytes.size(), expected.size());
    EXPECT_EQ(std::memcmp(bytes.data(), expected.data(), bytes.size()), 0);
  }
}

TEST(GgmlRounded, RefusesWhatIsNotFinite) {
  Tensor w = Tensor::zeros({1, 32}, DType::f32);
  w.as<float>()[5] = 1e6f;  // / 8 is beyond 65504
  EXPECT_NE(error_of([&] { ggml_rounded(w, "Q4_0", "m"); }).find("beyond the range of F16"), std::string::npos);
  w.as<float>()[5] = NAN;
  EXPECT_NE(error_of([&] { ggml_rounded(w, "Q8_0", "m"); }).find("not finite"), std::string::npos);
}

// Of the real model, where it is there: 49,152 tokens, 48,900 merges, a chat template.
TEST(GgufVocabulary, RealGguf) {
  const char* path = std::getenv("AWQ_SMOLLM2_GGUF");
  if (!path || !*path) GTEST_SKIP() << "AWQ_SMOLLM2_GGUF is not set";
  const auto source = Checkpoint::open(path);
  std::map<std::string, std::string> texts;
  for (const SideFile& f : source->side_files()) texts[f.name] = f.bytes;
  GgufMetadata m = gguf_metadata(source->spec(), source->config(), 1);
  add_gguf_tokenizer(m, texts, source->config(), source->spec());
  for (const SideFile& f : gguf_side_files(gguf_outline(m, source->spec())))
    EXPECT_EQ(Json::parse(f.bytes), Json::parse(texts.at(f.name))) << f.name;
}

}  // namespace
}  // namespace awq
