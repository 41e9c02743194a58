#include <cmath>
#include <vector>

#include "autograd/ops.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

/// w_k = max_period^(-k / half), every step rounded to f32 like the published models' embeddings.
Tensor frequencies(Device& device, int64_t half, float max_period) {
  const float log_period = static_cast<float>(std::log(static_cast<double>(max_period)));
  std::vector<float> w(static_cast<size_t>(half));
  for (size_t k = 0; k < w.size(); ++k) {
    w[k] = std::exp(-log_period * static_cast<float>(k) / static_cast<float>(half));
  }
  return Tensor::constant(device, w, {half});
}

}  // namespace

Tensor op::timestep_embedding(const Tensor& s_in, int64_t dim, float max_period, float time_factor) {
  expect("timestep_embedding",
         s_in.defined() && s_in.dtype() == DType::f32 && s_in.rank() == 1 && dim >= 2 && max_period > 0,
         "needs f32 s[B], dim >= 2 and a positive max_period", {&s_in});
  constexpr uint32_t kLocal = 64;
  Device& device = s_in.device();
  const Tensor s = dense(s_in), w = frequencies(device, dim / 2, max_period);
  const Tensor y = Tensor::empty(device, {s.dim(0), dim});
  const args::TimestepEmbeddingArgs a{u32(dim), time_factor};
  const double n = static_cast<double>(y.numel());
  run(device, spec::TimestepEmbedding{.LOCAL = kLocal}, {s, w, y}, a,
      {static_cast<uint32_t>(ceil_div(static_cast<uint64_t>(dim / 2 + dim % 2), kLocal)), u32(s.dim(0)), 1},
      {20 * n, 4 * n});
  if (Tape* t = Tape::wants({&s_in})) {
    t->push("timestep_embedding", {y}, [=, id = y.id()](Grads& g) {
      const Tensor ds = Tensor::empty(s.device(), s.shape());
      const RowShape r = row_shape(s.device(), "timestep_embedding", dim);
      run(s.device(), spec::TimestepEmbeddingBwd{.LANES = r.lanes, .SIMD = r.simd, .VEC4 = r.vec4},
          {s, w, dense(g.of(id)), ds}, a, {u32(s.dim(0)), 1, 1}, {24 * n, 4 * n});
      g.add(s_in, ds);
    });
  }
  return y;
}

}  // namespace vkflux
