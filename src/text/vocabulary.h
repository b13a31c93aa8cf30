#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

/// Texts and their ids, both ways. Ids may have holes, but memory is taken for every id: a file that says "a": 16000000
/// and no more must not cost half a gigabyte. Immutable once filled.
class Vocabulary {
 public:
  static constexpr int32_t limit = 1 << 24;  // above any id; the largest published vocabulary has 262,144 entries

  explicit Vocabulary(size_t entries);
  /// Throws Error if the text or the id is taken, or the id is implausible for so many entries.
  void add(std::string_view text, int64_t id);
  std::optional<int32_t> id_of(std::string_view text) const;
  /// Null if no text has the id.
  const std::string* text_of(int32_t id) const;
  /// One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }

 private:
  // Open addressing: building Gemma 3's merges takes 1.5 million look-ups, and std::unordered_map needs twice the time.
  struct Slot {
    uint32_t hash;
    int32_t id;  // -1: free
  };
  size_t slot_of(std::string_view text, uint32_t hash) const;
  void grow();

  std::vector<std::string> texts_;  // by id
  std::vector<bool> used_;          // by id
  std::vector<Slot> slots_;         // a power of two, at most half of them taken
  size_t count_ = 0;
  size_t largest_;  // id
};

}  // namespace awq
