#include <fmt/format.h>

#include "autograd/ops.h"
#include "bench/cases.h"

namespace vkflux::bench {

void add_pointwise(std::vector<Case>& cases, Device& device, const Sizes& s) {
  const int64_t n = s.text + s.image, h = s.hidden, d = s.head_dim();
  const Tensor x = noise(device, {1, n, h}), y = noise(device, {1, n, h}),
               wide = noise(device, {1, n, 4 * h});
  const Tensor row = noise(device, {1, h}), row2 = noise(device, {1, h}), scale = noise(device, {d});
  const std::string shape = fmt::format("N{} C{}", n, h);
  const auto both = [&](const std::string& name, const std::string& text, const Inputs& in,
                        const Function& fn, const std::vector<size_t>& wanted) {
    cases.push_back(forward_case(name, text, in, fn));
    cases.push_back(backward_case(name + " bwd", text, in, fn, wanted));
  };
  both("layer_norm_modulate", shape, {x, row, row2},
       [](const Inputs& i) { return op::layer_norm_modulate(i[0], i[1], i[2], 1e-6f); }, {0, 1, 2});
  both("rms_norm", shape, {x, op::reshape(row, {h})},
       [](const Inputs& i) { return op::rms_norm(i[0], i[1], 1e-6f); }, {0, 1});
  both("gelu", fmt::format("N{} C{}", n, 4 * h), {wide},
       [](const Inputs& i) { return op::unary(i[0], op::Unary::gelu_tanh); }, {0});
  both("gate_residual", shape, {x, row, y},
       [](const Inputs& i) { return op::gate_residual(i[0], i[1], i[2]); }, {0, 1, 2});
  cases.push_back(forward_case("add", shape, {x, y}, [](const Inputs& i) { return op::add(i[0], i[1]); }));
  const Tensor table = noise(device, {1, n, d / 2, 2});
  both("qk_norm_rope", fmt::format("H{} N{} D{}", s.heads, n, d),
       {noise(device, {1, s.text, 3 * h}), noise(device, {1, s.image, 3 * h}), scale, table},
       [heads = s.heads](const Inputs& i) {
         return op::qk_norm_rope({{i[0], i[2], i[2]}, {i[1], i[2], i[2]}}, i[3], heads).q;
       },
       {0, 1, 2});
  both("softmax", shape, {x}, [](const Inputs& i) { return op::softmax(i[0]); }, {0});
}

}  // namespace vkflux::bench
