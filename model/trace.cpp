#include "model/trace.h"

#include <cmath>

#include "autograd/ops.h"

namespace vkflux {

bool is_finite(const Tensor& x) {
  // A sum of magnitudes is finite only if every term is, or where it overflows itself.
  if (x.dtype() == DType::i32 || x.dtype() == DType::u8 || x.numel() == 0) return true;
  const Tensor values = x.dtype() == DType::f32 ? x : op::cast(x, DType::f32);
  if (std::isfinite(op::mean_all(op::unary(values, op::Unary::abs)).item())) return true;
  for (const float v : values.to_host()) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

std::string first_not_finite(const std::function<Tensor(Trace*)>& pass) {
  std::string found;
  Trace trace;
  trace.sink = [&](const std::string& name, const Tensor& value) {
    if (found.empty() && !is_finite(value)) found = name;
  };
  const Tensor out = pass(&trace);
  if (found.empty() && out.defined() && !is_finite(out)) found = "the output";
  return found;
}

}  // namespace vkflux
