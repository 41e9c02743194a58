// Kinds of components, for describing files.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "model/io/json.h"
#include "model/io/tensor_source.h"

namespace vkflux {

/// A name, and the config that a file's tensors (and its config.json, or null) stand for; nothing when the
/// tensors are something else. Error format or unsupported when it looks like one but can't be loaded.
struct ComponentKind {
  std::string_view name;
  std::optional<io::Json> (*describe)(const io::TensorSource& file, const io::Json& config);
  /// Error format names the tensors that are missing, of another shape, or too many for that config.
  void (*check)(const io::TensorSource& file, const io::Json& config) = nullptr;
};

/// All kinds that files are tried with, in this order.
std::span<const ComponentKind> component_kinds();

}  // namespace vkflux
