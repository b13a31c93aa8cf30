#include "io/pickle.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "base/check.h"

namespace awq {
namespace {

using Kind = PickleValue::Kind;
using namespace std::string_literals;

struct Parsed {
  explicit Parsed(const std::string& text) : bytes(new std::byte[text.size()]) {
    std::memcpy(bytes.get(), text.data(), text.size());
    pickle = std::make_unique<Pickle>(std::span(bytes.get(), text.size()), "P");
  }
  const PickleValue& root() const { return pickle->root(); }
  std::unique_ptr<std::byte[]> bytes;
  std::unique_ptr<Pickle> pickle;
};

std::string refusal(const std::string& text) {
  try {
    Parsed p(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// What CPython's pickle.dumps(value, 2) writes.
TEST(Pickle, PlainValues) {
  EXPECT_EQ(Parsed("\x80\2N."s).root().kind, Kind::none);
  EXPECT_EQ(Parsed("\x80\2\x88."s).root().integer, 1);
  EXPECT_EQ(Parsed("\x80\2K\xc8."s).root().integer, 200);
  EXPECT_EQ(Parsed("\x80\2M\xe8\3."s).root().integer, 1000);
  EXPECT_EQ(Parsed("\x80\2J\x18\xfc\xff\xff."s).root().integer, -1000);
  EXPECT_EQ(Parsed("\x80\2\x8a\5\0\xf2\5*\1."s).root().integer, 5000000000);
  EXPECT_EQ(Parsed("\x80\2\x8a\5\0\x0e\xfa\xd5\xfe."s).root().integer, -5000000000);
  EXPECT_EQ(Parsed("\x80\2G?\xf8\0\0\0\0\0\0."s).root().real, 1.5);
  EXPECT_EQ(Parsed("\x80\2X\2\0\0\0hiq\0."s).root().text, "hi");
}

TEST(Pickle, Containers) {
  // [1, (2, "a"), {"k": []}]
  const Parsed p("\x80\2]q\0(K\1K\2X\1\0\0\0aq\1\x86q\2}q\3X\1\0\0\0kq\4]q\5se."s);
  const PickleValue& list = p.root();
  ASSERT_EQ(list.kind, Kind::list);
  ASSERT_EQ(list.items.size(), 3u);
  EXPECT_EQ(list.items[1]->kind, Kind::tuple);
  EXPECT_EQ(list.items[1]->items[1]->text, "a");
  ASSERT_EQ(list.items[2]->kind, Kind::dict);
  EXPECT_EQ(list.items[2]->items[0]->text, "k");
  EXPECT_EQ(list.items[2]->items[1]->kind, Kind::list);
}

TEST(Pickle, AListThatHoldsItselfIsReadAndFreed) {
  const Parsed p("\x80\2]q\0h\0a."s);
  EXPECT_EQ(p.root().items[0], &p.root());
}

TEST(Pickle, RefusesEveryGlobalButThoseOfTensors) {
  for (const char* name : {"os\nsystem", "builtins\neval", "torch._utils\n_rebuild_parameter", "torch\nDoubleStorage",
                           "torch._utils _rebuild_tensor_v2\n", "torch\nhalfStorage"}) {
    const std::string text = refusal("\x80\2c"s + name + "\n.");
    EXPECT_NE(text.find("byte 2 of its pickle: the global "), std::string::npos) << text;
  }
  EXPECT_EQ(refusal("\x80\2ctorch\nHalfStorage\n."s), "no error");
}

TEST(Pickle, RefusesEveryOpcodeThatIsNotNeeded) {
  const std::string known(
      "\x80N\x88\x89KMJ\x8aGX])}c(t\x85\x86\x87"
      "aesuqrhjQRb."s);
  for (int op = 0; op < 256; ++op) {
    if (known.find(char(op)) != known.npos) continue;
    const std::string text = refusal("\x80\2N"s + char(op));
    EXPECT_NE(text.find(fmt::format("byte 3 of its pickle: opcode 0x{:02x} is not read", op)), std::string::npos)
        << text;
  }
}

TEST(Pickle, AttributesOfADictAreForgotten) {
  const Parsed p("\x80\2ccollections\nOrderedDict\n)RX\1\0\0\0kK\1s}X\1\0\0\0aK\2sb."s);
  ASSERT_EQ(p.root().kind, Kind::dict);
  ASSERT_EQ(p.root().items.size(), 2u);
  EXPECT_EQ(p.root().items[1]->integer, 1);
  EXPECT_NE(refusal("\x80\2]}b."s).find("a list where a dict should be"), std::string::npos);
  EXPECT_NE(refusal("\x80\2})b."s).find("a tuple where a dict should be"), std::string::npos);
  EXPECT_NE(refusal("\x80\2}b."s).find("its stack is empty"), std::string::npos);
}

TEST(Pickle, RefusesCallsAndPersistentIdsOfAnotherForm) {
  EXPECT_NE(refusal("\x80\2]]R."s).find("a list where a tuple should be"), std::string::npos);
  EXPECT_NE(refusal("\x80\2X\1\0\0\0a)R."s).find("a text where a global should be"), std::string::npos);
  EXPECT_NE(refusal("\x80\2ctorch\nHalfStorage\n)R."s).find("a call of torch HalfStorage with 0 values"),
            std::string::npos);
  EXPECT_NE(refusal("\x80\2ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR."s).find("None where a storage should be"),
            std::string::npos);
  EXPECT_NE(refusal("\x80\2K\1\x85Q."s).find("an unknown persistent id"), std::string::npos);
}

TEST(Pickle, RefusesStacksThatRunEmptyAndTextsThatEnd) {
  for (const std::string& text :
       {"\x80\2."s, "\x80\2\x85."s, "\x80\2t."s, "\x80\2a."s, "\x80\2(]e."s, "\x80\2h\7."s, "\x80\2q\0."s,
        "\x80\2]K\1"s, "\x80\2X\xff\xff\xff\xff."s, "\x80\2\x8a\x09\0\0\0\0\0\0\0\0\0."s, "\x80\2NN."s, "\x80\2N.N"s,
        "\x80\2}(K\1u."s, "\x80\2cos"s, "\x80\6N."s, ""s})
    EXPECT_NE(refusal(text), "no error") << testing::PrintToString(text);
}

}  // namespace
}  // namespace awq
