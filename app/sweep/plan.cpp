#include "app/sweep/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "app/numbers.h"
#include "app/sweep/combinations.h"
#include "app/sweep/number_list.h"
#include "app/sweep/seeds.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kMaxPictures = 4096, kMaxModularLists = 4;

struct Limits {
  const char* name;
  double min, max;
  bool whole;
};
constexpr Limits kRanges[] = {{"steps", 1, 10000, true},    {"cfg", 0, 1000, false},
                              {"guidance", 0, 1000, false}, {"quality-speed", 0, 1, false},
                              {"strength", 1e-6, 1, false}, {"policy-temperature", 1e-3, 1000, false}};

[[noreturn]] void wrong(const std::string& message) {
  throw Error(ErrorCode::invalid_argument, message);
}

std::vector<SweepValue> sizes(const std::string& text) {
  std::vector<SweepValue> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    SweepValue v;
    v.text = text.substr(at, end - at);
    at = end + 1;
    const std::string both = v.text.find('x') == std::string::npos ? v.text + "x" + v.text : v.text;
    std::tie(v.width, v.height) = size_in_pixels(both, "--sweep size");
    out.push_back(v);
  }
  return out;
}

std::vector<SweepValue> numbers(const Limits& range, const std::string& text) {
  std::vector<SweepValue> out;
  for (double x : number_list(text, fmt::format("--sweep {}", range.name))) {
    if (!(x >= range.min && x <= range.max) || (range.whole && x != std::floor(x))) {
      wrong(fmt::format("--sweep {}: {} is given, {}{} to {} is expected", range.name, x,
                        range.whole ? "a whole number from " : "", range.min, range.max));
    }
    SweepValue v;
    v.number = x;
    v.text = fmt::format("{:g}", x);
    out.push_back(v);
  }
  return out;
}

std::vector<SweepValue> seeds(const std::string& text) {
  std::vector<SweepValue> out;
  for (uint64_t seed : parse_seeds(text)) {
    SweepValue v;
    v.seed = seed;
    v.text = std::to_string(seed);
    out.push_back(v);
  }
  return out;
}

std::vector<double> indices(size_t n) {
  std::vector<double> out;
  for (size_t i = 0; i < n; ++i) out.push_back(static_cast<double>(i));
  return out;
}

SweepPoint point(size_t base, const std::vector<std::vector<double>>& columns, size_t i) {
  SweepPoint p{base, {}};
  for (const auto& column : columns) p.values.push_back(static_cast<size_t>(column[i]));
  return p;
}

std::vector<SweepPoint> clocked(const std::vector<SweepList>& lists, size_t bases, size_t length) {
  const std::vector<double> base = clocked_values(length, indices(bases));
  std::vector<std::vector<double>> columns;
  for (const SweepList& list : lists) columns.push_back(clocked_values(length, indices(list.values.size())));
  std::vector<SweepPoint> out;
  for (size_t i = 0; i < length; ++i) out.push_back(point(static_cast<size_t>(base[i]), columns, i));
  return out;
}

}  // namespace

SweepList parse_sweep(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) wrong(fmt::format("--sweep {}: NAME=VALUE,VALUE,... is expected", text));
  SweepList out{text.substr(0, equals), {}};
  const std::string values = text.substr(equals + 1);
  if (out.name == "seed") {
    out.values = seeds(values);
  } else if (out.name == "size") {
    out.values = sizes(values);
  } else {
    const auto* range = std::find_if(std::begin(kRanges), std::end(kRanges),
                                     [&](const Limits& r) { return out.name == r.name; });
    if (range == std::end(kRanges)) {
      wrong(
          fmt::format("--sweep {}: one of seed, steps, cfg, guidance, quality-speed, size, strength and "
                      "policy-temperature is expected",
                      out.name));
    }
    out.values = numbers(*range, values);
  }
  if (out.values.empty()) wrong(fmt::format("--sweep {}: no values", out.name));
  return out;
}

SweepMode parse_sweep_mode(const std::string& text) {
  if (text == "clock") return SweepMode::clock;
  if (text == "combinations") return SweepMode::combinations;
  if (text == "product") return SweepMode::product;
  wrong(fmt::format("--sweep-mode {}: clock, combinations or product is expected", text));
}

std::vector<SweepPoint> sweep_points(const std::vector<SweepList>& lists, SweepMode mode, size_t bases) {
  std::set<std::string> names;
  size_t longest = bases, product = bases;
  for (const SweepList& list : lists) {
    if (!names.insert(list.name).second) wrong(fmt::format("--sweep {} is given twice", list.name));
    longest = std::max(longest, list.values.size());
    product = std::min(kMaxPictures + 1, product * list.values.size());
  }
  const size_t total = mode == SweepMode::clock ? longest : product;
  if (total > kMaxPictures) wrong(fmt::format("the sweep asks for more than {} pictures", kMaxPictures));
  if (mode == SweepMode::clock) return clocked(lists, bases, longest);
  if (mode == SweepMode::combinations && lists.size() > kMaxModularLists) {
    wrong(fmt::format("--sweep-mode combinations takes at most {} sweeps; product takes more",
                      kMaxModularLists));
  }
  std::vector<std::vector<double>> columns;
  for (const SweepList& list : lists) columns.push_back(indices(list.values.size()));
  if (!columns.empty()) {
    columns = combinations(
        columns, mode == SweepMode::product ? CombinationMode::cartesian : CombinationMode::modular);
  }
  const size_t each = columns.empty() ? 1 : columns[0].size();
  std::vector<SweepPoint> out;
  for (size_t base = 0; base < bases; ++base) {
    for (size_t i = 0; i < each; ++i) out.push_back(point(base, columns, i));
  }
  return out;
}

}  // namespace vkflux
