#include "bench/cases.h"

#include <memory>

#include "autograd/ops.h"
#include "autograd/tape.h"

namespace vkflux::bench {

Tensor noise(Device& device, const Shape& shape, uint64_t salt) {
  return op::normal(device, shape, 1 + salt, static_cast<uint64_t>(shape.numel()));
}

Instance forward_of(const Inputs& inputs, const Function& fn, Reference reference) {
  return {[=] { return [=] { return Inputs{fn(inputs)}; }; }, std::move(reference)};
}

Instance backward_of(const Inputs& inputs, const Function& fn, const Tensor& seed,
                     const std::vector<size_t>& wanted, Reference reference, const Inputs& parameters) {
  const auto prepare = [=]() -> std::function<Inputs()> {
    auto tape = std::make_shared<Tape>();
    for (const size_t i : wanted) tape->watch(inputs[i]);
    for (const Tensor& p : parameters) tape->watch(p);
    Tensor y;
    {
      const auto scope = tape->record();
      y = fn(inputs);
    }
    return [=] {
      const Grads grads = tape->backward(y, seed);
      Inputs out;
      for (const size_t i : wanted) out.push_back(grads.of(inputs[i]));
      for (const Tensor& p : parameters) out.push_back(grads.of(p));
      return out;
    };
  };
  return {prepare, std::move(reference)};
}

}  // namespace vkflux::bench
