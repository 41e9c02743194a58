#include <fmt/format.h>

#include "autograd/ops.h"
#include "bench/cases.h"

namespace vkflux::bench {

void add_images(std::vector<Case>& cases, Device& device, const Sizes& s) {
  struct Map {
    int64_t side, in, out, kernel;
    int stride;
  };
  const Map maps[] = {{2 * s.side, s.channels / 2, s.channels / 2, 3, 1},
                      {s.side, s.channels, s.channels, 3, 1},
                      {s.side, s.channels, s.channels, 3, 2}};
  for (const Map& m : maps) {
    const Inputs in{noise(device, {1, m.side, m.side, m.in}),
                    noise(device, {m.out, m.in, m.kernel, m.kernel}), noise(device, {m.out})};
    const Function fn = [stride = m.stride](const Inputs& i) {
      op::ConvOptions o;
      o.stride = stride;
      if (stride == 2) o.pad_top = o.pad_left = 0;
      return op::conv2d(i[0], i[1], i[2], o);
    };
    const std::string shape =
        fmt::format("{}x{} C{} O{} k{} s{}", m.side, m.side, m.in, m.out, m.kernel, m.stride);
    cases.push_back(forward_case("conv2d", shape, in, fn));
    cases.push_back(backward_case("conv2d dx", shape, in, fn, {0}));
    cases.push_back(backward_case("conv2d dw", shape, in, fn, {1}));
  }
  const Inputs in{noise(device, {1, s.side, s.side, s.channels}), noise(device, {s.channels}),
                  noise(device, {s.channels})};
  const Function fn = [](const Inputs& i) { return op::group_norm(i[0], i[1], i[2], 32, 1e-6f, true); };
  const std::string shape = fmt::format("{}x{} C{}", s.side, s.side, s.channels);
  cases.push_back(forward_case("group_norm+silu", shape, in, fn));
  cases.push_back(backward_case("group_norm+silu bwd", shape, in, fn, {0, 1, 2}));
  cases.push_back(forward_case("upsample_nearest2", shape, {in[0]},
                               [](const Inputs& i) { return op::upsample_nearest2(i[0]); }));
}

}  // namespace vkflux::bench
