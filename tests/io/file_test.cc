#include "io/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <regex>

#include "awq/error.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  FileTest() : folder_(fs::temp_directory_path() / ("awq-file-test-" + std::to_string(::getpid()))) {
    fs::create_directory(folder_);
  }
  ~FileTest() override { fs::remove_all(folder_); }
  fs::path make(std::string_view name, std::string_view bytes) const {
    std::ofstream(folder_ / name) << bytes;
    return folder_ / name;
  }
  /// The Error's message with the test's folder written as D.
  template <class F>
  std::string message(F&& f) const {
    try {
      f();
    } catch (const Error& e) {
      std::string text = e.what();
      for (size_t at; (at = text.find(folder_.string())) != text.npos;) text.replace(at, folder_.string().size(), "D");
      return text;
    }
    return "no error";
  }
  size_t entries() const { return size_t(std::distance(fs::directory_iterator(folder_), fs::directory_iterator())); }

  fs::path folder_;
};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(FileTest, MappingOutlivesTheObjectWithItsOwner) {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
  {
    const MappedFile file(make("a", "hello"));
    owner = file.owner();
    bytes = file.bytes();
  }
  EXPECT_EQ(text_of(bytes), "hello");
}

/// Of this process, bytes of files' pages.
size_t file_pages() {
  size_t size = 0, resident = 0, shared = 0;
  std::ifstream("/proc/self/statm") >> size >> resident >> shared;
  return shared * size_t(sysconf(_SC_PAGESIZE));
}

TEST_F(FileTest, DroppedPagesAreTheFilesAlone) {
  const std::string text(8 << 20, 'x');
  const MappedFile file(make("a", text));
  EXPECT_EQ(text_of(file.bytes()), text);
  const size_t before = file_pages();
  drop_pages(file.bytes(), file.owner());
  EXPECT_LE(file_pages() + text.size() / 2, before);
  EXPECT_EQ(text_of(file.bytes()), text);
  const auto owner = std::make_shared<const std::string>(text);
  drop_pages(std::as_bytes(std::span(*owner)), owner);
  EXPECT_EQ(*owner, text);
}

TEST_F(FileTest, PartsAreReadFromTheFileOrFromMemory) {
  const MappedFile file(make("a", "hello"));
  std::array<std::byte, 3> got{};
  read_part(file.bytes().subspan(1, 3), file.owner(), got.data());
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(got.data()), 3), "ell");
  const auto owner = std::make_shared<const std::string>("world");
  read_part(std::as_bytes(std::span(*owner)).subspan(2), owner, got.data());
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(got.data()), 3), "rld");
  fs::resize_file(file.path(), 2);
  EXPECT_EQ(message([&] { read_part(file.bytes().subspan(1, 3), file.owner(), got.data()); }),
            "[read] D/a: the file has become shorter since it was opened");
}

TEST_F(FileTest, MappingRefusesWhatIsNoFile) {
  EXPECT_EQ(message([&] { MappedFile(folder_ / "absent"); }),
            "[open] D/absent: No such file or directory; check the path");
  EXPECT_EQ(message([&] { MappedFile file(folder_); }), "[open] D: Is a directory; give a file");
  EXPECT_EQ(message([&] { MappedFile(make("e", "")); }),
            "[open] D/e: the file is empty; perhaps a download was cut off: fetch it again");
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(message([&] { MappedFile(folder_ / "pipe"); }),
            "[open] D/pipe: not a regular file; only those can be mapped");
}

TEST_F(FileTest, TextIsReadUpToItsLimit) {
  const std::string long_text(200000, 'x');
  EXPECT_EQ(read_text(make("t", long_text)), long_text);
  EXPECT_EQ(read_text(make("t", "")), "");
  EXPECT_EQ(read_text(make("t", "12345"), 5), "12345");
  EXPECT_EQ(message([&] { read_text(make("t", "123456"), 5); }),
            "[read] D/t: more than the 5 bytes allowed for this kind of file");
  EXPECT_EQ(message([&] { read_text(folder_); }), "[read] D: Is a directory; give a file");
  EXPECT_EQ(message([&] { read_text(folder_ / "absent"); }),
            "[open] D/absent: No such file or directory; check the path");
}

TEST_F(FileTest, FolderAppearsOnlyWithCommit) {
  const fs::path source = make("source", "copied");
  AtomicDir dir(folder_ / "out/");  // a trailing slash is no part of the name
  dir.write("a.txt", "written");
  dir.copy("b.txt", source);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_EQ(dir.path("a.txt").parent_path(), folder_ / ("out.partial-" + std::to_string(::getpid())));
  dir.commit();
  EXPECT_EQ(read_text(folder_ / "out/a.txt"), "written");
  EXPECT_EQ(read_text(folder_ / "out/b.txt"), "copied");
  EXPECT_EQ(entries(), 2u);  // source and out: the temporary name is gone
}

TEST_F(FileTest, UncommittedFolderLeavesNothing) {
  {
    AtomicDir dir(folder_ / "out");
    dir.write("a.txt", "written");
    EXPECT_EQ(entries(), 1u);
  }
  EXPECT_EQ(entries(), 0u);
}

TEST_F(FileTest, ExistingOutputIsNeverTouched) {
  make("out", "precious");
  EXPECT_EQ(message([&] { AtomicDir(folder_ / "out"); }),
            "[write] D/out: exists already; remove it or choose another output");
  fs::create_symlink("nowhere", folder_ / "dangling");
  EXPECT_EQ(message([&] { AtomicDir(folder_ / "dangling"); }),
            "[write] D/dangling: exists already; remove it or choose another output");
  AtomicDir late(folder_ / "late");
  fs::create_directory(folder_ / "late");
  EXPECT_EQ(message([&] { late.commit(); }),
            "[write] D/late: was created by another program meanwhile; remove it or choose another output");
  EXPECT_EQ(read_text(folder_ / "out"), "precious");
}

TEST_F(FileTest, FolderNeedsAPlaceAndNames) {
  const std::string error = message([&] { AtomicDir(folder_ / "no/out"); });
  EXPECT_EQ(std::regex_replace(error, std::regex("-[0-9]+"), "-N"),
            "[write] D/no/out.partial-N: No such file or directory; check the path");
  EXPECT_EQ(message([] { AtomicDir(""); }), "[write] the output folder has no name");
  const AtomicDir dir(folder_ / "out");
  for (const char* name : {"", ".", "..", "a/b", "../b", "/etc/passwd"})
    EXPECT_EQ(message([&] { dir.path(name); }),
              "[write] \"" + std::string(name) + "\" is no file name: a name without directories is needed");
}

TEST_F(FileTest, OutputIsWhatWasWritten) {
  OutputFile file(folder_ / "o");
  file.write("front ");
  file.write(std::string_view());
  file.write("to back");
  file.close();
  EXPECT_EQ(read_text(folder_ / "o"), "front to back");
  EXPECT_EQ(message([&] { OutputFile bad(folder_ / "no/o"); }),
            "[write] D/no/o: No such file or directory; check the path");
}

TEST_F(FileTest, FullDiskSaysHowMuchIsLeft) {
  const std::string error = message([] {
    OutputFile file("/dev/full");
    file.write("x");
  });
  EXPECT_EQ(
      std::regex_replace(error, std::regex("[0-9]+\\.[0-9] MB"), "N MB"),
      "[write] /dev/full: No space left on device; the disk is full, it has N MB left: free some space or write to "
      "another disk");
}

}  // namespace
}  // namespace awq
