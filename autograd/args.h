// What kernels are given besides their bindings, by the shaders' own names: the push constants of
// shaders/*.args.h, which the shaders include too, and the specialisation constants that the shaders declare.
#pragma once

#include <cstdint>
#include <type_traits>

namespace vkflux::args {
using uint = uint32_t;
#include "all_args.h"  // generated: every shaders/*.args.h
}  // namespace vkflux::args

namespace vkflux::spec {

/// The value of a specialisation constant. It has no default, so a kernel's constants are all given.
struct Constant {
  constexpr Constant(uint32_t x) : value(x) {}
  constexpr Constant(int x) : value(static_cast<uint32_t>(x)) {}
  constexpr Constant(bool x) : value(x) {}
  template <class Enum>
  requires std::is_enum_v<Enum>
  constexpr Constant(Enum x) : value(static_cast<uint32_t>(x)) {}

  uint32_t value;
};

#include "all_specs.h"  // generated: a struct for every shader, its constants in the order of their ids

}  // namespace vkflux::spec
