#include "io/pickle.h"

#include <array>
#include <cstring>
#include <unordered_map>

#include "base/check.h"

namespace awq {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t kMaxPickled = 4'000'000;  // some 500 MB; a search of 80 blocks has 20 thousand

constexpr std::string_view kRebuild = "torch._utils _rebuild_tensor_v2", kOrderedDict = "collections OrderedDict";
struct StorageType {
  std::string_view global;
  DType dtype;
};
constexpr std::array kStorages = {
    StorageType{"torch HalfStorage", DType::f16},  StorageType{"torch BFloat16Storage", DType::bf16},
    StorageType{"torch FloatStorage", DType::f32}, StorageType{"torch ShortStorage", DType::i16},
    StorageType{"torch IntStorage", DType::i32},   StorageType{"torch LongStorage", DType::i64}};

bool known(std::string_view global) {
  for (const StorageType& s : kStorages)
    if (s.global == global) return true;
  return global == kRebuild || global == kOrderedDict;
}

}  // namespace

std::string_view name_of(Kind kind) {
  static constexpr std::array<std::string_view, 11> names = {"None",     "a bool",    "an integer", "a number",
                                                             "a text",   "a list",    "a tuple",    "a dict",
                                                             "a global", "a storage", "a tensor"};
  return names[size_t(kind)];
}

/// Runs the opcodes. Every method that reads or pops checks first.
class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, const std::string& name, Pickle& out)
      : bytes_(bytes), name_(name), out_(out) {}

  const PickleValue* run() {
    for (;;) {
      begin_ = at_;
      const auto op = get<uint8_t>();
      if (op == '.') return result();
      if (!build(op) && !collect(op) && !call(op)) refuse(fmt::format("opcode 0x{:02x} is not read", op));
    }
  }

 private:
  using Values = std::vector<PickleValue*>;

  [[noreturn]] void refuse(std::string_view what) const {
    fail("open",
         "{}: byte {} of its pickle: {}. Pickles can hold programs; only lists, texts and tensors are read, as llm-awq "
         "saves searches and models, and nothing is run",
         name_, begin_, what);
  }

  std::string_view take(uint64_t n) {
    if (n > bytes_.size() - at_) refuse("it ends too early");
    const std::string_view part(reinterpret_cast<const char*>(bytes_.data()) + at_, size_t(n));
    at_ += size_t(n);
    return part;
  }
  template <class T>
  T get() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view line() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_);
    const size_t n = rest.find('\n');
    if (n == rest.npos) refuse("it ends too early");
    return take(n + 1).substr(0, n);
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleValue* top() const {
    if (stack_.size() <= floor()) refuse("its stack is empty");
    return stack_.back();
  }
  PickleValue* pop() {
    PickleValue* v = top();
    stack_.pop_back();
    return v;
  }
  Values pop(size_t n) {
    if (stack_.size() - floor() < n) refuse("its stack is empty");
    Values v(stack_.end() - ptrdiff_t(n), stack_.end());
    stack_.resize(stack_.size() - n);
    return v;
  }
  Values pop_to_mark() {
    if (marks_.empty()) refuse("it has no mark");
    Values v = pop(stack_.size() - floor());
    marks_.pop_back();
    return v;
  }
  PickleValue* expect(PickleValue* v, Kind kind) const {
    if (v->kind != kind) refuse(fmt::format("{} where {} should be", name_of(v->kind), name_of(kind)));
    return v;
  }
  bool push(PickleValue v) {
    if (out_.values_.size() == kMaxPickled) refuse("it has more than 4 million values");
    out_.values_.push_back(std::move(v));
    stack_.push_back(&out_.values_.back());
    return true;
  }
  bool push_integer(int64_t i) { return push({.kind = Kind::integer, .integer = i, .text = {}, .items = {}}); }
  bool push_bool(bool b) { return push({.kind = Kind::boolean, .integer = b, .text = {}, .items = {}}); }
  bool push_text(Kind kind, std::string text) { return push({.kind = kind, .text = std::move(text), .items = {}}); }
  bool push_items(Kind kind, Values items) { return push({.kind = kind, .text = {}, .items = std::move(items)}); }

  int64_t long_integer() {
    const std::string_view digits = take(get<uint8_t>());
    if (digits.size() > 8) refuse("an integer of more than 64 bits");
    uint64_t bits = 0;
    for (size_t i = 0; i < digits.size(); ++i) bits |= uint64_t(uint8_t(digits[i])) << (8 * i);
    const unsigned unused = 64 - 8 * unsigned(digits.size());
    return digits.empty() ? 0 : int64_t(bits << unused) >> unused;
  }
  double big_endian_real() {
    auto bits = get<uint64_t>();
    bits = __builtin_bswap64(bits);
    double d;
    std::memcpy(&d, &bits, sizeof(d));
    return d;
  }
  bool protocol() {
    if (const auto version = get<uint8_t>(); version > 5) refuse(fmt::format("protocol {} is not known", version));
    return true;
  }
  bool global() {
    std::string name(line());
    name += ' ';
    name += line();
    if (!known(name)) refuse(fmt::format("the global {:.80} is not read", name));
    return push_text(Kind::global, std::move(name));
  }

  /// Opcodes that push one value.
  bool build(uint8_t op) {
    switch (op) {
      case 0x80:
        return protocol();
      case 'N':
        return push({.kind = Kind::none, .text = {}, .items = {}});
      case 0x88:
        return push_bool(true);
      case 0x89:
        return push_bool(false);
      case 'K':
        return push_integer(get<uint8_t>());
      case 'M':
        return push_integer(get<uint16_t>());
      case 'J':
        return push_integer(get<int32_t>());
      case 0x8a:
        return push_integer(long_integer());
      case 'G':
        return push({.kind = Kind::real, .real = big_endian_real(), .text = {}, .items = {}});
      case 'X':
        return push_text(Kind::text, std::string(take(get<uint32_t>())));
      case ']':
        return push_items(Kind::list, {});
      case ')':
        return push_items(Kind::tuple, {});
      case '}':
        return push_items(Kind::dict, {});
      case 'c':
        return global();
      default:
        return false;
    }
  }

  /// Opcodes that gather values and remember them.
  bool collect(uint8_t op) {
    switch (op) {
      case '(':
        marks_.push_back(stack_.size());
        return true;
      case 't':
        return push_items(Kind::tuple, pop_to_mark());
      case 0x85:
        return push_items(Kind::tuple, pop(1));
      case 0x86:
        return push_items(Kind::tuple, pop(2));
      case 0x87:
        return push_items(Kind::tuple, pop(3));
      case 'a':
        return extend(Kind::list, pop(1));
      case 'e':
        return extend(Kind::list, pop_to_mark());
      case 's':
        return extend(Kind::dict, pop(2));
      case 'u':
        return extend(Kind::dict, pop_to_mark());
      case 'q':
        return remember(get<uint8_t>());
      case 'r':
        return remember(get<uint32_t>());
      case 'h':
        return recall(get<uint8_t>());
      case 'j':
        return recall(get<uint32_t>());
      default:
        return false;
    }
  }
  bool extend(Kind kind, const Values& items) {
    if (kind == Kind::dict && items.size() % 2) refuse("a key without a value");
    PickleValue* to = expect(top(), kind);
    to->items.insert(to->items.end(), items.begin(), items.end());
    return true;
  }
  bool remember(uint32_t key) {
    memo_[key] = top();
    return true;
  }
  bool recall(uint32_t key) {
    const auto it = memo_.find(key);
    if (it == memo_.end()) refuse(fmt::format("nothing was remembered as {}", key));
    stack_.push_back(it->second);
    return true;
  }

  /// Opcodes that would call something: a tensor, its storage, an empty OrderedDict.
  bool call(uint8_t op) {
    if (op == 'Q') return storage();
    if (op == 'b') return attributes();
    if (op != 'R') return false;
    const Values& args = expect(pop(), Kind::tuple)->items;
    const std::string& callee = expect(pop(), Kind::global)->text;
    if (callee == kOrderedDict && args.empty()) return push_items(Kind::dict, {});
    if (callee != kRebuild || args.size() < 6) refuse(fmt::format("a call of {} with {} values", callee, args.size()));
    expect(args[0], Kind::storage);
    expect(args[1], Kind::integer);
    expect(args[2], Kind::tuple);
    expect(args[3], Kind::tuple);
    return push_items(Kind::tensor, {args.begin(), args.begin() + 4});
  }
  /// Those of an OrderedDict: a state dict has the versions of its modules there, which mean nothing here.
  bool attributes() {
    expect(pop(), Kind::dict);
    expect(top(), Kind::dict);
    return true;
  }
  /// ("storage", type, key, device, elements)
  bool storage() {
    const Values& id = expect(pop(), Kind::tuple)->items;
    if (id.size() != 5 || expect(id[0], Kind::text)->text != "storage") refuse("an unknown persistent id");
    const std::string& type = expect(id[1], Kind::global)->text;
    for (const StorageType& s : kStorages)
      if (s.global == type)
        return push({.kind = Kind::storage,
                     .integer = expect(id[4], Kind::integer)->integer,
                     .text = expect(id[2], Kind::text)->text,
                     .items = {},
                     .dtype = s.dtype});
    refuse(fmt::format("{} is no type of storage", type));
  }

  const PickleValue* result() const {
    if (stack_.size() != 1 || !marks_.empty()) refuse("it ends with other than one value");
    if (at_ != bytes_.size()) refuse("something follows its end");
    return stack_.front();
  }

  std::span<const std::byte> bytes_;
  const std::string& name_;
  Pickle& out_;
  size_t at_ = 0, begin_ = 0;
  Values stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, PickleValue*> memo_;
};

Pickle::Pickle(std::span<const std::byte> bytes, std::string name) { root_ = PickleMachine(bytes, name, *this).run(); }

}  // namespace awq
