#include "model/backbone.h"

#include "autograd/ops.h"
#include "model/weight_stream.h"

namespace vkflux {

Tensor LatentGeometry::pack(const Tensor& latent) const {
  return op::patchify(latent, patch);
}

Tensor LatentGeometry::unpack(const Tensor& tokens, int64_t h, int64_t w) const {
  return op::unpatchify(tokens, patch, h, w);
}

std::vector<int> BackboneLayout::replaceable() const {
  std::vector<int> out;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].replaceable) out.push_back(static_cast<int>(i));
  }
  return out;
}

std::unique_ptr<Pass> Backbone::begin(const PassInputs& in, bool in_place, Trace* trace) {
  std::unique_ptr<Pass> pass = embed(in, trace);
  pass->step = in.step;
  pass->trace = trace;
  pass->in_place = in_place;
  if (in.attention) pass->attention = in.attention->pass(in.x.dim(0), pass->tokens);
  return pass;
}

void Backbone::acquire(size_t part) {
  if (weights_) weights_->acquire(part);
}

Tensor Backbone::forward(const PassInputs& in, Trace* trace) {
  const std::unique_ptr<Pass> pass = begin(in, false, trace);
  for (size_t i = 0; i < parts().size(); ++i) {
    acquire(i);
    run(i, *pass);
  }
  return finish(*pass);
}

}  // namespace vkflux
