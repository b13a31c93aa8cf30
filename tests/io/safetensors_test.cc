#include "io/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "awq/error.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

/// A file as the format's description asks: length, header, data.
std::string file_of(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text.append(header).append(data);
}

SafetensorsFile parse(const std::string& bytes) {
  // An allocation of exactly that size, so that the sanitizer sees a read past the end.
  const std::shared_ptr<char[]> copy(new char[bytes.size()]);
  std::ranges::copy(bytes, copy.get());
  return {std::as_bytes(std::span(copy.get(), bytes.size())), copy, "F"};
}

template <class F>
std::string message(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

std::string header_error(std::string_view header, std::string_view data = "") {
  return message([&] { parse(file_of(header, data)); });
}

TEST(Safetensors, ReadsWhatTheHeaderDescribes) {
  const auto file = parse(file_of(
      R"({"b":{"dtype":"I16","shape":[2],"data_offsets":[4,8]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},"none":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]}}  )",
      std::string_view("\1\2\3\4\5\0\6\0", 8)));
  EXPECT_EQ(file.entries().size(), 3u);
  const Tensor a = file.tensor("a"), b = file.tensor("b");
  EXPECT_EQ(a.shape(), Shape({2, 2}));
  EXPECT_EQ(a.as<uint8_t>()[3], 4);
  EXPECT_EQ(b.as<int16_t>()[1], 6);
  EXPECT_EQ(file.tensor("none").shape().elements(), 0);
  EXPECT_EQ(message([&] { file.tensor("c"); }), "[open] F: there is no tensor c");
}

TEST(Safetensors, ScalarHasNoDimensions) {
  const auto file = parse(file_of(R"({"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", "7"));
  EXPECT_EQ(file.tensor("s").as<uint8_t>()[0], '7');
}

TEST(Safetensors, UnalignedTensorIsCopied) {
  std::string header =
      R"({"odd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"I32","shape":[2],"data_offsets":[1,9]}})";
  header.resize(header.size() + 16 - (header.size() + 8) % 16, ' ');  // the data begins at a multiple of 16
  const auto file = parse(file_of(header, std::string_view("\1\2\0\0\0\3\0\0\0", 9)));
  const Tensor x = file.tensor("x");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(x.data()) % 4, 0u);
  EXPECT_EQ(x.as<int32_t>()[0], 2);
  EXPECT_EQ(x.as<int32_t>()[1], 3);
}

TEST(Safetensors, UnsupportedTypeFailsOnlyWhenAskedFor) {
  const auto file = parse(file_of(
      R"({"f8":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2]},"u":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
      "abc"));
  EXPECT_EQ(file.tensor("u").as<uint8_t>()[0], 'c');
  EXPECT_EQ(message([&] { file.tensor("f8"); }),
            "[open] F: tensor f8 is \"F8_E5M2\", which is not supported; convert it to F32, F16 or BF16");
}

TEST(Safetensors, LengthIsCheckedBeforeAnything) {
  EXPECT_EQ(message([] { parse("1234567"); }),
            "[open] F: 7 bytes are no safetensors file; perhaps a download was cut off: fetch it again");
  EXPECT_EQ(message([] { parse(file_of("{}", "").substr(0, 9)); }),
            "[open] F: a header of 2 bytes in a file of 9; perhaps a download was cut off: fetch it again");
  EXPECT_EQ(
      message([] { parse(std::string(16, '\xff')); }),
      "[open] F: a header of 18446744073709551615 bytes (at most 100000000 are allowed); is it a safetensors file?");
  EXPECT_EQ(message([] { parse("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"); }),
            "[open] F: this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull");
}

TEST(Safetensors, HeaderMustBeOneJsonObject) {
  const std::string cut = "; perhaps a download was cut off: fetch it again";
  EXPECT_EQ(header_error(""), "[open] F: no valid JSON at byte 1" + cut);
  EXPECT_EQ(header_error("{}x"), "[open] F: no valid JSON at byte 3" + cut);
  EXPECT_EQ(header_error("{\"\xff\":1}"), "[open] F: no valid JSON at byte 3" + cut);
  EXPECT_EQ(header_error("[1e999]"), "[open] F: the JSON has a number that no 64-bit type can hold");
  EXPECT_EQ(header_error("[3]"), "[open] F: the header should be a JSON object, but is [3]");
  EXPECT_EQ(header_error(std::string(100000, '[')), "[open] F: JSON nested more than 64 levels deep is refused");
  EXPECT_EQ(header_error(R"({"__metadata__":{"a":1}})"),
            "[open] F: __metadata__ should map strings to strings, but is {\"a\":1}");
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","dtype":"I8"}})"),
            "[open] F: the key \"dtype\" stands twice in one JSON object; which one counts is not defined");
  std::string many = "[";
  for (int i = 0; i < 4'000'000; ++i) many += "0,";
  EXPECT_EQ(header_error(many + "0]"), "[open] F: JSON of more than 4000000 values is refused");
}

TEST(Safetensors, MalformedEntriesAreNamed) {
  const std::string damaged = "; the file is damaged";
  EXPECT_EQ(header_error(R"({"a":7})"), "[open] F: tensor \"a\" has no dtype, shape and data_offsets: 7" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":1,"shape":[],"data_offsets":[0,1]}})"),
            R"([open] F: tensor "a" has no valid dtype: {"data_offsets":[0,1],"dtype":1,"shape":[]})" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})"),
            "[open] F: tensor \"a\" has an impossible size: -1" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})"),
            "[open] F: tensor \"a\" has an impossible size: 1.0" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})"),
            "[open] F: tensor \"a\" has an impossible size: 18446744073709551615" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})"),
            "[open] F: tensor \"a\" has a shape of more than 5 dimensions or 2^63 elements: [4294967296,4294967296]" +
                damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1],"data_offsets":[0,4]}})", "abcd"),
            "[open] F: tensor \"a\" has a shape of more than 5 dimensions or 2^63 elements: [1,1,1,1,1,1]" + damaged);
  // 2^62 + 1 floats are 4 bytes modulo 2^64.
  EXPECT_EQ(header_error(R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", "abcd"),
            "[open] F: tensor \"a\" is F32 [4611686018427387905] in 4 bytes, which is not its size" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,5]}})", "abcde"),
            "[open] F: tensor \"a\" is F16 [2] in 5 bytes, which is not its size" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1]}})"),
            "[open] F: tensor \"a\" has no valid data_offsets: [1]" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})", "ab"),
            "[open] F: tensor \"a\" ends before it begins: [2,1]" + damaged);
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "ab"),
            "[open] F: tensor \"a\" should end at byte 3 of the data, but there are only 2; perhaps a download was cut "
            "off: fetch it "
            "again");
}

TEST(Safetensors, RangesMustTileTheData) {
  const auto two = [](std::string_view second, std::string_view data) {
    return header_error(
        R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":)" +
            std::string(second) + "}}",
        data);
  };
  EXPECT_EQ(two("[2,4]", "abcd"), "no error");
  EXPECT_EQ(
      two("[1,3]", "abc"),
      "[open] F: tensor \"b\" begins at byte 1 of the data, but the one before it ends at 2; the file is damaged");
  EXPECT_EQ(
      two("[0,2]", "ab"),
      "[open] F: tensor \"b\" begins at byte 0 of the data, but the one before it ends at 2; the file is damaged");
  EXPECT_EQ(
      two("[3,5]", "abcde"),
      "[open] F: tensor \"b\" begins at byte 3 of the data, but the one before it ends at 2; the file is damaged");
  EXPECT_EQ(two("[2,4]", "abcde"),
            "[open] F: the tensors end at byte 4 of the data, but there are 5; the file is damaged");
}

class SafetensorsFolderTest : public testing::Test {
 protected:
  SafetensorsFolderTest()
      : folder_(fs::temp_directory_path() / ("awq-safetensors-test-" + std::to_string(::getpid()))) {
    fs::create_directory(folder_);
  }
  ~SafetensorsFolderTest() override { fs::remove_all(folder_); }

  void make(std::string_view name, std::string_view bytes) const { std::ofstream(folder_ / name) << bytes; }
  void make_shard(std::string_view name, std::string_view tensor) const {
    make(name, file_of("{\"" + std::string(tensor) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                       tensor.substr(0, 1)));
  }
  void make_index(std::string_view map) const {
    make("model.safetensors.index.json", "{\"weight_map\":" + std::string(map) + "}");
  }
  std::string open_error() const {
    return without_folder(message([&] { SafetensorsFolder folder(folder_); }));
  }
  std::string without_folder(std::string text) const {
    for (size_t at; (at = text.find(folder_.string())) != text.npos;) text.replace(at, folder_.string().size(), "D");
    return text;
  }
  void write(const std::string& name, uint64_t shard_bytes,
             std::span<const std::pair<std::string, Tensor>> tensors) const {
    uint64_t room = 0;
    for (const auto& [tensor, value] : tensors) room += SafetensorsWriter::room_for(tensor);
    AtomicDir dir(folder_ / name);
    SafetensorsFolderWriter writer(dir, room, shard_bytes);
    for (const auto& [tensor, value] : tensors) writer.put(tensor, value);
    writer.finish();
    dir.commit();
  }

  fs::path folder_;
};

TEST_F(SafetensorsFolderTest, SingleFileOrShards) {
  EXPECT_FALSE(SafetensorsFolder::exists(folder_));
  make_shard("s1.safetensors", "a");
  make_shard("s2.safetensors", "b");
  make_index(R"({"a":"s1.safetensors","b":"s2.safetensors"})");
  EXPECT_TRUE(SafetensorsFolder::exists(folder_));
  const SafetensorsFolder folder(folder_);
  EXPECT_EQ(folder.tensor("b").as<uint8_t>()[0], 'b');
  EXPECT_EQ(folder.find("c"), nullptr);
  EXPECT_EQ(without_folder(message([&] { folder.tensor("c"); })), "[open] D: there is no tensor c");
  make_shard("model.safetensors", "c");
  EXPECT_EQ(SafetensorsFolder(folder_).tensor("c").as<uint8_t>()[0], 'c');  // the single file wins
}

TEST_F(SafetensorsFolderTest, IndexAndShardsMustAgree) {
  const std::string index = "[open] D/model.safetensors.index.json: ";
  make_shard("s1.safetensors", "a");
  make_shard("s2.safetensors", "b");
  make_index(R"({"a":"s1.safetensors","b":"s3.safetensors"})");
  EXPECT_EQ(open_error(),
            index + "the shard \"s3.safetensors\" is missing; perhaps a download was cut off: fetch it again");
  make_index(R"({"a":"s1.safetensors","b":"s2.safetensors","c":"s2.safetensors"})");
  EXPECT_EQ(open_error(),
            index + "tensor \"c\" should be in s2.safetensors, but is not; index and shards are not of the same model");
  make_index(R"({"a":"s2.safetensors","b":"s1.safetensors"})");
  EXPECT_EQ(open_error(),
            index + "tensor \"a\" should be in s2.safetensors, but is not; index and shards are not of the same model");
  make_shard("s2.safetensors", "a");
  make_index(R"({"a":"s1.safetensors","b":"s2.safetensors"})");
  EXPECT_EQ(open_error(),
            "[open] D/s2.safetensors: tensor \"a\" is also in D/s1.safetensors; the folder mixes two models");
}

TEST_F(SafetensorsFolderTest, IndexNeverLeavesTheFolder) {
  for (const char* name : {"../s.safetensors", "/etc/passwd", "a/b", "..", "", "a\\\\b", "a\\u0000b"}) {
    make_index("{\"a\":\"" + std::string(name) + "\"}");
    EXPECT_EQ(
        open_error(),
        "[open] D/model.safetensors.index.json: \"a\" should be in a file of the same folder, but is said to be in \"" +
            std::string(name) + "\"");
  }
  const std::string none =
      "[open] D/model.safetensors.index.json: there is no \"weight_map\" that says which file holds which tensor";
  make_index("{}");
  EXPECT_EQ(open_error(), none);
  make("model.safetensors.index.json", "[]");
  EXPECT_EQ(open_error(), none);
}

TEST_F(SafetensorsFolderTest, TruncatedShardIsNamed) {
  make("model.safetensors", file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "abc"));
  EXPECT_EQ(open_error(),
            "[open] D/model.safetensors: tensor \"a\" should end at byte 4 of the data, but there are only 3; perhaps "
            "a download was "
            "cut off: fetch it again");
}

TEST_F(SafetensorsFolderTest, WrittenTensorsComeBack) {
  const float floats[] = {1, -2, 3};
  const uint8_t bytes[] = {1, 2, 3, 4, 5};
  const std::vector<std::pair<std::string, Tensor>> tensors = {{"z.first", Tensor::of<uint8_t>(bytes, {5})},
                                                               {"a.second", Tensor::of<float>(floats, {3, 1})},
                                                               {"scalar", Tensor::of<float>({floats, 1}, {})}};
  write("one", 1000, tensors);
  write("again", 1000, tensors);
  write("shards", 12, tensors);
  EXPECT_EQ(read_text(folder_ / "one/model.safetensors"), read_text(folder_ / "again/model.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "one/model.safetensors.index.json"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "shards"), {}),
            4);  // 5, 12 and 4 bytes: three files and the index
  EXPECT_TRUE(fs::exists(folder_ / "shards/model-00003-of-00003.safetensors"));
  for (const char* name : {"one", "shards"}) {
    const SafetensorsFolder folder(folder_ / name);
    for (const auto& [tensor, value] : tensors) {
      const Tensor back = folder.tensor(tensor);
      EXPECT_EQ(back.shape(), value.shape());
      EXPECT_EQ(back.dtype(), value.dtype());
      EXPECT_EQ(std::memcmp(back.data(), value.data(), value.bytes()), 0) << tensor;
    }
  }
}

TEST_F(SafetensorsFolderTest, HeaderIsExactlyThis) {
  const uint8_t byte[] = {7};
  write("out", 1000, {{{"x", Tensor::of<uint8_t>(byte, {1})}}});
  const std::string text = read_text(folder_ / "out/model.safetensors");
  // 8 + 32 bytes of fixed text and 193 of room, up to a multiple of 64.
  std::string header = R"({"__metadata__":{"format":"pt"},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  header.resize(248, ' ');
  EXPECT_EQ(text, file_of(header, "\7"));
}

TEST_F(SafetensorsFolderTest, WriterRefusesWhatItCannotKeep) {
  const uint8_t byte[] = {7};
  const Tensor t = Tensor::of<uint8_t>(byte, {1});
  AtomicDir dir(folder_ / "out");
  SafetensorsFolderWriter writer(dir, SafetensorsWriter::room_for("a"), 1000);
  EXPECT_EQ(message([&] { writer.finish(); }), "[write] a model without a tensor cannot be written");
  writer.put("a", t);
  EXPECT_EQ(message([&] { writer.put("a", t); }), "[write] tensor a was written already");
  EXPECT_EQ(message([&] {
              for (char c = 'b'; c <= 'z'; ++c) writer.put(std::string(1, c), t);
            }),
            "[write] tensor e: the header has no room for it");
}

TEST_F(SafetensorsFolderTest, FullDiskIsReported) {
  const std::string error = message([] { SafetensorsWriter("/dev/full", 100); });
  EXPECT_TRUE(error.starts_with("[write] /dev/full: No space left on device; the disk is full, it has ")) << error;
}

TEST(RoomFor, HoldsTheLongestEntry) {
  // 20 digits are the most that a size has.
  const std::string size(20, '9');
  const std::string entry = R"(,"x":{"dtype":"BF16","shape":[)" + size + "," + size + "," + size + "," + size +
                            R"(],"data_offsets":[)" + size + "," + size + "]}";
  EXPECT_LE(entry.size(), SafetensorsWriter::room_for("x"));
}

}  // namespace
}  // namespace awq
