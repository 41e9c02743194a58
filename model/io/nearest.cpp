// Suggestions for names that aren't there.
#include <algorithm>
#include <numeric>
#include <utility>

#include "model/io/file.h"
#include "model/io/tensor_source.h"

namespace vkflux::io {

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  const auto distance = [&](const std::string& other) {
    std::vector<size_t> d(other.size() + 1);
    std::iota(d.begin(), d.end(), size_t{0});
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = d[0];
      d[0] = i;
      for (size_t j = 1; j <= other.size(); ++j) {
        const size_t up = d[j];
        d[j] = std::min({up + 1, d[j - 1] + 1, diagonal + (name[i - 1] != other[j - 1])});
        diagonal = up;
      }
    }
    return d.back();
  };
  std::vector<std::pair<size_t, std::string>> ranked;
  // Enough to be helpful, and bounded for hostile files.
  constexpr size_t kMaxCandidates = 2048, kMaxLength = 160;
  const size_t limit = std::min(candidates.size(), kMaxCandidates);
  for (size_t i = 0; i < limit && name.size() <= kMaxLength; ++i) {
    if (candidates[i].size() <= kMaxLength) ranked.emplace_back(distance(candidates[i]), candidates[i]);
  }
  std::sort(ranked.begin(), ranked.end());
  std::string out;
  for (size_t i = 0; i < std::min<size_t>(3, ranked.size()); ++i) {
    if (ranked[i].first <= name.size() / 2)
      out += (out.empty() ? "; nearest: " : ", ") + shown(ranked[i].second);
  }
  return out;
}

}  // namespace vkflux::io
