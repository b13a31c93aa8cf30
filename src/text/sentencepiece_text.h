#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/characters_map.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/trie.h"

namespace awq {

/// What SentencePiece does to texts before and after its model (NormalizerSpec).
struct SentencePieceRules {
  std::optional<CharactersMap> map;  // what is replaced, the longest match first
  bool add_space = true;             // one before each text
  bool space_behind = false;         // or behind it
  bool remove_spaces = true;         // around the text, and all but one of a run
  bool mark_spaces = true;           // they become U+2581
  Trie symbols{};                    // texts that are left as they are
  bool has_symbols = false;

  void add_symbol(std::string_view text) {
    symbols.add(text, 0);
    has_symbols = true;
  }
};

std::unique_ptr<Normalizer> sentencepiece_normalizer(const SentencePieceRules& rules);
/// The unknown token is written as `surface`.
DecoderFactory sentencepiece_decoder(const SentencePieceRules& rules, std::string_view unknown,
                                     std::string_view surface);

}  // namespace awq
