// Every packed layout, against folders that a packer of its own wrote (tools/make_format_vectors.py) and the published
// vectors.
#include <gtest/gtest.h>

#include <cmath>

#include "base/numeric.h"
#include "formats/folder_fixture.h"
#include "formats/pieces_fixture.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr Role kRoles[] = {Role::q, Role::k, Role::v, Role::o, Role::gate, Role::up, Role::down};

float half(float v) { return f16_to_f32(f32_to_f16(v)); }

/// The formulas of tools/make_format_vectors.py.
struct Formula {
  int i, levels, bits;
  bool symmetric;
  int code(int64_t r, int64_t c) const { return int((r * 7 + c * 13 + r * c + i) % levels); }
  int zero(int64_t r, int64_t g) const { return symmetric ? levels / 2 : int((r * 5 + g * 3 + i) % levels); }
  float scale(int64_t r, int64_t g) const { return half(float(1 + (r * 3 + g * 7 + i) % 61) / 1024.f); }
};

struct Case {
  std::string folder, format;
  int bits = 4, group = 16;  // -1: a row
  bool symmetric = false, offsets = false, act_order = false, inputs = false;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.folder; }

class Packed : public testing::TestWithParam<Case> {
 protected:
  static void compare(const QMatrix& q, const Formula& f, const Case& c) {
    const int64_t group = c.group == -1 ? q.cols() : c.group;
    ASSERT_EQ(q.spec, (QuantSpec{c.bits, int(group), DType::f16, c.offsets, c.symmetric}));
    ASSERT_EQ(bool(q.order), c.act_order);
    ASSERT_EQ(bool(q.inputs), c.inputs);
    for (int64_t col = 0; c.inputs && col < q.cols(); ++col)
      ASSERT_EQ(q.inputs.as<float>()[size_t(col)], 0.5f + float(col % 5) / 4);
    for (int64_t r = 0; r < q.rows(); ++r)
      for (int64_t col = 0; col < q.cols(); ++col) {
        const int64_t g = col / group;
        const auto at = size_t(r * q.groups() + g);
        ASSERT_EQ(q.codes.as<uint8_t>()[size_t(r * q.cols() + col)], f.code(r, col)) << r << ", " << col;
        ASSERT_EQ(q.scales.as<float>()[at], f.scale(r, g)) << r << ", " << g;
        if (c.offsets)
          ASSERT_EQ(q.offsets.as<float>()[at], half(-(float(f.zero(r, g)) * f.scale(r, g)))) << r << ", " << g;
        else
          ASSERT_EQ(q.zeros.as<uint8_t>()[at], f.zero(r, g)) << r << ", " << g;
      }
  }
};

TEST_P(Packed, HoldsTheCodesOfTheFormulas) {
  const Case& c = GetParam();
  const auto model = Checkpoint::open(fs::path(AWQ_TEST_DIR "/formats/fixtures") / c.folder);
  EXPECT_EQ(model->format(), c.format);
  for (int i = 0; i < int(std::size(kRoles)); ++i) {
    SCOPED_TRACE(name_of(kRoles[i]));
    const Weight w = model->weight(0, {kRoles[i]});
    ASSERT_TRUE(std::holds_alternative<QMatrix>(w));
    compare(std::get<QMatrix>(w), {i, 1 << c.bits, c.bits, c.symmetric}, c);
    if (HasFatalFailure()) return;
  }
  EXPECT_TRUE(std::holds_alternative<Tensor>(model->weight(-1, {Role::head})));
  expect_pieces_are_the_weights(*model);
}

// Column c of the matrix belongs to the group of c * 5, and the first of a group keeps its place before the second.
TEST(PackedOrder, IsThatOfGIdx) {
  const auto model = Checkpoint::open(AWQ_TEST_DIR "/formats/fixtures/gptq-v2-act-order");
  const auto q = std::get<QMatrix>(model->weight(0, {Role::down}));
  const auto order = q.order.as<int32_t>();
  std::vector<bool> seen(64);
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(order[i] * 5 % 64 / 16, int(i / 16));
    EXPECT_FALSE(seen[size_t(order[i])]);
    seen[size_t(order[i])] = true;
    EXPECT_TRUE(i % 16 == 0 || order[i - 1] < order[i]) << i;
  }
  const Tensor w = dequantize(q);
  for (size_t i = 0; i < 64; ++i)
    EXPECT_EQ(
        w.as<float>()[64 + size_t(order[i])],
        float(q.codes.as<uint8_t>()[64 + i] - q.zeros.as<uint8_t>()[4 + i / 16]) * q.scales.as<float>()[4 + i / 16]);
}

// The columns of the matrix are those of the codes times the inputs' factors.
TEST(PackedInputs, AreInTheColumnsOfTheMatrix) {
  const fs::path fixtures = AWQ_TEST_DIR "/formats/fixtures";
  const auto with = Checkpoint::open(fixtures / "modelopt-inputs"), without = Checkpoint::open(fixtures / "modelopt");
  for (Role role : kRoles) {
    const Tensor a = dequantize(std::get<QMatrix>(with->weight(0, {role}))),
                 b = dequantize(std::get<QMatrix>(without->weight(0, {role})));
    for (int64_t i = 0; i < a.shape().elements(); ++i)
      ASSERT_EQ(a.as<float>()[size_t(i)],
                b.as<float>()[size_t(i)] * (0.5f + float(i % a.shape()[1] % 5) / 4));  // exact: few bits
  }
}

class LlmAwqFile : public FolderTest {
 protected:
  LlmAwqFile() { fs::copy(AWQ_TEST_DIR "/formats/fixtures/llm-awq-pt", root_ / "m"); }
  std::string error() const { return open_error(root_ / "m"); }
};

// The folder is told by its only .pt file and nothing else; what it holds is what counts.
TEST_F(LlmAwqFile, IsToldByItsFile) {
  const fs::path folder = root_ / "m", file = folder / "tiny-w4-g64-awq-v2.pt";
  EXPECT_EQ(error(), "no error");
  EXPECT_TRUE(Checkpoint::open(folder)->left_out().empty());
  EXPECT_TRUE(Checkpoint::open(folder)->side_files().empty());
  EXPECT_EQ(Checkpoint::open(folder)->weight_files(), (std::vector<fs::path>{file}));
  fs::copy_file(file, folder / "other.pt");
  EXPECT_NE(error().find("the weights are pickles"), std::string::npos);
  fs::remove(folder / "other.pt");
  fs::copy_file(AWQ_TEST_DIR "/fuzz/corpus/torch/views", file, fs::copy_options::overwrite_existing);
  EXPECT_NE(error().find("of .pt files only llm-awq's quantized models are read"), std::string::npos);
  fs::copy_file(AWQ_TEST_DIR "/quantizer/fixtures/llm-awq-f16.pt", file, fs::copy_options::overwrite_existing);
  EXPECT_NE(error().find("its dict has a list for \"scale\""), std::string::npos);
  fs::copy_file(AWQ_TEST_DIR "/quantizer/fixtures/other-global.pt", file, fs::copy_options::overwrite_existing);
  EXPECT_NE(error().find("the global posix getcwd is not read"), std::string::npos);
}

std::string test_name(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.folder;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Packed,
    testing::Values(Case{"compressed-tensors-4-asym-16", "compressed-tensors"},
                    Case{.folder = "compressed-tensors-4-sym-16", .format = "compressed-tensors", .symmetric = true},
                    Case{.folder = "compressed-tensors-8-asym-16", .format = "compressed-tensors", .bits = 8},
                    Case{.folder = "compressed-tensors-8-sym-channel",
                         .format = "compressed-tensors",
                         .bits = 8,
                         .group = -1,
                         .symmetric = true},
                    Case{.folder = "compressed-tensors-4-asym-channel", .format = "compressed-tensors", .group = -1},
                    Case{.folder = "autoawq-gemv", .format = "autoawq-gemv", .group = 32},
                    Case{.folder = "autoawq-gemv-64", .format = "autoawq-gemv", .group = 64},
                    Case{.folder = "autoawq-gemv-fast", .format = "autoawq-gemv-fast", .group = 64, .offsets = true},
                    Case{.folder = "llm-awq", .format = "llm-awq", .group = 64, .offsets = true},
                    Case{.folder = "llm-awq-pt", .format = "llm-awq", .group = 64, .offsets = true},
                    Case{.folder = "modelopt", .format = "modelopt", .symmetric = true},
                    Case{.folder = "modelopt-inputs", .format = "modelopt", .symmetric = true, .inputs = true},
                    Case{.folder = "autoawq-marlin", .format = "autoawq-marlin", .group = 32, .symmetric = true},
                    Case{.folder = "autoawq-marlin-rows", .format = "autoawq-marlin", .group = -1, .symmetric = true},
                    Case{"gptq-v1", "gptq"}, Case{"gptq-v2", "gptq"},
                    Case{.folder = "gptq-v2-act-order", .format = "gptq", .act_order = true},
                    Case{.folder = "gptq-v2-8", .format = "gptq", .bits = 8, .group = -1},
                    Case{.folder = "mlx-2", .format = "mlx", .bits = 2, .group = 32, .offsets = true},
                    Case{.folder = "mlx-3", .format = "mlx", .bits = 3, .group = 32, .offsets = true},
                    Case{.folder = "mlx-4", .format = "mlx", .bits = 4, .group = 32, .offsets = true},
                    Case{.folder = "mlx-5", .format = "mlx", .bits = 5, .group = 32, .offsets = true},
                    Case{.folder = "mlx-6", .format = "mlx", .bits = 6, .group = 32, .offsets = true},
                    Case{.folder = "mlx-8", .format = "mlx", .bits = 8, .group = 32, .offsets = true}),
    test_name);

}  // namespace
}  // namespace awq
