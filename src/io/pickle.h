#pragma once
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace awq {

/// A value of a pickle. Items point to other values of the same Pickle, which may hold itself in a circle: who reads
/// them goes no deeper than the structure that it expects.
struct PickleValue {
  enum class Kind : uint8_t { none, boolean, integer, real, text, list, tuple, dict, global, storage, tensor };
  Kind kind = Kind::none;
  int64_t integer = 0;  // of a boolean and an integer; of a storage: its elements
  double real = 0;
  std::string text;  // of a text; of a global: "module name"; of a storage: its key
  /// Of a list and a tuple; of a dict: key, value, key, value; of a tensor: storage, offset, shape, strides.
  std::vector<PickleValue*> items;
  DType dtype = DType::f32;  // of a storage
};
std::string_view name_of(PickleValue::Kind kind);

/// A pickle of plain data and PyTorch tensors, as torch.save writes it with protocol 2. It is read as data: no code is
/// imported or run. Understood are the opcodes that build numbers, texts, lists, tuples and dicts, and the globals
/// torch._utils._rebuild_tensor_v2, torch's storages of F16, BF16, F32, I16, I32 and I64, and
/// collections.OrderedDict (empty, then filled; attributes that it is given are forgotten). Throws Error naming opcode
/// or global, and its offset, on everything else.
class Pickle {
 public:
  /// `name` stands for the path in errors.
  Pickle(std::span<const std::byte> bytes, std::string name);
  const PickleValue& root() const { return *root_; }

 private:
  friend class PickleMachine;
  std::deque<PickleValue> values_;
  const PickleValue* root_ = nullptr;
};

}  // namespace awq
