#include "model/sampler/mix.h"

#include "autograd/ops.h"

namespace vkflux {

Tensor guide(const Tensor& positive, const Tensor& negative, float scale) {
  return op::add(op::affine(negative, 1 - scale), op::affine(positive, scale));
}

Tensor noised(const Tensor& clean, const Tensor& noise, double level) {
  return op::add(op::affine(noise, static_cast<float>(level)),
                 op::affine(clean, static_cast<float>(1 - level)));
}

}  // namespace vkflux
