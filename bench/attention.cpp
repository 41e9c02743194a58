#include <fmt/format.h>

#include "autograd/ops.h"
#include "bench/cases.h"

namespace vkflux::bench {

void add_attention(std::vector<Case>& cases, Device& device, const Sizes& s) {
  const int64_t n = s.text + s.image;
  for (const int64_t d : {int64_t{64}, int64_t{128}}) {
    const int64_t heads = s.hidden / d;
    const Shape shape{1, heads, n, d};
    const Inputs in{noise(device, shape), noise(device, shape), noise(device, shape)};
    const Function fn = [](const Inputs& i) { return op::attention(i[0], i[1], i[2]); };
    const std::string text = fmt::format("H{} N{} D{}", heads, n, d);
    cases.push_back(forward_case("attention", text, in, fn));
    cases.push_back(backward_case("attention bwd", text, in, fn, {0, 1, 2}));
  }
}

}  // namespace vkflux::bench
