// What `vkflux bench` measures: one file per family of kernels.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/tensor.h"
#include "bench/measure.h"

namespace vkflux::bench {

/// Sizes of a FLUX.1 transformer and of its autoencoder's feature maps.
struct Sizes {
  int64_t hidden, heads, text, image;  // tokens; `image` is a square number
  int64_t side, channels;              // of a feature map

  static Sizes small() { return {256, 4, 32, 256, 32, 64}; }
  static Sizes full() { return {3072, 24, 512, 4096, 128, 256}; }  // FLUX.1 at 1024x1024
  int64_t head_dim() const { return hidden / heads; }
};

using Inputs = std::vector<Tensor>;
using Function = std::function<Tensor(const Inputs&)>;

/// Normally distributed values, the same every time.
Tensor noise(Device& device, const Shape& shape);
Case forward_case(const std::string& name, const std::string& shape, const Inputs& inputs,
                  const Function& fn);
/// The backward pass alone, with gradients wanted for `inputs[i]`, i in wanted, and for `parameters`.
Case backward_case(const std::string& name, const std::string& shape, const Inputs& inputs,
                   const Function& fn, const std::vector<size_t>& wanted, const Inputs& parameters = {});

void add_linear(std::vector<Case>& cases, Device& device, const Sizes& s);
void add_attention(std::vector<Case>& cases, Device& device, const Sizes& s);
void add_pointwise(std::vector<Case>& cases, Device& device, const Sizes& s);
void add_images(std::vector<Case>& cases, Device& device, const Sizes& s);
void add_blocks(std::vector<Case>& cases, Device& device, const Sizes& s);

}  // namespace vkflux::bench
