// Checks an op against a double-precision reference: forward, gradients (central differences of the
// reference), and that two runs give the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux::test {

/// A host tensor in double precision.
struct Host {
  Shape shape;
  std::vector<double> data;
  bool grad = true;  // check the gradient with respect to it

  double& operator[](size_t i) { return data[i]; }
  double operator[](size_t i) const { return data[i]; }
};

/// Deterministic values ~ N(0, scale) rounded to float; the same for the same (shape, seed).
Host random(const Shape& shape, uint64_t seed, double scale = 1);

/// The op on the device, and its reference; both take the inputs in order and return all outputs.
using DeviceFn = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;
using HostFn = std::function<std::vector<Host>(const std::vector<Host>&)>;

struct CheckOptions {
  double tolerance = 2e-4;  // max|got - want| / max|want|
  double grad_tolerance = 1e-3;
  double absolute = 1e-6;  // also accepted
  int max_probes = 24;     // elements per input whose gradient is differenced (spread over the tensor)
};

/// Fails the running gtest with a message that names the tensor and the worst element.
void check_op(const std::string& name, const std::vector<Host>& inputs, const DeviceFn& device_fn,
              const HostFn& host_fn, const CheckOptions& options = {});

Tensor upload(const Host& h);
/// max|got - want| / max|want| (or the absolute error when want is all zero).
double error_of(const std::vector<float>& got, const std::vector<double>& want);

}  // namespace vkflux::test
