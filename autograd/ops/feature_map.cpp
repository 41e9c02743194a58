// Positive features and the norm that goes with them: y = u / (|u| + eps) over rows.
#include "autograd/ops.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

struct FeatureMap {
  const char* op;
  bool elu, normalise;
  float eps;
};

// Forward: x -> y, norms written. Backward: x is y, dy given -> dx.
Tensor launch(const FeatureMap& f, const Tensor& x, const Tensor& norms, const Tensor& dy) {
  const Tensor out = Tensor::empty(x.device(), x.shape());
  const int64_t cols = x.dim(-1), rows = x.numel() / cols;
  const RowShape s = row_shape(x.device(), f.op, cols);
  const bool backward = dy.defined();
  const double n = static_cast<double>(x.numel());
  // Bindings that the specialised kernel doesn't touch get any tensor of the call.
  const Tensor unused = Tensor::empty(x.device(), {4}, DType::f32, MemoryClass::scratch);
  run(x.device(),
      spec::FeatureMap{.LANES = s.lanes,
                       .SIMD = s.simd,
                       .VEC4 = s.vec4,
                       .ELU = f.elu,
                       .NORM = f.normalise,
                       .BACKWARD = backward},
      {x, backward && f.normalise ? norms : x, backward ? dy : x, out,
       backward || !f.normalise ? unused : norms},
      args::FeatureMapArgs{u32(rows), u32(cols), f.eps}, groups_1d(static_cast<uint64_t>(rows)),
      {(backward ? 9 : 8) * n, (backward ? 12 : 8) * n});
  return out;
}

Tensor apply(const FeatureMap& f, const Tensor& x_in) {
  expect(f.op, x_in.defined() && x_in.dtype() == DType::f32 && x_in.rank() >= 1 && x_in.dim(-1) > 0,
         "needs f32 x[..., C]", {&x_in});
  const Tensor x = dense(x_in);
  Tensor norms;
  if (f.normalise) norms = Tensor::empty(x.device(), {x.numel() / x.dim(-1)});
  const Tensor y = launch(f, x, norms, {});
  if (Tape* t = Tape::wants({&x_in})) {
    t->push(f.op, {y}, [f, x = x_in.key(), y = y.alias(), norms, id = y.id()](Grads& g) {
      if (g.wants(x)) g.add(x, launch(f, y, norms, dense(g.of(id))));
    });
  }
  return y;
}

}  // namespace

Tensor op::feature_map(const Tensor& x, bool normalise, float eps) {
  return apply({"feature_map", true, normalise, eps}, x);
}

Tensor op::soft_l2norm(const Tensor& x, float eps) {
  return apply({"soft_l2norm", false, true, eps}, x);
}

}  // namespace vkflux
