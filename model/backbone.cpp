#include "model/backbone.h"

#include <fmt/format.h>

#include "autograd/ops.h"
#include "model/weight_stream.h"
#include "vk/error.h"

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

Tensor Backbone::input(const PassInputs& in) {
  const Tensor extra = in.condition[kExtraChannels], references = in.condition[kReferenceTokens];
  const int64_t told = references.defined() ? references.dim(1) : 0;
  if (told != in.tokens.reference_tokens()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} reference tokens, but the layout has {}", told,
                                                         in.tokens.reference_tokens()));
  }
  Tensor x = in.x;
  if (extra.defined()) {
    if (extra.rank() != 3 || extra.dim(0) != x.dim(0) || extra.dim(1) != x.dim(1)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("extra channels of {} for tokens of {}", extra.shape().str(), x.shape().str()));
    }
    x = op::concat({x, extra}, 2);
  }
  if (!references.defined()) return x;
  if (references.rank() != 3 || references.dim(0) != x.dim(0) || references.dim(2) != x.dim(2)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("reference tokens of {} for tokens of {}",
                                                         references.shape().str(), x.shape().str()));
  }
  return op::concat({x, references}, 1);
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
