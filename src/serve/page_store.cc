#include "serve/page_store.h"

namespace awq {

std::vector<PageStore::Handle> PageStore::find(int kind, std::span<const int32_t> tokens) {
  std::vector<Handle> found;
  for (Page* at = &root(kind); tokens.size() >= positions_; tokens = tokens.subspan(positions_)) {
    const auto it = at->next.find({tokens.begin(), tokens.begin() + ptrdiff_t(positions_)});
    if (it == at->next.end()) break;
    found.push_back(it->second);
    at = it->second.get();
    touch(*at);
  }
  return found;
}

PageStore::Handle PageStore::put(int kind, const Handle& before, std::span<const int32_t> tokens,
                                 std::vector<Tensor> blocks) {
  Page& parent = before ? *before : root(kind);
  const auto [it, added] = parent.next.try_emplace({tokens.begin(), tokens.end()});
  if (added) {
    it->second = std::make_shared<Page>(Page{.blocks = std::move(blocks), .before = &parent, .tokens = it->first});
    ++pages_;
  }
  touch(*it->second);
  return it->second;
}

bool PageStore::drop_one() {
  Page* victim = nullptr;
  for (auto& [kind, page] : roots_)
    if (Page* p = oldest(page); p && (!victim || p->used < victim->used)) victim = p;
  if (!victim) return false;
  victim->before->next.erase(std::vector<int32_t>(victim->tokens));  // a copy: the page goes, and its tokens
  --pages_;
  return true;
}

// A page in use is reached through pages in use: whoever has it has those before it.
PageStore::Page* PageStore::oldest(Page& page) const {
  Page* found = nullptr;
  for (auto& [tokens, next] : page.next) {
    Page* p = next->next.empty() ? (next.use_count() == 1 ? next.get() : nullptr) : oldest(*next);
    if (p && (!found || p->used < found->used)) found = p;
  }
  return found;
}

}  // namespace awq
