#include "autograd/ops.h"
#include "autograd/ops/row_norm.h"
#include "autograd/run.h"

namespace vkflux {

Tensor op::rms_norm(const Tensor& x, const Tensor& weight, float eps) {
  expect("rms_norm", !weight.defined() || weight.rank() == 1, "the weight has one dimension", {&x, &weight});
  return row_norm({"rms_norm", false, false, eps}, x, weight, {});
}

}  // namespace vkflux
