// Named intermediate values of a forward pass, for finding where two implementations part, or where a value
// stops being finite.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "autograd/tensor.h"

namespace vkflux {

struct Trace : std::map<std::string, Tensor> {
  /// Gets the values, in the order in which they are made, in place of their being kept.
  std::function<void(const std::string& name, const Tensor& value)> sink;
};

inline void observe(Trace* trace, const std::string& name, const Tensor& value) {
  if (!trace) return;
  if (trace->sink) {
    trace->sink(name, value);
  } else {
    (*trace)[name] = value;
  }
}

/// Every value of x is finite; waits for the device.
bool is_finite(const Tensor& x);
/// The name of the first value that isn't finite among those that `pass` makes and returns; empty: all are.
std::string first_not_finite(const std::function<Tensor(Trace*)>& pass);

}  // namespace vkflux
