#include "bench/cases.h"

#include <memory>

#include "autograd/ops.h"
#include "autograd/tape.h"

namespace vkflux::bench {

Tensor noise(Device& device, const Shape& shape) {
  return op::normal(device, shape, 1, static_cast<uint64_t>(shape.numel()));
}

Case forward_case(const std::string& name, const std::string& shape, const Inputs& inputs,
                  const Function& fn) {
  return {name, shape, [=] { return [=] { fn(inputs); }; }};
}

Case backward_case(const std::string& name, const std::string& shape, const Inputs& inputs,
                   const Function& fn, const std::vector<size_t>& wanted, const Inputs& parameters) {
  const auto prepare = [=]() -> std::function<void()> {
    auto tape = std::make_shared<Tape>();
    for (const size_t i : wanted) tape->watch(inputs[i]);
    for (const Tensor& p : parameters) tape->watch(p);
    Tensor y;
    {
      const auto scope = tape->record();
      y = fn(inputs);
    }
    const Tensor seed = Tensor::full(y.device(), y.shape(), 1.0f);
    return [tape, y, seed] { tape->backward(y, seed); };
  };
  return {name, shape, prepare};
}

}  // namespace vkflux::bench
