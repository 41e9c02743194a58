// Whole blocks of a FLUX.1 transformer.
#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "autograd/ops.h"
#include "bench/cases.h"
#include "bench/host_flux.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"

namespace vkflux::bench {
namespace {

constexpr int64_t kText = 256, kSide = 16, kImage = kSide * kSide;
const std::vector<int64_t> kWanted{0, 255, 256, 391, 511};  // tokens that are checked

HostFlux::Config config_of(int64_t hidden) {
  HostFlux::Config c;
  c.hidden = hidden, c.mlp_hidden = 4 * hidden;
  c.head_dim = 128, c.heads = hidden / 128;
  c.depth = c.depth_single = 1;
  c.axes_dim = default_rope_axes(c.head_dim);
  return c;
}

/// Random weights, one parameter after the other so that both forms of one never exist at once.
void fill(const std::vector<Param>& params, Device& device, DType dtype) {
  uint64_t salt = 10;
  for (const Param& p : params) {
    const bool scale = p.name.find("norm.scale") != std::string::npos;
    *p.tensor = scale ? Tensor::full(device, p.shape, 1) : op::affine(noise(device, p.shape, salt++), 0.02f);
    if (dtype != DType::f32 && p.shape.rank() == 2) *p.tensor = op::cast(*p.tensor, dtype);
  }
}

/// One block of a kind with what it needs from a forward pass.
template <class Block>
struct Setup {
  HostFlux::Config config;
  Block block;
  BlockContext context;
  Inputs streams;  // image and text, or joint
  Tensor dy;

  Setup(Device& device, int64_t hidden, DType dtype) : config(config_of(hidden)), block(config) {
    fill(parameters(block), device, dtype);
    context.silu_vec = op::silu(noise(device, {1, hidden}));
    context.rope = rope_table(device, flux1_ids(kText, kSide, kSide), 1, config.axes_dim, config.theta);
    context.tokens.text = kText, context.tokens.image = kImage;
    context.tokens.rows = context.tokens.columns = kSide;
    if constexpr (std::is_same_v<Block, DoubleBlock>) {
      streams = {noise(device, {1, kImage, hidden}, 1), noise(device, {1, kText, hidden}, 2)};
    } else {
      streams = {noise(device, {1, kText + kImage, hidden}, 1)};
    }
    dy = noise(device, {1, kText + kImage, hidden}, 3);
  }
  Tensor operator()(const Inputs& i) const {
    if constexpr (std::is_same_v<Block, DoubleBlock>) {
      const auto out = block({i[0], i[1]}, context, 0);
      return op::concat({out.txt, out.img}, 1);
    } else {
      return block(i[0], context, 0, 1);
    }
  }
  std::vector<Expected> forward() {
    const HostFlux host(config, parameters(block), context.rope.to_host(), kText);
    const Values vec = context.silu_vec.to_host();
    Values y;
    if constexpr (std::is_same_v<Block, DoubleBlock>) {
      const auto out = host.double_block("", {streams[1].to_host(), streams[0].to_host()}, vec, kWanted);
      y = out.txt;
      y.insert(y.end(), out.img.begin(), out.img.end());
    } else {
      y = host.single_block("", streams[0].to_host(), vec, kWanted);
    }
    Expectation e;
    for (const int64_t t : kWanted) {
      for (const int64_t j : spread(config.hidden, 256)) {
        const int64_t at = t * config.hidden + j;
        e.add(at, y[static_cast<size_t>(at)]);
      }
    }
    return {e.take()};
  }
  /// Slopes of sum(y dy) in a direction of each input and of one weight, by differences of forward passes.
  std::vector<Expected> backward(Tensor* weight) {
    constexpr float kStep = 1e-2f;
    std::vector<Expected> out;
    const auto slope = [&](Tensor& at) {
      const Tensor start = at, direction = noise(dy.device(), at.shape(), 9);
      const Values seed = dy.to_host();
      const float step = kStep * (&at == weight ? 0.02f : 1.0f);
      double difference = 0;
      for (const float sign : {1.0f, -1.0f}) {
        at = op::add(start, op::affine(direction, sign * step));
        const Values y = (*this)(streams).to_host();
        difference += sign * dot(y.data(), seed.data(), static_cast<int64_t>(y.size()));
      }
      at = start;
      Expected e;
      e.result = out.size();
      e.direction = direction.to_host();
      e.value = {difference / (2.0 * step)};
      e.scale = std::max(std::fabs(e.value[0]), std::sqrt(static_cast<double>(seed.size())));
      out.push_back(std::move(e));
    };
    for (Tensor& x : streams) slope(x);
    if (weight) slope(*weight);
    return out;
  }
};

/// all: gradients of every parameter; else only of the inputs, as in a frozen model.
template <class Block>
Case block_case(Device& device, const std::string& name, int64_t hidden, DType dtype, bool backward,
                bool all) {
  Case c;
  c.name = name + (backward ? all ? " bwd" : " dx" : "");
  c.shape = fmt::format("T{} I{} C{} D128", kText, kImage, hidden);
  c.dtype = vkflux::name(dtype);
  c.big = backward && hidden > 2048;
  c.tolerance = backward ? 1e-2 : dtype == DType::f32 ? 1e-3 : 2e-2;
  c.make = [&device, hidden, dtype, backward, all] {
    const auto s = std::make_shared<Setup<Block>>(device, hidden, dtype);
    const Function fn = [s](const Inputs& i) { return (*s)(i); };
    if (!backward) return forward_of(s->streams, fn, [s] { return s->forward(); });
    std::vector<size_t> wanted;
    for (size_t i = 0; i < s->streams.size(); ++i) wanted.push_back(i);
    const std::vector<Param> params = all ? parameters(s->block) : std::vector<Param>{};
    Inputs watched;
    Tensor* weight = nullptr;
    for (const Param& p : params) {  // the largest comes first, so that its place in the results is known
      if (weight == nullptr || p.shape.numel() > weight->numel()) weight = p.tensor;
    }
    if (weight) watched.push_back(*weight);
    for (const Param& p : params) {
      if (p.tensor != weight) watched.push_back(*p.tensor);
    }
    return backward_of(
        s->streams, fn, s->dy, wanted, [s, weight] { return s->backward(weight); }, watched);
  };
  return c;
}

}  // namespace

void add_blocks(std::vector<Case>& cases, Device& device) {
  constexpr int64_t kFull = 3072, kNarrow = 1024;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    cases.push_back(block_case<DoubleBlock>(device, "double block", kFull, dtype, false, false));
    cases.push_back(block_case<SingleBlock>(device, "single block", kFull, dtype, false, false));
  }
  cases.push_back(block_case<DoubleBlock>(device, "double block", kNarrow, DType::f32, true, true));
  cases.push_back(block_case<SingleBlock>(device, "single block", kNarrow, DType::f32, true, true));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    cases.push_back(block_case<DoubleBlock>(device, "double block", kFull, dtype, true, false));
    cases.push_back(block_case<SingleBlock>(device, "single block", kFull, dtype, true, false));
  }
}

}  // namespace vkflux::bench
