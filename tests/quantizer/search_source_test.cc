#include "quantizer/search_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <random>

#include "awq/error.h"
#include "formats/load.h"
#include "formats/params.h"
#include "io/json.h"
#include "kernels/registry.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

const fs::path kTests = AWQ_TEST_DIR;
const fs::path kFixtures = kTests / "quantizer" / "fixtures";

std::unique_ptr<Checkpoint> golden(const std::string& family) { return Checkpoint::open(kTests / "golden" / family); }

std::string read_bytes(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Search : public testing::Test {
 protected:
  Search() : folder_(fs::temp_directory_path() / ("awq-search-test-" + std::to_string(::getpid()))) {
    fs::create_directory(folder_);
  }
  ~Search() override { fs::remove_all(folder_); }

  fs::path written(const std::string& bytes, const std::string& name = "broken") const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  std::string message(const fs::path& file, const Checkpoint& model) const {
    try {
      const auto source = SearchSource::open(file, model);
      for (int i = 0; i < int(model.spec().blocks.size()); ++i) source->block(i);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  /// A search of the model with AWQ on noise, saved; and what it found.
  std::vector<Solution> save(const Checkpoint& model, const fs::path& file, const QuantSpec& spec) {
    std::vector<Solution> all;
    SearchWriter writer(folder_ / "so far", model, spec, "awq", "calibration-hash");
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int i = 0; i < int(model.spec().blocks.size()); ++i) {
      BlockWeights w = load_float_block(model, i, pool_);
      const Block block = upload(*dev_, w);
      Tensor hidden = Tensor::empty({64, model.spec().dim}, DType::f32);
      for (float& v : hidden.as<float>()) v = normal(random);
      const BlockCalibration c = calibrate(*dev_, host_, block, i, in_memory(hidden, 32), {}, costs_);
      all.push_back(find_method("awq").make()->solve(w, block, c, context(spec)));
      writer.put(i, all.back());
    }
    writer.finish(file);
    return all;
  }

  SolveContext context(const QuantSpec& spec) { return {spec, *dev_, host_, costs_, {}}; }
  Tensor as_f32(const BlockWeights& w, Param p) { return whole(in_type(w.pieces(p), DType::f32), pool_); }

  fs::path folder_;
  BlockCosts costs_;
  ThreadPool pool_{2};
  Host host_{pool_, kernels::select()};
  std::unique_ptr<Backend> dev_ = cpu_backend(pool_, host_.kernels);
  const QuantSpec spec_{.bits = 4, .group_size = 32};
};

// Gemma: sandwich norms; grouped-query attention with tied scales; gains of 1 + w.
TEST_F(Search, AReplayGivesTheSameMatrices) {
  for (const char* family : {"llama", "llama3", "gemma3"}) {
    const auto model = golden(family);
    const fs::path file = folder_ / family;
    const std::vector<Solution> searched = save(*model, file, spec_);
    const auto replay = make_replay(SearchSource::open(file, *model));
    size_t clipped = 0;
    for (int i = 0; i < int(searched.size()); ++i) {
      BlockWeights w = load_float_block(*model, i, pool_);
      const Block block = upload(*dev_, w);
      const Solution s = replay->solve(w, block, {}, context(spec_));
      ASSERT_EQ(s.matrices.size(), searched[size_t(i)].matrices.size());
      for (const LayerResult& l : searched[size_t(i)].layers) clipped += !l.ranges.empty();
      for (const auto& [p, q] : searched[size_t(i)].matrices) {
        EXPECT_TRUE(std::ranges::equal(q.codes.as<uint8_t>(), s.matrices.at(p).codes.as<uint8_t>()));
        EXPECT_TRUE(std::ranges::equal(q.zeros.as<uint8_t>(), s.matrices.at(p).zeros.as<uint8_t>()));
        EXPECT_TRUE(std::ranges::equal(q.scales.as<float>(), s.matrices.at(p).scales.as<float>()));
      }
    }
    EXPECT_GT(clipped, 0u);  // ranges were compared, too
  }
}

TEST_F(Search, OtherBitsUseTheScalesOnly) {
  const auto model = golden("llama");
  save(*model, folder_ / "s", spec_);
  const QuantSpec other{.bits = 8, .group_size = 32};
  const auto source = SearchSource::open(folder_ / "s", *model);
  EXPECT_TRUE(ranges_fit(*source, spec_));
  EXPECT_FALSE(ranges_fit(*source, other));
  BlockWeights w = load_float_block(*model, 0, pool_);
  const Block block = upload(*dev_, w);
  const Solution s = make_replay(SearchSource::open(folder_ / "s", *model))->solve(w, block, {}, context(other));
  for (const auto& [p, q] : s.matrices) {
    const QMatrix want = quantize(as_f32(w, p), other);  // w is folded now
    EXPECT_TRUE(std::ranges::equal(q.codes.as<uint8_t>(), want.codes.as<uint8_t>()));
  }
}

// Groups of `small` columns are cut as the larger group they lie in, larger ones as the union of what lies in them:
// on the ranges of weights that were clamped so.
TEST_F(Search, OtherGroupsAreCutAsTheGroupsTheyOverlap) {
  const auto model = golden("llama");
  save(*model, folder_ / "16", {.bits = 4, .group_size = 16});
  for (const auto& [file, searched, g] : {std::tuple(kFixtures / "llm-awq-f16.pt", 32, 16), {folder_ / "16", 16, 32}}) {
    const BlockSearch found = SearchSource::open(file, *model)->block(0);
    const QuantSpec spec{.bits = 4, .group_size = g};
    BlockWeights w = load_float_block(*model, 0, pool_);
    const Block block = upload(*dev_, w);
    const Solution s = make_replay(SearchSource::open(file, *model))->solve(w, block, {}, context(spec));
    for (const auto& [p, f] : found.ranges) {
      Tensor clamped = as_f32(w, p).clone();
      const int64_t cols = clamped.shape()[1], wide = std::max(searched, g), per_row = cols / searched;
      for (int64_t i = 0; i < clamped.shape().elements(); ++i) {
        const int64_t row = i / cols, first = i % cols / wide * wide / searched;
        Range bound = f.ranges[size_t(row * per_row + first)];
        for (int64_t n = first; n < first + wide / searched; ++n) {
          const Range r = f.ranges[size_t(row * per_row + n)];
          bound = {std::min(bound.low, r.low), std::max(bound.high, r.high)};
        }
        float& v = clamped.as<float>()[size_t(i)];
        v = std::clamp(v, bound.low, bound.high);
      }
      std::vector<Range> cut;
      for (int64_t i = 0; i < clamped.shape().elements(); i += g)
        cut.push_back(range_of(clamped.as<float>().subspan(size_t(i), size_t(g))));
      const QMatrix want = quantize(as_f32(w, p), spec, cut);
      EXPECT_TRUE(std::ranges::equal(s.matrices.at(p).codes.as<uint8_t>(), want.codes.as<uint8_t>()));
    }
  }
}

TEST_F(Search, RefusesAnotherModel) {
  const auto model = golden("llama");
  save(*model, folder_ / "s", spec_);
  EXPECT_EQ(message(folder_ / "s", *model), "no error");
  EXPECT_NE(message(folder_ / "s", *golden("mistral")).find("another"), std::string::npos);
  fs::copy(kTests / "golden" / "llama", folder_ / "changed");
  fs::permissions(folder_ / "changed" / "model.safetensors", fs::perms::owner_write, fs::perm_options::add);
  {
    // The first weight of a matrix: its tensors' bytes follow the header.
    const SafetensorsFile file{MappedFile(folder_ / "changed" / "model.safetensors")};
    const auto begin = file.entries().find("model.layers.1.mlp.up_proj.weight")->second.begin;
    const std::string bytes = read_bytes(folder_ / "changed" / "model.safetensors");
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    std::fstream out(folder_ / "changed" / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(std::streamoff(8 + header + begin));
    out.put(char(bytes[8 + header + begin] ^ 1));
  }
  EXPECT_NE(message(folder_ / "s", *Checkpoint::open(folder_ / "changed")).find("fingerprint"), std::string::npos);
}

TEST_F(Search, RefusesValuesThatCannotBe) {
  const auto model = golden("llama3");  // heads share a kv head
  save(*model, folder_ / "s", spec_);
  const std::string good = read_bytes(folder_ / "s");
  uint64_t header = 0;
  std::memcpy(&header, good.data(), 8);
  const SafetensorsFile file{MappedFile(folder_ / "s")};
  const auto changed = [&](const std::string& tensor, float value, int place) {
    std::string bytes = good;
    std::memcpy(&bytes[8 + header + file.entries().find(tensor)->second.begin + size_t(place) * 4], &value, 4);
    return message(written(bytes), *model);
  };
  const std::string norm = "model.layers.0.input_layernorm.scales", v = "model.layers.0.self_attn.v_proj.scales";
  for (float bad : {0.f, -1.f, INFINITY, NAN}) EXPECT_NE(changed(norm, bad, 3).find("positive"), std::string::npos);
  EXPECT_NE(changed(v, 3.f, 0).find("share a kv head"), std::string::npos);
  for (const auto& [name, entry] : file.entries())
    if (name.ends_with(".ranges")) {
      EXPECT_NE(changed(name, 1.f, 0).find("does not hold zero"), std::string::npos);
      break;
    }
}

TEST_F(Search, AnExistingFileStays) {
  const auto model = golden("llama");
  written("mine", "s");
  SearchWriter writer(folder_ / "so far", *model, spec_, "awq", "");
  EXPECT_THROW(writer.finish(folder_ / "s"), Error);
  EXPECT_EQ(read_bytes(folder_ / "s"), "mine");
}

// A process was killed behind a block, another one goes on: what was written after the state is cut off. And one that
// was killed when the file already had its name finds it finished.
TEST_F(Search, GoesOnWhereAnotherProcessEnded) {
  const auto model = golden("llama");
  const std::vector<Solution> all = save(*model, folder_ / "whole", spec_);
  const fs::path file = folder_ / "so far";
  SafetensorsWriter::State state;
  {
    SearchWriter first(file, *model, spec_, "awq", "calibration-hash");
    first.put(0, all[0]);
    state = first.state();
    first.put(1, all[1]);
  }
  for (int i = 0; i < 2; ++i) {
    SearchWriter second(file, *model, spec_, "awq", "calibration-hash", state);
    second.put(1, all[1]);
    second.finish(folder_ / "s");
    EXPECT_EQ(read_bytes(folder_ / "s"), read_bytes(folder_ / "whole"));
  }
}

// Values that torch wrote (tools/make_search_fixtures.py), against what it says they are.
TEST_F(Search, ReadsLlmAwqsFiles) {
  const auto model = golden("llama");
  const auto source = SearchSource::open(kFixtures / "llm-awq-f16.pt", *model);
  const auto expected = parse_json(read_bytes(kFixtures / "expected.json"), "expected.json");
  EXPECT_EQ(source->group_size(), 32);
  size_t scales = 0, clips = 0;
  for (int i = 0; i < 2; ++i) {
    const BlockSearch b = source->block(i);
    for (const auto& [p, f] : b.scales) {
      EXPECT_EQ(f.scales, expected["scale"][base_name(model->spec(), i, p)].get<std::vector<float>>());
      ++scales;
    }
    for (const auto& [p, f] : b.ranges) {
      std::vector<float> flat;
      for (const auto& row : expected["clip"][base_name(model->spec(), i, p)])
        for (float bound : row) flat.push_back(bound);
      ASSERT_EQ(f.ranges.size(), flat.size());
      for (size_t k = 0; k < flat.size(); ++k) EXPECT_EQ(f.ranges[k], (Range{-flat[k], flat[k]}));
      ++clips;
    }
  }
  EXPECT_EQ(scales, expected["scale"].size());
  EXPECT_EQ(clips, expected["clip"].size());
}

TEST_F(Search, StoragesMayBeSharedAndInBfloat16) {
  const auto model = golden("llama");
  const auto half = SearchSource::open(kFixtures / "llm-awq-f16.pt", *model),
             brain = SearchSource::open(kFixtures / "llm-awq-bf16.pt", *model);
  for (int i = 0; i < 2; ++i) {
    const BlockSearch a = half->block(i), b = brain->block(i);
    for (const auto& [p, f] : a.ranges)
      for (size_t k = 0; k < f.ranges.size(); ++k)  // one number, rounded to 8 and to 11 bits
        EXPECT_NEAR(b.ranges.at(p).ranges[k].high / f.ranges[k].high, 1, 0x1p-8 + 0x1p-11);
  }
}

TEST_F(Search, RefusesPublishedFilesOfAnotherModel) {
  for (const char* family : {"mistral", "qwen2", "llama3"}) {
    const std::string text = message(kFixtures / "llm-awq-f16.pt", *golden(family));
    EXPECT_NE(text.find("[load]"), std::string::npos) << family << ": " << text;
  }
}

TEST_F(Search, RefusesOtherPickles) {
  const auto model = golden("llama");
  EXPECT_NE(message(kFixtures / "other-global.pt", *model).find("the global posix getcwd is not read"),
            std::string::npos);
  EXPECT_NE(message(kFixtures / "whole-model.pt", *model).find("torch.nn.modules.linear Linear"), std::string::npos);
}

TEST_F(Search, PublishedFilesMayBeDamagedAnywhere) {
  const auto model = golden("llama");
  const std::string good = read_bytes(kFixtures / "llm-awq-f16.pt");
  for (size_t n = 5; n < good.size(); n += 97) EXPECT_NE(message(written(good.substr(0, n)), *model), "no error");
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    std::string broken = good;
    broken[random() % good.size()] ^= char(1 << random() % 8);
    message(written(broken), *model);  // an error, or other numbers; a sanitizer sees the rest
  }
}

}  // namespace
}  // namespace awq
