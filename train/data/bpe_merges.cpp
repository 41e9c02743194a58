#include "train/data/bpe_merges.h"

#include <map>

namespace vkflux {
namespace {

constexpr size_t kMaxTokenBytes = 512;  // readers have limits, and no word is that long

/// The most frequent adjacent pair, of several the first in order; nothing when no word has two symbols.
const BpePair* most_frequent(const std::map<BpePair, int64_t>& counts) {
  const BpePair* best = nullptr;
  int64_t most = 0;
  for (const auto& [pair, count] : counts) {
    if (count > most) {
      most = count;
      best = &pair;
    }
  }
  return best;
}

void merge_in(BpeWord& word, const BpePair& pair) {
  std::vector<std::string> out;
  for (size_t i = 0; i < word.symbols.size(); ++i) {
    const bool here =
        i + 1 < word.symbols.size() && word.symbols[i] == pair.first && word.symbols[i + 1] == pair.second;
    out.push_back(here ? pair.first + pair.second : word.symbols[i]);
    i += here ? 1 : 0;
  }
  word.symbols = std::move(out);
}

void add_pairs(const BpeWord& word, int64_t sign, std::map<BpePair, int64_t>& counts) {
  for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
    if (word.symbols[i].size() + word.symbols[i + 1].size() > kMaxTokenBytes) continue;
    const auto at = counts.try_emplace({word.symbols[i], word.symbols[i + 1]}, 0).first;
    at->second += sign * word.count;
    if (at->second == 0) counts.erase(at);
  }
}

bool contains(const BpeWord& word, const BpePair& pair) {
  for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
    if (word.symbols[i] == pair.first && word.symbols[i + 1] == pair.second) return true;
  }
  return false;
}

}  // namespace

void learn_merges(std::vector<BpeWord> words, const std::function<bool()>& wanted,
                  const std::function<void(const BpePair&)>& take) {
  std::map<BpePair, int64_t> counts;
  for (const BpeWord& word : words) add_pairs(word, 1, counts);
  while (wanted()) {
    const BpePair* best = most_frequent(counts);
    if (!best) break;
    const BpePair pair = *best;
    take(pair);
    for (BpeWord& word : words) {
      if (!contains(word, pair)) continue;
      add_pairs(word, -1, counts);
      merge_in(word, pair);
      add_pairs(word, 1, counts);
    }
  }
}

}  // namespace vkflux
