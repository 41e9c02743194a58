// What `vkflux bench` measures: one file per family of kernels.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/tensor.h"
#include "bench/measure.h"

namespace vkflux::bench {

using Function = std::function<Tensor(const Inputs&)>;

/// Normally distributed values, the same every time; salt tells tensors of one size apart.
Tensor noise(Device& device, const Shape& shape, uint64_t salt = 0);

/// The work of fn(inputs).
Instance forward_of(const Inputs& inputs, const Function& fn, Reference reference = {});
/// The backward pass alone, from the gradient `seed`: its results are the gradients with respect to
/// inputs[i], i in wanted, followed by those of `parameters`.
Instance backward_of(const Inputs& inputs, const Function& fn, const Tensor& seed,
                     const std::vector<size_t>& wanted, Reference reference = {},
                     const Inputs& parameters = {});

void add_linear(std::vector<Case>& cases, Device& device);
void add_attention(std::vector<Case>& cases, Device& device);
void add_pointwise(std::vector<Case>& cases, Device& device);
void add_images(std::vector<Case>& cases, Device& device);
void add_blocks(std::vector<Case>& cases, Device& device);
/// model: a checkpoint folder; its transformer's denoising step is measured beside one of random weights.
void add_steps(std::vector<Case>& cases, Device& device, const std::string& model);
void add_training(std::vector<Case>& cases, Device& device);

}  // namespace vkflux::bench
