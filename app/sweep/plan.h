// Sweeps of the command line: `--sweep name=v1,v2,...`, and the pictures that follow from several of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vkflux {

struct SweepValue {
  std::string text;   // as in labels and tables
  double number = 0;  // of every name but seed and size
  uint64_t seed = 0;
  int64_t width = 0, height = 0;
};

struct SweepList {
  std::string name;
  std::vector<SweepValue> values;
};

/// Names: seed, steps, cfg, guidance, quality-speed, size, strength, policy-temperature. Values are read by
/// number_list() (so "3" alone means 1, 2, 3 and "3," means 3), those of seed by parse_seeds(), those of size
/// are sides or WIDTHxHEIGHT. Error invalid_argument names the sweep and the value.
SweepList parse_sweep(const std::string& text);

enum class SweepMode {
  clock,         // every list is spread over the pictures of the prompts and seeds
  combinations,  // up to four lists, each repeated to the product of their lengths (10.5)
  product        // every combination once, the last list fastest
};
SweepMode parse_sweep_mode(const std::string& text);

/// One picture: which prompt and seed it belongs to, and the index of its value in each list.
struct SweepPoint {
  size_t base = 0;
  std::vector<size_t> values;
};

/// `bases` prompt and seed pairs under these lists. In mode clock the clock is the longest of all, the other
/// modes repeat all combinations for every base. Error invalid_argument: more than 4096 pictures, more than
/// four lists of mode combinations, or one name twice.
std::vector<SweepPoint> sweep_points(const std::vector<SweepList>& lists, SweepMode mode, size_t bases);

}  // namespace vkflux
