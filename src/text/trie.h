#pragma once
#include <string_view>

#include "text/merges.h"

namespace awq {

/// Texts and what each stands for, found byte by byte. Node 0 is the root.
class Trie {
 public:
  /// Replaces the value of an earlier equal text. Values are not negative.
  void add(std::string_view text, int32_t value) {
    int32_t node = 0;
    for (const char b : text) {
      const int32_t next = child(node, b);
      if (next < 0) edges_.set(node, static_cast<unsigned char>(b), {0, int32_t(values_.size())});
      node = next < 0 ? int32_t(values_.size()) : next;
      if (next < 0) values_.push_back(-1);
    }
    values_[size_t(node)] = value;
  }
  /// Negative if no text goes on like this.
  int32_t child(int32_t node, char byte) const {
    const Merge* edge = edges_.find(node, static_cast<unsigned char>(byte));
    return edge ? edge->id : -1;
  }
  /// Of the text that ends at the node; negative if none does.
  int32_t value(int32_t node) const { return values_[size_t(node)]; }

 private:
  Merges edges_;  // (node, byte) -> node
  std::vector<int32_t> values_{-1};
};

}  // namespace awq
