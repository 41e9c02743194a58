#include "app/sweep/combinations.h"

#include <fmt/format.h>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kMaxCombinations = 1000000;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, what);
}

}  // namespace

std::vector<double> clocked_values(size_t clock_length, const std::vector<double>& values) {
  if (clock_length == 0) refuse("the clock of a sweep has no entries");
  if (values.empty()) refuse("a sweep has no values");
  if (values.size() > clock_length) {
    refuse(fmt::format("a sweep has {} values, more than the {} entries of its clock", values.size(),
                       clock_length));
  }
  const size_t each = clock_length / values.size(), more = clock_length % values.size();
  std::vector<double> out;
  out.reserve(clock_length);
  for (size_t i = 0; i < values.size(); ++i) out.insert(out.end(), each + (i < more ? 1 : 0), values[i]);
  return out;
}

std::vector<double> clock_or_count(std::vector<double> clock, const std::vector<double>& values) {
  if (!clock.empty()) return clock;
  for (size_t i = 1; i <= values.size(); ++i) clock.push_back(static_cast<double>(i));
  return clock;
}

std::vector<std::vector<double>> combinations(const std::vector<std::vector<double>>& lists,
                                              CombinationMode mode) {
  if (lists.empty()) refuse("combinations need at least one list of values");
  size_t total = 1;
  for (size_t k = 0; k < lists.size(); ++k) {
    if (lists[k].empty()) refuse(fmt::format("list {} of the combinations has no values", k + 1));
    if (lists[k].size() > kMaxCombinations / total)
      refuse(fmt::format("there would be more than {} combinations", kMaxCombinations));
    total *= lists[k].size();
  }
  std::vector<std::vector<double>> out(lists.size());
  size_t period = total;  // after which list k has gone round once
  for (size_t k = 0; k < lists.size(); ++k) {
    const size_t n = lists[k].size();
    period /= n;
    for (size_t i = 0; i < total; ++i)
      out[k].push_back(lists[k][(mode == CombinationMode::cartesian ? i / period : i) % n]);
  }
  return out;
}

std::vector<std::vector<double>> optional_combinations(const std::vector<std::vector<double>>& lists,
                                                       CombinationMode mode) {
  if (lists.empty() || lists.front().empty()) refuse("the first list of the combinations has no values");
  std::vector<std::vector<double>> present, out(lists.size());
  for (const auto& list : lists) {
    if (!list.empty()) present.push_back(list);
  }
  auto combined = combinations(present, mode);
  auto next = combined.begin();
  for (size_t k = 0; k < lists.size(); ++k) {
    if (!lists[k].empty()) out[k] = std::move(*next++);
  }
  return out;
}

}  // namespace vkflux
