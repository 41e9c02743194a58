// The strategies that a backbone's layers have besides full attention.
#pragma once

#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "model/attention/attention.h"

namespace vkflux {

class AttentionBank {
 public:
  using Strategies = std::map<std::pair<int, AttentionKind>, std::shared_ptr<Attention>>;

  explicit AttentionBank(std::vector<AttentionLayer> layers) : layers_(std::move(layers)) {}

  const std::vector<AttentionLayer>& layers() const { return layers_; }
  /// The place of the layer of this name. Error invalid_argument when there is none.
  int index(std::string_view layer) const;

  /// A null strategy takes it away. Error invalid_argument for kind full and for layers that aren't
  /// replaceable.
  void set(int layer, AttentionKind kind, std::shared_ptr<Attention> strategy);
  /// Null when the layer has none of this kind.
  std::shared_ptr<Attention> find(int layer, AttentionKind kind) const;
  /// What runs that begin from now on use; a run keeps what it began with.
  const Strategies& strategies() const { return strategies_; }
  void restore(Strategies strategies) { strategies_ = std::move(strategies); }

 private:
  std::vector<AttentionLayer> layers_;
  Strategies strategies_;
};

}  // namespace vkflux
