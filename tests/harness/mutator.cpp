#include "tests/harness/mutator.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>
#include <vector>

namespace vkflux::test {
namespace {

using Range = std::pair<size_t, size_t>;  // begin, length

std::vector<Range> numbers_in(const std::string& text) {
  std::vector<Range> out;
  for (size_t i = 0; i < text.size(); ++i) {
    size_t end = i;
    while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end]))) ++end;
    if (end > i) out.emplace_back(i, end - i);
    i = end;
  }
  return out;
}

std::vector<Range> strings_in(const std::string& text) {
  std::vector<Range> out;
  for (size_t open = text.find('"'); open != std::string::npos;) {
    const size_t close = text.find('"', open + 1);
    if (close == std::string::npos) break;
    out.emplace_back(open, close + 1 - open);
    open = text.find('"', close + 1);
  }
  return out;
}

}  // namespace

uint64_t Mutator::next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

size_t Mutator::below(size_t n) {
  return n ? static_cast<size_t>(next() % n) : 0;
}

uint64_t Mutator::interesting_integer() {
  constexpr std::array<uint64_t, 16> kEdges{
      0,     1,     2,           3,          7,        8,          127,        255,
      65535, 65536, 100'000'000, 0x7fffffff, 1u << 31, 0xffffffff, 1ull << 62, UINT64_MAX};
  switch (below(4)) {
    case 0:
      return next() >> below(64);
    case 1:
      return kEdges[below(kEdges.size())] + below(3) - 1;
    default:
      return kEdges[below(kEdges.size())];
  }
}

void Mutator::write_length(std::string& bytes) {
  const size_t width = size_t{1} << below(4);
  if (bytes.size() < width) return;
  const size_t at =
      below(2) ? below(std::min<size_t>(bytes.size() - width + 1, 32)) : below(bytes.size() - width + 1);
  const uint64_t value = interesting_integer();
  const bool big_endian = below(2) != 0;
  for (size_t i = 0; i < width; ++i) {
    bytes[at + (big_endian ? width - 1 - i : i)] = static_cast<char>(value >> (8 * i));
  }
}

void Mutator::replace_number(std::string& bytes) {
  const auto numbers = numbers_in(bytes);
  if (numbers.empty()) return;
  const auto [at, length] = numbers[below(numbers.size())];
  std::string text = std::to_string(interesting_integer());
  if (below(8) == 0) text = "-" + text;
  if (below(8) == 0) text += below(2) ? ".5" : "e9";
  bytes.replace(at, length, text);
}

void Mutator::swap_strings(std::string& bytes) {
  const auto strings = strings_in(bytes);
  if (strings.size() < 2) return;
  const Range from = strings[below(strings.size())], to = strings[below(strings.size())];
  bytes.replace(to.first, to.second, bytes.substr(from.first, from.second));  // often a duplicate key
}

void Mutator::change(std::string& bytes, const std::string& other) {
  const size_t at = below(bytes.size() + 1), rest = bytes.size() - at;
  switch (below(13)) {
    case 0:
      if (rest) bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(8));
      break;
    case 1:
      if (rest) bytes[at] = static_cast<char>(next());
      break;
    case 2:
      bytes.resize(at);
      break;
    case 3:
      bytes.erase(at, below(32));
      break;
    case 4:
      bytes.insert(at, bytes.substr(below(bytes.size() + 1), below(256)));
      break;
    case 5:
      bytes.insert(at, std::string(below(9), static_cast<char>(next())));
      break;
    case 6:
      write_length(bytes);
      break;
    case 7:
    case 8:
      replace_number(bytes);
      break;
    case 9:
      swap_strings(bytes);
      break;
    case 10: {
      const size_t bracket = bytes.find_first_of("{}[],:\"", at);
      if (bracket != std::string::npos) bytes[bracket] = "{}[],:\" "[below(8)];
      break;
    }
    case 11:
      bytes.insert(at, std::string(below(4096), below(2) ? '[' : '{'));
      break;
    default:
      bytes = bytes.substr(0, at) + other.substr(below(other.size() + 1));
  }
}

std::string Mutator::mutate(std::string input, const std::string& other) {
  for (size_t n = 1 + below(4); n > 0; --n) change(input, other);
  return input;
}

}  // namespace vkflux::test
