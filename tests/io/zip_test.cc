#include "io/zip.h"

#include <gtest/gtest.h>

#include <cstring>

#include "awq/error.h"
#include "io/file.h"

namespace awq {
namespace {

std::string fixture(const std::string& name) {
  const MappedFile file(std::filesystem::path(AWQ_TEST_DIR) / name);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// An allocation of exactly that size, so that the sanitizer sees a read past the end.
struct Archive {
  explicit Archive(const std::string& text) : bytes(new std::byte[text.size()]), size(text.size()) {
    std::memcpy(bytes.get(), text.data(), size);
  }
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> all;
    const ZipFile zip({bytes.get(), size}, "Z");
    for (const auto& [name, content] : zip.files())
      all.emplace(name, std::string(reinterpret_cast<const char*>(content.data()), content.size()));
    return all;
  }
  std::unique_ptr<std::byte[]> bytes;
  size_t size;
};

std::string refusal_of(const std::string& archive) {
  try {
    Archive(archive).files();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Zip, ReadsWhatPythonsZipfileStores) {
  const std::map<std::string, std::string> want = {{"a/one", "first"}, {"two", ""}};
  EXPECT_EQ(Archive(fixture("io/fixtures/plain.zip")).files(), want);
}

TEST(Zip, ReadsTheZip64ArchivesOfTorch) {
  const auto files = Archive(fixture("quantizer/fixtures/llm-awq-f16.pt")).files();
  EXPECT_EQ(files.at("llm-awq-f16/byteorder"), "little");
  EXPECT_EQ(files.at("llm-awq-f16/data/0").size(), 128u);
  EXPECT_EQ(files.size(), 24u);
}

TEST(Zip, RefusesCompression) {
  EXPECT_NE(refusal_of(fixture("io/fixtures/deflated.zip")).find("compressed"), std::string::npos);
}

TEST(Zip, RefusesWhatIsCutOff) {
  for (const char* name : {"io/fixtures/plain.zip", "quantizer/fixtures/other-global.pt"}) {
    const std::string whole = fixture(name);
    for (size_t n = 0; n < whole.size(); ++n) EXPECT_NE(refusal_of(whole.substr(0, n)), "no error") << name << " " << n;
  }
}

// Sizes and places that would overflow or lead out of the archive, in each of the fields.
TEST(Zip, EveryByteMayBeWrong) {
  const std::string whole = fixture("quantizer/fixtures/other-global.pt");
  for (size_t i = 0; i < whole.size(); ++i)
    for (int v : {0x00, 0x7f, 0xff}) {
      std::string broken = whole;
      broken[i] = char(v);
      refusal_of(broken);  // an error or none; a sanitizer sees the rest
    }
}

TEST(Zip, RefusesANameThatIsThereTwice) {
  std::string twice = fixture("io/fixtures/plain.zip");
  for (size_t at = twice.find("two"); at != twice.npos; at = twice.find("two", at + 1)) twice.replace(at, 3, "one");
  EXPECT_EQ(refusal_of(twice), "no error");  // a/one and one
  std::string same = fixture("quantizer/fixtures/llm-awq-f16.pt");
  for (size_t at = same.find("data/1PK"); at != same.npos; at = same.find("data/1PK", at + 1)) same[at + 5] = '0';
  EXPECT_NE(refusal_of(same).find("there twice"), std::string::npos) << refusal_of(same);
}

}  // namespace
}  // namespace awq
