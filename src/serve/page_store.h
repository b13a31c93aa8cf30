#pragma once
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace awq {

/// Full pages of keys and values by the tokens that they and all pages before them hold, so that requests which begin
/// alike share them. Tokens are compared, not hashes of them. Not thread-safe.
class PageStore {
 public:
  struct Page {
    std::vector<Tensor> blocks;  // see KvCache::page
    std::map<std::vector<int32_t>, std::shared_ptr<Page>> next{};
    Page* before = nullptr;
    std::vector<int32_t> tokens{};
    uint64_t used = 0;
  };
  /// Whoever has one keeps the page.
  using Handle = std::shared_ptr<Page>;

  explicit PageStore(int page_positions) : positions_(size_t(page_positions)) {}
  /// Pages of whole tokens of the beginning of `tokens`, as many as are here. `kind`: what tells keys of the same
  /// tokens apart (RopeSpec::regime).
  std::vector<Handle> find(int kind, std::span<const int32_t> tokens);
  /// The page of these tokens behind `before` (null: the first), which is `blocks` unless it was here already.
  Handle put(int kind, const Handle& before, std::span<const int32_t> tokens, std::vector<Tensor> blocks);
  /// Drops the page whose last use is longest ago of those that nobody has and none is behind; false: there is none.
  bool drop_one();
  int64_t pages() const { return pages_; }

 private:
  Page& root(int kind) { return roots_[kind]; }
  void touch(Page& page) { page.used = ++clock_; }
  /// The least recently used one that may go, `page` or behind it; null: none.
  Page* oldest(Page& page) const;

  size_t positions_;
  std::map<int, Page> roots_;  // without blocks
  int64_t pages_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace awq
