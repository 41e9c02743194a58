// The layers that all models are made of.
#pragma once

#include "autograd/ops.h"
#include "model/module.h"

namespace vkflux {

/// y = x . weight^T + bias, x[..., in] -> [..., out].
struct Linear {
  int64_t in = 0, out = 0;
  bool has_bias = true;
  Tensor weight = {}, bias = {};

  template <class V>
  void visit(V& v) {
    v("weight", weight, Shape{out, in});
    if (has_bias) v("bias", bias, Shape{out});
  }
  Tensor operator()(const Tensor& x, op::Activation act = op::Activation::none) const {
    return op::linear(x, weight, bias, act);
  }
};

/// A 2-D convolution over channels-last images, x[B, H, W, in] -> [B, H', W', out].
struct Conv2d {
  int64_t in = 0, out = 0, kernel = 3;
  Tensor weight = {}, bias = {};

  template <class V>
  void visit(V& v) {
    v("weight", weight, Shape{out, in, kernel, kernel});
    v("bias", bias, Shape{out});
  }
  Tensor operator()(const Tensor& x, const op::ConvOptions& options = {}) const {
    return op::conv2d(x, weight, bias, options);
  }
  /// A 1x1 convolution as a matrix product over channels.
  Tensor pointwise(const Tensor& x) const { return op::linear(x, op::reshape(weight, {out, in}), bias); }
};

/// Layer norm or group norm parameters.
struct NormAffine {
  int64_t width = 0;
  Tensor weight = {}, bias = {};

  template <class V>
  void visit(V& v) {
    v("weight", weight, Shape{width});
    v("bias", bias, Shape{width});
  }
};

}  // namespace vkflux
