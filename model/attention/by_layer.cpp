#include "model/attention/by_layer.h"

#include <algorithm>
#include <cctype>

namespace vkflux {
namespace {

constexpr std::string_view kBlocks = "_blocks.";

bool digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

bool number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), digit);
}

/// The digits at the front, without leading zeros.
std::string_view digits(std::string_view text) {
  size_t n = 0;
  while (n < text.size() && digit(text[n])) ++n;
  text = text.substr(0, n);
  while (text.size() > 1 && text.front() == '0') text.remove_prefix(1);
  return text;
}

}  // namespace

bool LayerOrder::operator()(std::string_view a, std::string_view b) const {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      const std::string_view x = digits(a.substr(i)), y = digits(b.substr(j));
      if (x != y) return x.size() != y.size() ? x.size() < y.size() : x < y;
      while (i < a.size() && digit(a[i])) ++i;
      while (j < b.size() && digit(b[j])) ++j;
      continue;
    }
    if (a[i] != b[j]) return a[i] < b[j];
    ++i, ++j;
  }
  return a.size() - i != b.size() - j ? a.size() - i < b.size() - j : a < b;
}

std::string layer_key(std::string_view layer) {
  const size_t at = layer.rfind(kBlocks);
  if (at == std::string_view::npos || at == 0 || !number(layer.substr(at + kBlocks.size())))
    return std::string(layer);
  return std::string(layer.substr(0, at)) + ":" + std::string(layer.substr(at + kBlocks.size()));
}

std::string layer_of_key(std::string_view key) {
  const size_t at = key.rfind(':');
  if (at == std::string_view::npos || at == 0 || !number(key.substr(at + 1))) return std::string(key);
  return std::string(key.substr(0, at)) + std::string(kBlocks) + std::string(key.substr(at + 1));
}

}  // namespace vkflux
