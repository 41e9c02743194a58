// Optimiser state over flat arenas: the parameters of a model are views into one buffer, gradients, moments
// and EMA are sister buffers of the same layout, so a step is a few dispatches whatever the number of
// parameters.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

/// A flat f32 buffer cut into named tensors, each starting at a multiple of 256 bytes (the gaps stay zero).
class Arena {
 public:
  Arena(Device& device, const std::vector<std::pair<std::string, Shape>>& layout,
        MemoryClass cls = MemoryClass::weights);
  const Tensor& flat() const { return flat_; }  // [total]
  const Tensor& operator[](size_t i) const { return tensors_[i]; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  size_t size() const { return tensors_.size(); }

 private:
  Tensor flat_;
  std::vector<Tensor> tensors_;
};

struct AdamWOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
         weight_decay = 0.01;  // 1 - beta2 in float would be 5e-5 off
};

/// One AdamW step (decoupled decay, bias correction by `step`, counted from 1) over flat f32 tensors of equal
/// length. grad_scale: a one-element tensor multiplied into the gradient (from clip_scale), or undefined;
/// when it isn't finite nothing is changed. decay_mask: u8 per 64 elements of the arena (1 = decay), or
/// undefined (all decay).
void adamw(const Tensor& param, const Tensor& grad, const Tensor& m, const Tensor& v,
           const AdamWOptions& options, int64_t step, const Tensor& grad_scale = {},
           const Tensor& decay_mask = {});
/// ema = decay * ema + (1 - decay) * param
void ema_update(const Tensor& ema, const Tensor& param, float decay);
/// sqrt(sum of squares) of a flat tensor -> []; fixed order.
Tensor global_norm(const Tensor& grad);
/// min(1, max_norm / (norm + 1e-6)) -> []: for adamw's grad_scale; stays on the device. NaN when the norm, or
/// the loss, isn't finite.
Tensor clip_scale(const Tensor& norm, float max_norm, const Tensor& loss = {});
/// x *= scale[0] in place.
void scale_inplace(const Tensor& x, const Tensor& scale);

}  // namespace vkflux
