#include "io/torch_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/check.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

const fs::path kSeeds = AWQ_TEST_DIR "/fuzz/corpus/torch";

std::string bytes_of(const fs::path& file) {
  const MappedFile map(file);
  return {reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()};
}

struct Opened {
  explicit Opened(const std::string& text) : bytes(new std::byte[text.size()]) {
    std::memcpy(bytes.get(), text.data(), text.size());
    file = std::make_unique<TorchFile>(std::span(bytes.get(), text.size()), nullptr, "T");
  }
  std::unique_ptr<std::byte[]> bytes;
  std::unique_ptr<TorchFile> file;
};

std::string state_dict_error(const std::string& text) {
  try {
    Opened(text).file->state_dict();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

/// The text with one place changed to another of the same length.
std::string with(std::string text, const std::string& what, const std::string& by) {
  const size_t at = text.find(what);
  EXPECT_NE(at, text.npos) << what;
  EXPECT_EQ(what.size(), by.size());
  return text.replace(at, what.size(), by);
}

// What torch wrote; tools/make_torch_vectors.py.
TEST(TorchFile, StateDictOfModules) {
  const MappedFile map(kSeeds / "modules");
  const SafetensorsFile tensors = TorchFile(map).state_dict();
  EXPECT_EQ(tensors.entries().size(), 2u);
  const Tensor codes = tensors.tensor("a.qweight");
  EXPECT_EQ(codes.shape(), (Shape{2, 4}));
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(codes.as<int16_t>()[i], int16_t(i));
  EXPECT_EQ(tensors.tensor("a.scales").dtype(), DType::f16);
}

TEST(TorchFile, ViewsOfOneStorage) {
  const MappedFile map(kSeeds / "views");
  const SafetensorsFile tensors = TorchFile(map).state_dict();
  const Tensor first = tensors.tensor("first"), last = tensors.rows("last", 1, 6), ids = tensors.tensor("ids");
  EXPECT_EQ(first.shape(), (Shape{2, 3}));
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(first.as<float>()[i], float(i));
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(last.as<float>()[i], float(i + 7));
  EXPECT_EQ(ids.as<int64_t>()[1], 2);
}

TEST(TorchFile, RefusesWhatDoesNotLieInItsStorage) {
  const std::string good = bytes_of(kSeeds / "views");
  EXPECT_EQ(state_dict_error(good), "no error");
  // "last": offset 6, shape (6,), strides (1,)
  EXPECT_NE(state_dict_error(with(good, "K\6K\6\x85", "K\7K\6\x85")).find("elements 7 to 13 of a storage of 12"),
            std::string::npos);
  EXPECT_NE(state_dict_error(with(good, "K\6K\6\x85", "K\6K\7\x85")).find("elements 6 to 13 of a storage of 12"),
            std::string::npos);
  // "first": strides (3, 1)
  EXPECT_NE(state_dict_error(with(good, "K\3K\1\x86", "K\4K\1\x86")).find("do not lie row by row"), std::string::npos);
  EXPECT_NE(state_dict_error(with(good, "LongStorage", "QuitStorage")).find("torch QuitStorage is not read"),
            std::string::npos);
  EXPECT_NE(state_dict_error("PK no archive at all, but long enough").find("no end record"), std::string::npos);
}

TEST(TorchFile, MayBeDamagedAnywhere) {
  const std::string good = bytes_of(kSeeds / "modules");
  for (size_t n = 0; n < good.size(); n += 13) EXPECT_NE(state_dict_error(good.substr(0, n)), "no error");
  std::mt19937 random(2);
  for (int i = 0; i < 3000; ++i) {
    std::string broken = good;
    broken[random() % good.size()] ^= char(1 << random() % 8);
    state_dict_error(broken);  // an error, or other numbers; a sanitizer sees the rest
  }
}

}  // namespace
}  // namespace awq
