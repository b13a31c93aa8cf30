#include "io/gguf.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>

#include "io/gguf_builder.h"

namespace awq {
namespace {

std::string open_error(const std::string& bytes) {
  return error_of([&] { parse_gguf(bytes); });
}
std::string open_error(const GgufBuilder& b) { return open_error(b.bytes()); }

#define EXPECT_SAYS(message, part) EXPECT_NE((message).find(part), std::string::npos) << (message)

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

// Blocks and expected floats were written by the Python package gguf (tools/make_gguf_fixtures.py).
TEST(GgmlTypes, DequantizeEveryReadableTypeLikeTheReference) {
  const Gguf file(std::filesystem::path(AWQ_TEST_DIR "/io/fixtures/ggml_blocks.gguf"));
  int types = 0;
  for (const GgufTensor& t : file.tensors()) {
    const GgufTensor* expected = file.find(std::string(t.name) + ".expected");
    if (!expected) continue;
    ++types;
    EXPECT_EQ(t.name, t.type->name);
    const Tensor got = file.tensor(t).to(DType::f32), want = file.tensor(*expected);
    ASSERT_EQ(got.shape(), want.shape());
    int differing = 0, finite = 0;
    for (size_t i = 0; i < got.as<float>().size(); ++i) {
      differing += !same(got.as<float>()[i], want.as<float>()[i]);
      finite += std::isfinite(want.as<float>()[i]);
    }
    EXPECT_EQ(differing, 0) << t.name;
    EXPECT_GE(finite, 256) << t.name;
  }
  EXPECT_EQ(types, 14);
}

TEST(GgmlTypes, TableIsConsistent) {
  for (uint32_t id = 0; id < 64; ++id)
    if (const GgmlType* t = find_ggml_type(id)) {
      EXPECT_EQ(t->id, id);
      EXPECT_GT(t->length * t->bytes, 0) << t->name;
    }
  EXPECT_EQ(find_ggml_type(4), nullptr);  // Q4_2, dropped
  EXPECT_EQ(find_ggml_type(12)->name, "Q4_K");
  EXPECT_EQ(readable_ggml_types(), "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, BF16, MXFP4");
}

GgufBuilder every_value() {
  GgufBuilder b;
  b.value("u8", GgufType::u8, raw(uint8_t(200))).value("i8", GgufType::i8, raw(int8_t(-3)));
  b.value("u16", GgufType::u16, raw(uint16_t(60000))).value("i16", GgufType::i16, raw(int16_t(-300)));
  b.u32("u32", 4000000000u).value("i32", GgufType::i32, raw(int32_t(-70000)));
  b.value("u64", GgufType::u64, raw(uint64_t(1) << 40)).value("i64", GgufType::i64, raw(-(int64_t(1) << 40)));
  b.value("huge", GgufType::u64, raw(~uint64_t(0)));
  b.f32("f32", 0.5f)
      .value("f64", GgufType::f64, raw(0.1))
      .flag("yes", true)
      .flag("no", false)
      .text("text", "gr\xc3\xbc\xc3\x9f");
  b.texts("texts", {"a", "", "ccc"}).numbers<float>("floats", GgufType::f32, {1, -2.5f});
  b.numbers<int32_t>("ints", GgufType::i32, {7, -8}).numbers<uint8_t>("flags", GgufType::boolean, {1, 0});
  b.texts("empty", {});
  return b;
}

TEST(Gguf, ReadsMetadataOfEveryType) {
  const Gguf g = parse_gguf(every_value());
  EXPECT_EQ(g.metadata().size(), 19u);
  EXPECT_EQ(g.integer("u8"), 200);
  EXPECT_EQ(g.integer("i8"), -3);
  EXPECT_EQ(g.integer("u16"), 60000);
  EXPECT_EQ(g.integer("i16"), -300);
  EXPECT_EQ(g.integer("u32"), 4000000000);
  EXPECT_EQ(g.integer("i32"), -70000);
  EXPECT_EQ(g.integer("u64"), int64_t(1) << 40);
  EXPECT_EQ(g.integer("i64"), -(int64_t(1) << 40));
  EXPECT_EQ(g.number("f32"), 0.5);
  EXPECT_EQ(g.number("f64"), 0.1);
  EXPECT_TRUE(g.flag("yes"));
  EXPECT_FALSE(g.flag("no"));
  EXPECT_EQ(g.text("text"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(g.texts("texts"), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(g.numbers("floats"), (std::vector<float>{1, -2.5f}));
  EXPECT_EQ(g.integers("ints"), (std::vector<int64_t>{7, -8}));
  EXPECT_EQ(g.integers("flags"), (std::vector<int64_t>{1, 0}));
  EXPECT_TRUE(g.texts("empty").empty());
  EXPECT_EQ(g.integer("absent", 5), 5);
  EXPECT_EQ(g.integer("u8", 5), 200);
}

TEST(Gguf, GettersNameKeyExpectedAndGot) {
  const Gguf g = parse_gguf(every_value());
  const auto says = [](const std::string& message, std::string_view key, std::string_view expected,
                       std::string_view got) {
    EXPECT_EQ(message,
              fmt::format("[gguf] test.gguf: the metadata \"{}\" should be {}, but is {}", key, expected, got));
  };
  says(error_of([&] { g.integer("text"); }), "text", "an integer below 2^63", "string");
  says(error_of([&] { g.integer("huge"); }), "huge", "an integer below 2^63", "u64");
  says(error_of([&] { g.integer("yes"); }), "yes", "an integer below 2^63", "boolean");
  says(error_of([&] { g.integer("f32", 1); }), "f32", "an integer below 2^63", "f32");
  says(error_of([&] { g.number("u8"); }), "u8", "f32 or f64", "u8");
  says(error_of([&] { g.flag("u8"); }), "u8", "a boolean", "u8");
  says(error_of([&] { g.text("texts"); }), "texts", "a string", "an array of 3 string");
  says(error_of([&] { g.texts("floats"); }), "floats", "an array of strings", "an array of 2 f32");
  says(error_of([&] { g.texts("text"); }), "text", "an array of strings", "string");
  says(error_of([&] { g.numbers("ints"); }), "ints", "an array of f32", "an array of 2 i32");
  says(error_of([&] { g.integers("floats"); }), "floats", "an array of integers", "an array of 2 f32");
  says(error_of([&] { g.integers("texts"); }), "texts", "an array of integers", "an array of 3 string");
  EXPECT_SAYS(error_of([&] { g.integer("absent"); }), "test.gguf: the metadata has no \"absent\"");
}

std::string nested(int depth) {  // an array of arrays of ... of one u8
  std::string s = raw(uint32_t(GgufType::u8)) + raw(uint64_t(1)) + raw(uint8_t(1));
  for (int i = 1; i < depth; ++i) s = raw(uint32_t(GgufType::array)) + raw(uint64_t(1)) + s;
  return s;
}

TEST(Gguf, LimitsTheNestingOfArrays) {
  EXPECT_EQ(open_error(GgufBuilder().value("n", GgufType::array, nested(4))), "");
  EXPECT_SAYS(open_error(GgufBuilder().value("n", GgufType::array, nested(5))), "nested more than 4 deep");
  EXPECT_SAYS(open_error(GgufBuilder().value("n", GgufType::array, nested(4000))), "nested more than 4 deep");
}

const std::vector<float> kSix = {1, 2, 3, 4, 5, 6};

TEST(Gguf, SharesFloatTensorsWithTheMap) {
  const Gguf g = parse_gguf(
      GgufBuilder().floats("w", {3, 2}, kSix).tensor("h", {2}, 1, raw(uint16_t(0x3c00)) + raw(uint16_t(0x4000))));
  const Tensor w = g.tensor("w");
  EXPECT_EQ(w.shape(), (Shape{2, 3}));
  EXPECT_EQ(w.data(), g.at("w").data.data());
  EXPECT_TRUE(std::ranges::equal(w.as<float>(), kSix));
  const Tensor row = g.rows(g.at("w"), 1, 2);
  EXPECT_EQ(row.shape(), (Shape{1, 3}));
  EXPECT_EQ(row.as<float>()[0], 4);
  EXPECT_EQ(g.tensor("h").dtype(), DType::f16);
  EXPECT_EQ(g.tensor("h").to(DType::f32).as<float>()[1], 2);
  const auto keep = [] { return parse_gguf(GgufBuilder().floats("w", {3, 2}, kSix)).tensor("w"); }();
  EXPECT_EQ(keep.as<float>()[5], 6);  // the file is gone, its memory is not
}

TEST(Gguf, CopiesStayValid) {
  auto original = std::make_unique<Gguf>(parse_gguf(every_value().floats("w", {3, 2}, kSix)));
  const Gguf copy = *original;
  original.reset();
  EXPECT_EQ(copy.text("text"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(copy.tensor("w").as<float>()[5], 6);
  EXPECT_EQ(copy.at("w").name, "w");
}

TEST(Gguf, RowRangesOfBlockTypesAreSlicesOfTheWhole) {
  const Gguf file(std::filesystem::path(AWQ_TEST_DIR "/io/fixtures/ggml_blocks.gguf"));
  for (const char* name : {"Q8_0", "Q4_1", "Q6_K"}) {
    const Tensor whole = file.tensor(name), second = file.rows(file.at(name), 1, 2),
                 none = file.rows(file.at(name), 2, 2);
    EXPECT_EQ(second.shape(), (Shape{1, 256}));
    EXPECT_TRUE(std::ranges::equal(second.as<float>(), whole.rows(1, 2).as<float>(), same)) << name;
    EXPECT_EQ(none.shape(), (Shape{0, 256}));
    EXPECT_SAYS(error_of([&] { file.rows(file.at(name), 1, 3); }), "rows 1 to 3 of ");
  }
}

TEST(Gguf, ReadsVectorsOfBlockTypes) {
  const std::string block = raw(uint16_t(0x3c00)) + std::string(31, 3) + "\xff";  // scale 1, codes 3 and -1
  const Gguf g = parse_gguf(GgufBuilder().tensor("v", {64}, 8, block + block));
  const Tensor v = g.tensor("v");
  EXPECT_EQ(v.shape(), (Shape{64}));
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(v.as<float>()[i], i % 32 == 31 ? -1 : 3) << i;
  EXPECT_SAYS(error_of([&] { g.rows(g.at("v"), 0, 32); }), "rows 0 to 32 of v Q8_0 [64]");
}

TEST(Gguf, NamesTensorsItCannotRead) {
  const Gguf g = parse_gguf(GgufBuilder().tensor("w", {256}, 16, std::string(66, 'x')));
  EXPECT_EQ(error_of([&] { g.tensor("w"); }),
            "[gguf] test.gguf: w is stored as IQ2_XXS; this version reads " + readable_ggml_types());
  EXPECT_SAYS(error_of([&] { g.tensor("v"); }), "test.gguf: the tensor v is missing");
}

TEST(GgufMalformed, Headers) {
  const std::string good = GgufBuilder().bytes();
  EXPECT_EQ(open_error(good), "");
  EXPECT_SAYS(open_error("GGML" + good.substr(4)), "not a GGUF file");
  GgufBuilder b;
  for (const auto& [version, part] :
       {std::pair(1u, "GGUF version 1; versions 2 and 3"), std::pair(4u, "GGUF version 4"),
        std::pair(0x03000000u, "big-endian"), std::pair(0u, "GGUF version 0")}) {
    b.version = version;
    EXPECT_SAYS(open_error(b), part);
  }
  b.version = 2;
  EXPECT_EQ(open_error(b), "");
  const auto counts = [](uint64_t tensors, uint64_t entries) {
    return "GGUF" + raw(3) + raw(tensors) + raw(entries) + std::string(64, '\0');
  };
  EXPECT_SAYS(open_error(counts(~uint64_t(0), 0)), "18446744073709551615 tensors cannot fit in the 64 bytes");
  EXPECT_SAYS(open_error(counts(0, uint64_t(1) << 61)), "metadata entries cannot fit");
  EXPECT_SAYS(open_error(counts(3, 0)), "3 tensors cannot fit in the 64 bytes");
}

TEST(GgufMalformed, Metadata) {
  const std::string max = raw(~uint64_t(0));
  EXPECT_SAYS(open_error(GgufBuilder().value("k", GgufType(13), "xxxx")), "metadata type 13 at offset");
  EXPECT_SAYS(open_error(GgufBuilder().u32("twice", 1).u32("twice", 1)), "\"twice\" appears twice");
  EXPECT_SAYS(open_error(GgufBuilder().value("k", GgufType::string, max + "abc")),
              "a string of 18446744073709551615 bytes");
  EXPECT_SAYS(open_error(GgufBuilder().value("k", GgufType::string, raw(uint64_t(100)) + "abc")),
              "a string of 100 bytes");
  EXPECT_SAYS(open_error(GgufBuilder().array("k", GgufType::f64, ~uint64_t(0), "")), "numbers cannot fit");
  EXPECT_SAYS(open_error(GgufBuilder().array("k", GgufType::f64, (uint64_t(1) << 61) + 1, "12345678")),
              "numbers cannot fit");
  EXPECT_SAYS(open_error(GgufBuilder().array("k", GgufType::string, uint64_t(1) << 60, max)), "strings cannot fit");
  EXPECT_SAYS(open_error(GgufBuilder().array("k", GgufType::array, uint64_t(1) << 60, max)), "arrays cannot fit");
  EXPECT_SAYS(open_error(GgufBuilder().array("k", GgufType(99), 1, "12345678")), "metadata type 99");
  EXPECT_SAYS(open_error(GgufBuilder().u32(std::string(70000, 'k'), 1)), "a metadata key of 70000 bytes");
  EXPECT_SAYS(open_error(GgufBuilder().value("split.count", GgufType::u16, raw(uint16_t(3)))),
              "one of 3 parts of a split model");
  EXPECT_EQ(open_error(GgufBuilder().value("split.count", GgufType::u16, raw(uint16_t(1)))), "");
  for (uint32_t alignment : {0u, 4u, 24u, 0x7fffffffu})
    EXPECT_SAYS(open_error(GgufBuilder().u32("general.alignment", alignment)),
                fmt::format("general.alignment is {}", alignment));
  GgufBuilder wide;
  wide.alignment = 4096;
  const Gguf g = parse_gguf(wide.u32("general.alignment", 4096).floats("w", {3, 2}, kSix).floats("v", {6}, kSix));
  EXPECT_EQ(g.tensor("v").as<float>()[5], 6);
}

TEST(GgufMalformed, Tensors) {
  const uint64_t big = uint64_t(1) << 32;
  const auto one = [](const std::vector<uint64_t>& dims, uint32_t type = 0) {
    return open_error(GgufBuilder().tensor("w", dims, type, std::string(64, 'x')));
  };
  EXPECT_EQ(one({16}), "");
  EXPECT_SAYS(one({}), "w: 0 dimensions; 1 to 4 are possible");
  EXPECT_SAYS(one({1, 1, 1, 1, 1}), "w: 5 dimensions");
  EXPECT_SAYS(one({0, 16}), "w: a dimension of 0");
  EXPECT_SAYS(one({~uint64_t(0)}), "w: a dimension of 18446744073709551615");
  EXPECT_SAYS(one({big, big}), "w: a dimension of 4294967296");  // the product is 2^64
  EXPECT_SAYS(one({big, 16, big, 16}), "w: a dimension of 4294967296");
  EXPECT_SAYS(one({17}), "w: F32 [17] takes 68 bytes at offset 0 of the data, but there are 64");
  EXPECT_SAYS(one({uint64_t(1) << 47, 2}), "takes 1125899906842624 bytes");
  EXPECT_SAYS(one({16}, 31), "w: tensor type 31 is not known");
  EXPECT_SAYS(one({16}, 2), "w: rows of 16 values cannot be Q4_0, whose blocks have 32");
  const auto at = [](uint64_t offset) {
    return open_error(GgufBuilder().tensor_at("w", {16}, 0, std::string(64, 'x'), offset));
  };
  EXPECT_SAYS(at(8), "w: offset 8 is no multiple of the file's alignment 32");
  EXPECT_SAYS(at(32), "takes 64 bytes at offset 32 of the data, but there are 64");
  EXPECT_SAYS(at(uint64_t(0) - 32), "at offset 18446744073709551584");  // offset + size would be 32
  EXPECT_SAYS(open_error(GgufBuilder().floats("w", {6}, kSix).floats("w", {6}, kSix)), "the tensor w appears twice");
}

TEST(GgufMalformed, EveryTruncationIsRefused) {
  const std::string good =
      every_value().floats("w", {3, 2}, kSix).tensor("q", {32, 2}, 8, std::string(68, 'q')).bytes();
  const std::string tail(28, '\0');  // padding behind the last tensor may be missing
  ASSERT_EQ(open_error(good.substr(0, good.size() - tail.size())), "");
  for (size_t n = 0; n < good.size() - tail.size(); ++n) ASSERT_NE(open_error(good.substr(0, n)), "") << n;
}

TEST(GgufMalformed, EveryFlippedByteIsReadOrRefused) {
  const std::string good =
      every_value().floats("w", {3, 2}, kSix).tensor("q", {32, 2}, 8, std::string(68, 'q')).bytes();
  int read = 0, refused = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = char(bad[i] ^ 0xff);
    const std::string message = error_of([&] {
      const Gguf g = parse_gguf(bad);
      for (const GgufTensor& t : g.tensors()) g.tensor(t);
    });
    ++(message.empty() ? read : refused);
  }
  EXPECT_GT(read, 100);     // values, names, data
  EXPECT_GT(refused, 100);  // lengths, types, counts
}

// Sums over all tensors as gguf.dequantize of the Python package gives them (0.19.0, numpy).
struct RealModel {
  const char *variable, *what;
  size_t tensors;
  uint64_t sum;
};

class RealGguf : public testing::TestWithParam<RealModel> {};

TEST_P(RealGguf, EveryTensorIsDequantizedLikeTheReference) {
  const char* path = std::getenv(GetParam().variable);
  if (!path) GTEST_SKIP() << "set " << GetParam().variable << " to " << GetParam().what;
  const Gguf file{std::filesystem::path(path)};
  uint64_t sum = 0;
  for (const GgufTensor& t : file.tensors()) sum = sum * 31 + fingerprint(file.tensor(t));
  EXPECT_EQ(file.tensors().size(), GetParam().tensors);
  EXPECT_EQ(sum, GetParam().sum);
}

INSTANTIATE_TEST_SUITE_P(
    , RealGguf,
    testing::Values(RealModel{"AWQ_SMOLLM2_GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf", 272, 0x1487e1df2dc9cdc0},
                    RealModel{"AWQ_GEMMA3_GGUF", "gemma-3-270m-q4_k_m.gguf", 236, 0x37f2a3284c5eddd4}),
    [](const auto& model) { return std::string(model.param.variable).substr(4, 6); });

}  // namespace
}  // namespace awq
