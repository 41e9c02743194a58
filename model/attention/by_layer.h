// Tables by layer name.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace vkflux {

/// Names in order, numbers in them by value: "single_blocks.2" comes before "single_blocks.10".
struct LayerOrder {
  bool operator()(std::string_view a, std::string_view b) const;
  using is_transparent = void;
};

template <class T>
using ByLayer = std::map<std::string, T, LayerOrder>;

/// The name that files of students and their metrics use for a layer, as the reference does:
/// "single_blocks.7" is "single:7"; names of another form stay as they are.
std::string layer_key(std::string_view layer);
/// The inverse.
std::string layer_of_key(std::string_view key);

}  // namespace vkflux
