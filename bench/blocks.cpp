// Whole blocks of a FLUX.1 transformer.
#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "autograd/ops.h"
#include "bench/cases.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"

namespace vkflux::bench {
namespace {

/// One block of each kind with what it needs from a forward pass.
struct Blocks {
  Flux1Config config;
  DoubleBlock double_block;
  SingleBlock single_block;
  AttentionBank attention;
  BlockContext context;

  Blocks(Device& device, const Sizes& s)
      : config(make_config(s)), double_block(config), single_block(config) {
    const auto normal = [](const Param&) { return Init{Init::Kind::normal, 0.02f}; };
    for (const auto& params : {parameters(double_block), parameters(single_block)}) {
      allocate(params, device);
      initialise(params, normal, 1);
    }
    const auto side = static_cast<int64_t>(std::sqrt(static_cast<double>(s.image)) + 0.5);
    context.silu_vec = noise(device, {1, s.hidden});
    context.rope = rope_table(device, flux1_ids(s.text, side, side), 1, config.axes_dim, config.theta);
    context.tokens.text = s.text;
    context.tokens.image = s.image;
    context.tokens.rows = context.tokens.columns = side;
    context.attention = &attention;
  }

  static Flux1Config make_config(const Sizes& s) {
    Flux1Config c;
    c.hidden = s.hidden;
    c.mlp_hidden = 4 * s.hidden;
    c.heads = s.heads;
    c.head_dim = s.head_dim();
    c.depth = c.depth_single = 1;
    c.axes_dim = default_rope_axes(c.head_dim);
    return c;
  }
};

}  // namespace

void add_blocks(std::vector<Case>& cases, Device& device, const Sizes& s) {
  const auto blocks = std::make_shared<Blocks>(device, s);
  const std::string shape = fmt::format("T{} I{} C{} D{}", s.text, s.image, s.hidden, s.head_dim());
  const Inputs streams{noise(device, {1, s.image, s.hidden}), noise(device, {1, s.text, s.hidden})};
  const Function run_double = [blocks](const Inputs& i) {
    const auto out = blocks->double_block({i[0], i[1]}, blocks->context, 0);
    return op::concat({out.txt, out.img}, 1);
  };
  cases.push_back(forward_case("double block", shape, streams, run_double));
  cases.push_back(backward_case("double block bwd", shape, streams, run_double, {0, 1},
                                tensors(parameters(blocks->double_block))));
  const Inputs joint{noise(device, {1, s.text + s.image, s.hidden})};
  const Function run_single = [blocks](const Inputs& i) {
    return blocks->single_block(i[0], blocks->context, 0, 1);
  };
  cases.push_back(forward_case("single block", shape, joint, run_single));
  cases.push_back(backward_case("single block bwd", shape, joint, run_single, {0},
                                tensors(parameters(blocks->single_block))));
}

}  // namespace vkflux::bench
