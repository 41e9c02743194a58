// Named intermediate values of a forward pass, for finding where two implementations part.
#pragma once

#include <map>
#include <string>

#include "autograd/tensor.h"

namespace vkflux {

using Trace = std::map<std::string, Tensor>;

inline void observe(Trace* trace, const std::string& name, const Tensor& value) {
  if (trace) (*trace)[name] = value;
}

}  // namespace vkflux
