#include "model/attention/bank.h"

#include <fmt/format.h>

#include <algorithm>

#include "vk/error.h"

namespace vkflux {

int AttentionBank::index(std::string_view layer) const {
  const auto it =
      std::find_if(layers_.begin(), layers_.end(), [&](const auto& l) { return l.name == layer; });
  if (it == layers_.end())
    throw Error(ErrorCode::invalid_argument, fmt::format("this transformer has no layer {}", layer));
  return static_cast<int>(it - layers_.begin());
}

void AttentionBank::set(int layer, AttentionKind kind, std::shared_ptr<Attention> strategy) {
  if (kind == AttentionKind::full)
    throw Error(ErrorCode::invalid_argument, "full attention can't be replaced");
  if (layer < 0 || layer >= static_cast<int>(layers_.size()) ||
      !layers_[static_cast<size_t>(layer)].replaceable) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} attention for layer {}, which isn't one that a strategy may replace",
                            vkflux::name(kind), layer));
  }
  if (strategy) {
    strategies_[{layer, kind}] = std::move(strategy);
  } else {
    strategies_.erase({layer, kind});
  }
}

std::shared_ptr<Attention> AttentionBank::find(int layer, AttentionKind kind) const {
  const auto it = strategies_.find({layer, kind});
  return it == strategies_.end() ? nullptr : it->second;
}

}  // namespace vkflux
