// Damages files in ways that find faults in loaders. Deterministic: a seed and an input give the same bytes
// everywhere.
#pragma once

#include <cstdint>
#include <string>

namespace vkflux::test {

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : state_(seed) {}

  /// One to four changes to `input`: flipped bits, truncation, moved ranges, length fields, numbers, strings
  /// and brackets of JSON, deep nesting, and splices with `other`.
  std::string mutate(std::string input, const std::string& other);

  uint64_t next();                 // splitmix64
  size_t below(size_t n);          // [0, n), 0 for n = 0
  uint64_t interesting_integer();  // boundaries of the integer types, small numbers, random ones

 private:
  void change(std::string& bytes, const std::string& other);
  void write_length(std::string& bytes);
  void replace_number(std::string& bytes);
  void swap_strings(std::string& bytes);
  uint64_t state_;
};

}  // namespace vkflux::test
