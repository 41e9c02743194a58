// Learning the merges of a BPE vocabulary from the words of a corpus.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace vkflux {

/// A distinct piece of the texts as symbols, and how often it occurs.
struct BpeWord {
  std::vector<std::string> symbols;
  int64_t count = 0;
};
using BpePair = std::pair<std::string, std::string>;

/// While `wanted`, the most frequent adjacent pair (of several the alphabetically first) goes to `take` and
/// is merged in all words; until there is none.
void learn_merges(std::vector<BpeWord> words, const std::function<bool()>& wanted,
                  const std::function<void(const BpePair&)>& take);

}  // namespace vkflux
