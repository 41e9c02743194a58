#include <fmt/format.h>

#include "autograd/ops.h"
#include "bench/cases.h"

namespace vkflux::bench {

void add_linear(std::vector<Case>& cases, Device& device, const Sizes& s) {
  struct Product {
    int64_t m, k, n;
    op::Activation activation;
  };
  const int64_t tokens = s.text + s.image, h = s.hidden;
  const Product products[] = {{tokens, h, 3 * h, op::Activation::none},
                              {tokens, h, 4 * h, op::Activation::gelu_tanh},
                              {tokens, 4 * h, h, op::Activation::none},
                              {1, h, 6 * h, op::Activation::none}};
  for (const Product& p : products) {
    const Inputs in{noise(device, {p.m, p.k}), noise(device, {p.n, p.k}), noise(device, {p.n})};
    const Function fn = [a = p.activation](const Inputs& i) { return op::linear(i[0], i[1], i[2], a); };
    const std::string name = p.activation == op::Activation::none ? "linear" : "linear+gelu";
    const std::string shape = fmt::format("M{} K{} N{}", p.m, p.k, p.n);
    cases.push_back(forward_case(name, shape, in, fn));
    cases.push_back(backward_case(name + " dx", shape, in, fn, {0}));
    cases.push_back(backward_case(name + " dw", shape, in, fn, {1}));
  }
}

}  // namespace vkflux::bench
